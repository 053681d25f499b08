from __future__ import annotations

import copy
import hashlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from shortft_core import weights as w
from shortft_core.catalog import Weights
from shortft_core.errors import MissingWeightsError, UnknownNameError, WeightsError
from shortft_core.settings import settings
from shortft_core.spec import Source

CHOICES = {
    "official": {
        "model": Weights(hub_id="owner/model", files=("weights.pt",), licence="MIT"),
        "head": Weights(hub_id="owner/head", licence="MIT"),
    },
    "tiny": {
        "model": Weights(bundled="tiny", licence="MIT"),
        "head": Weights(bundled="tiny", files=("head.pt",), licence="MIT"),
    },
}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bundled" / "tiny"
    folder.mkdir(parents=True)
    monkeypatch.setattr(w, "BUNDLED", folder.parent)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], Path]:
    """Puts a file into a hub cache of this test, as a download would have left it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def add(repository: str, name: str, commit: str = "1" * 40) -> Path:
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text("1" * 40)
        path = folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")
        return path

    return add


def test_bundled_weights_are_a_folder_or_the_one_file_named(bundle: Path) -> None:
    (bundle / "head.pt").touch()
    assert w.locate(CHOICES["tiny"]["model"], field="f") == bundle
    assert w.locate(CHOICES["tiny"]["head"], field="f") == bundle / "head.pt"


def test_a_missing_bundled_file_is_named(bundle: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"^f: head\.pt of tiny is missing"):
        w.locate(CHOICES["tiny"]["head"], field="f")
    bundle.rmdir()
    with pytest.raises(MissingWeightsError, match="the folder of tiny is missing"):
        w.locate(CHOICES["tiny"]["model"], field="f")


def test_several_files_stand_for_their_folder(bundle: Path) -> None:
    both = Weights(bundled="tiny", files=("a", "b"), licence="MIT")
    (bundle / "a").touch()
    with pytest.raises(MissingWeightsError, match="b of tiny"):
        w.locate(both, field="f")
    (bundle / "b").touch()
    assert w.locate(both, field="f") == bundle


def test_a_changed_file_is_refused(bundle: Path) -> None:
    (bundle / "head.pt").write_bytes(b"seen")
    digest = hashlib.sha256(b"seen").hexdigest()
    known = Weights(bundled="tiny", files=("head.pt",), sha256={"head.pt": digest}, licence="MIT")
    assert w.locate(known, field="f") == bundle / "head.pt"
    (bundle / "head.pt").write_bytes(b"other")
    with pytest.raises(WeightsError, match=f"expected {digest}"):
        w.locate(known, field="f")


def test_a_cached_repository_is_found_offline(hub: Callable[..., Path]) -> None:
    path = hub("owner/model", "weights.pt")
    assert w.locate(CHOICES["official"]["model"], field="f") == path


def test_a_revision_is_another_snapshot(hub: Callable[..., Path]) -> None:
    hub("owner/model", "weights.pt")
    pinned = hub("owner/model", "weights.pt", "2" * 40)
    entry = CHOICES["official"]["model"]
    assert w.locate(entry, field="f", revision="2" * 40) == pinned
    with pytest.raises(MissingWeightsError):
        w.locate(entry, field="f", revision="3" * 40)


def test_a_repository_that_is_not_here_is_named_with_the_remedy() -> None:
    with pytest.raises(MissingWeightsError) as caught:
        w.locate(CHOICES["official"]["model"], field="base_model")
    assert caught.value.field == "base_model"
    assert caught.value.problem.startswith("weights.pt of owner/model is not available")
    assert "`shortft models fetch`" in caught.value.remedy


def test_a_snapshot_without_the_file_is_not_enough(hub: Callable[..., Path]) -> None:
    hub("owner/model", "other.pt")
    with pytest.raises(MissingWeightsError, match=r"weights\.pt of owner/model"):
        w.locate(CHOICES["official"]["model"], field="f")


def test_our_own_offline_switch_is_enough(
    hub: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("SHORTFT_OFFLINE", "1")
    settings.cache_clear()
    with pytest.raises(MissingWeightsError, match="outgoing traffic has been disabled"):
        w.locate(Weights(hub_id="owner/absent", licence="none"), field="base_model")
    settings.cache_clear()


def test_a_download_names_the_field_when_offline() -> None:
    remote = Weights(url="https://example.org/head.pth", files=("head.pth",), licence="MIT")
    with pytest.raises(MissingWeightsError, match=r"head\.pth") as caught:
        w.locate(remote, field="rewards.0.source")
    assert caught.value.field == "rewards.0.source"


def test_source_is_the_first_choice_a_name_a_repository_or_a_path(
    bundle: Path, hub: Callable[..., Path], tmp_path: Path
) -> None:
    official, theirs = hub("owner/model", "weights.pt"), hub("me/mine", "weights.pt")
    assert w.source_path(None, CHOICES, field="f") == official
    assert w.source_path(Source(name="tiny"), CHOICES, field="f") == bundle
    assert w.source_path(Source(id="me/mine"), CHOICES, field="f") == theirs
    assert w.source_path(Source(path=str(tmp_path)), CHOICES, field="f") == tmp_path


def test_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="nowhere does not exist"):
        w.source_path(Source(path=str(tmp_path / "nowhere")), CHOICES, field="f")
    with pytest.raises(UnknownNameError, match=r"^f\.name: unknown name 'tyni'.*tiny"):
        w.source_path(Source(name="tyni"), CHOICES, field="f")


def test_a_folder_with_one_checkpoint_stands_for_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="found none"):
        w.checkpoint_file(tmp_path, field="f")
    (tmp_path / "model.pth").touch()
    (tmp_path / "README.md").touch()
    assert w.checkpoint_file(tmp_path, field="f") == tmp_path / "model.pth"
    assert w.checkpoint_file(tmp_path / "model.pth", field="f") == tmp_path / "model.pth"
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(WeightsError, match=r"found model\.pth, model\.safetensors"):
        w.checkpoint_file(tmp_path, field="f")


TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2).half()}


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3, "optimizer": {"lr": 0.1}},
        {f"module.{name}": tensor for name, tensor in TENSORS.items()},
        {"state_dict": {f"module.{name}": tensor for name, tensor in TENSORS.items()}},
        {name: nn.Parameter(tensor) for name, tensor in TENSORS.items()},
    ],
)
@pytest.mark.parametrize("suffix", w.TORCH_SUFFIXES)
def test_torch_files_give_their_tensors(tmp_path: Path, content: Any, suffix: str) -> None:
    torch.save(content, tmp_path / f"file{suffix}")
    assert_same(w.read_tensors(tmp_path / f"file{suffix}", field="f"))


def test_safetensors_give_their_tensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "file.safetensors")
    assert_same(w.read_tensors(tmp_path / "file.safetensors", field="f"))


def assert_same(tensors: dict[str, Tensor]) -> None:
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, TENSORS[name])
        assert tensor.dtype == TENSORS[name].dtype
        assert not tensor.requires_grad


class Payload:
    """Would create a file while it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_code_is_refused_and_never_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="pickled objects, which could run code") as caught:
        w.read_tensors(tmp_path / "evil.pt", field="rewards.0.source")
    assert caught.value.field == "rewards.0.source"
    assert "safetensors" in caught.value.remedy
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(WeightsError, match="pickled objects"):
        w.read_tensors(tmp_path / "module.pt", field="f")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([torch.ones(1)], "holds no tensors by name"),
        ({}, "holds no tensors by name"),
        ({"state_dict": {}}, "holds no tensors by name"),
        ({"a": torch.ones(1), "epoch": 3}, "holds a int under 'epoch'"),
        ({"model": {"a": torch.ones(1)}}, "holds a dict under 'model'"),
        ({"a": torch.tensor([1.0, torch.nan])}, "NaN or infinite values in a"),
        ({"a": torch.tensor([1.0, torch.inf]).half()}, "NaN or infinite values in a"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, told: str) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match=told):
        w.read_tensors(tmp_path / "file.pt", field="f")


