from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from api.model_files import missing_files, size_on_disk
from shortft_core import settings as core
from shortft_core.catalog import BASE_MODELS, Weights

COMMIT: Final = "a" * 40


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The cache of this program, empty."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("SHORTFT_CACHE_DIR", str(folder))
    core.settings.cache_clear()
    yield folder
    core.settings.cache_clear()


def snapshot(hub: Path, hub_id: str, *names: str, revision: str = "main") -> Path:
    """A repository as the hub client keeps it."""
    repository = hub / f"models--{hub_id.replace('/', '--')}"
    folder = repository / "snapshots" / COMMIT
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"abc")
    reference = repository / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(COMMIT)
    return folder


def test_the_hub_client_agrees_where_a_snapshot_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, snapshot_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = snapshot(tmp_path, "a/b", "config.json")
    assert Path(snapshot_download("a/b", local_files_only=True)) == folder
    assert missing_files(Weights(hub_id="a/b", licence=""), tmp_path) == ()


def test_named_files_of_a_repository(tmp_path: Path) -> None:
    one = Weights(hub_id="a/b", files=("x/y.safetensors",), licence="")
    assert missing_files(one, tmp_path) == ("a/b/x/y.safetensors",)
    snapshot(tmp_path, "a/b", "z.safetensors")
    assert missing_files(one, tmp_path) == ("a/b/x/y.safetensors",)
    assert size_on_disk(one, tmp_path) is None
    snapshot(tmp_path, "a/b", "x/y.safetensors")
    assert (missing_files(one, tmp_path), size_on_disk(one, tmp_path)) == ((), 3)


def test_a_revision_is_a_name_or_a_commit(tmp_path: Path) -> None:
    one = Weights(hub_id="a/b", files=("x.safetensors",), licence="")
    snapshot(tmp_path, "a/b", "x.safetensors", revision="fp16")
    assert missing_files(one, tmp_path) == ("a/b/x.safetensors",)
    assert missing_files(one, tmp_path, "fp16") == missing_files(one, tmp_path, COMMIT) == ()
    assert missing_files(one, tmp_path, "b" * 40) == ("a/b/x.safetensors",)


def test_a_whole_repository(tmp_path: Path) -> None:
    whole = Weights(hub_id="a/b", licence="")
    # A download that was cut off: its folder is there, its list of parts is not.
    snapshot(tmp_path, "a/b", "unet/config.json")
    assert missing_files(whole, tmp_path) == ("a/b/model_index.json or config.json",)
    assert size_on_disk(whole, tmp_path) is None
    snapshot(tmp_path, "a/b", "model_index.json")
    assert (missing_files(whole, tmp_path), size_on_disk(whole, tmp_path)) == ((), 6)


def test_a_file_with_an_address_is_in_the_cache(cache: Path, tmp_path: Path) -> None:
    fetched = Weights(url="https://x/z.pth", files=("z.pth",), licence="")
    assert missing_files(fetched, tmp_path) == ("z.pth",)
    (cache / "z.pth").write_bytes(b"four")
    (cache / "other.pth").write_bytes(b"more")
    assert (missing_files(fetched, tmp_path), size_on_disk(fetched, tmp_path)) == ((), 4)


def test_bundled_files(tmp_path: Path) -> None:
    assert missing_files(BASE_MODELS["shapes"].weights, tmp_path) == ()
    one = Weights(bundled="shapes-shortcut", files=("k3.safetensors",), licence="")
    assert missing_files(one, tmp_path) == ("k3.safetensors",)
    assert size_on_disk(Weights(bundled="absent", licence=""), tmp_path) is None