def broken() -> dict[str, bytes]:
    whole = io.BytesIO()
    torch.save(TENSORS, whole)
    return {
        "empty": b"",
        "text": b"hello world",
        "page": b"<!DOCTYPE html><html></html>" * 20,
        "zeros": bytes(300),
        "random": random.Random(0).randbytes(500),
        "torn": whole.getvalue()[:400],
        "nearly-whole": whole.getvalue()[:-30],
        "archive": b"PK\x03\x04" + bytes(100),
    }


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", broken())
def test_broken_files_are_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(broken()[kind])
    with pytest.raises(WeightsError, match=r"file\.\w+ (cannot be read|holds pickled objects)"):
        w.read_tensors(path, field="f")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"absent\.pt is missing"):
        w.read_tensors(tmp_path / "absent.pt", field="f")


def test_load_strict_copies_in_the_precision_of_the_module() -> None:
    module = nn.Linear(3, 2)
    tensors = {"weight": torch.arange(6).view(2, 3).half(), "bias": torch.ones(2).double()}
    w.load_strict(module, tensors, field="f", path=Path("file"))
    assert module.weight.dtype == module.bias.dtype == torch.float32
    assert module.weight.flatten().tolist() == list(range(6))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("0.bias"), r"1 missing: 0\.bias"),
        (lambda t: t.update(x=torch.ones(1)), r"1 unexpected: x"),
        (
            lambda t: t.update({"0.bias": torch.ones(1)}),
            r"1 misshapen: 0\.bias \(1,\) instead of \(2,\)",
        ),
        (dict.clear, r"6 missing: 0\.bias, 0\.weight, 1\.bias, \.\.\."),
    ],
)
def test_load_strict_lists_what_does_not_fit_and_changes_nothing(
    change: Callable[[dict[str, Tensor]], Any], told: str
) -> None:
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    tensors = {name: torch.zeros_like(tensor) for name, tensor in module.state_dict().items()}
    before = copy.deepcopy(module.state_dict())
    change(tensors)
    with pytest.raises(WeightsError, match=told):
        w.load_strict(module, tensors, field="f", path=Path("file"))
    assert all(torch.equal(before[name], now) for name, now in module.state_dict().items())
