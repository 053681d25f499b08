from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from shortft_core.artifacts import ArtifactStore, LocalStore, atomic_file
from shortft_core.errors import ArtifactError

KEY = "checkpoints/000050/state.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_what_is_written_is_read(store: ArtifactStore) -> None:
    sha256 = store.write(KEY, b"tensors")
    assert sha256 == hashlib.sha256(b"tensors").hexdigest()
    assert store.read(KEY, sha256=sha256) == b"tensors"
    assert store.exists(KEY)


def test_a_second_write_replaces_the_first(store: ArtifactStore) -> None:
    first = store.write(KEY, b"old")
    store.write(KEY, b"new")
    assert store.read(KEY) == b"new"
    with pytest.raises(ArtifactError, match="has changed"):
        store.read(KEY, sha256=first)


def test_list_is_sorted_and_filtered_by_prefix(store: ArtifactStore) -> None:
    for key in ("b/2", "b/10", "a", "bc"):
        store.write(key, b"")
    assert store.list() == ("a", "b/10", "b/2", "bc")
    assert store.list("b/") == ("b/10", "b/2")
    assert store.list("nothing") == ()


def test_delete_may_be_repeated(store: ArtifactStore) -> None:
    store.write(KEY, b"x")
    store.delete(KEY)
    store.delete(KEY)
    assert not store.exists(KEY)
    assert store.list() == ()


def test_stat_has_the_size_and_an_aware_time(store: ArtifactStore) -> None:
    store.write(KEY, b"12345")
    stat = store.stat(KEY)
    assert stat.size_bytes == 5
    assert abs(datetime.now(tz=UTC) - stat.modified_at) < timedelta(minutes=1)


def test_the_url_leads_to_the_bytes(store: ArtifactStore) -> None:
    store.write(KEY, b"tensors")
    parts = urlsplit(store.url(KEY))
    assert parts.scheme == "file"
    assert Path(unquote(parts.path)).read_bytes() == b"tensors"


@pytest.mark.parametrize("method", ["read", "stat", "url"])
def test_a_missing_artifact_is_named(store: ArtifactStore, method: str) -> None:
    with pytest.raises(ArtifactError, match=KEY):
        getattr(store, method)(KEY)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../outside",
        "a/../../outside",
        "a//b",
        "a/",
        ".",
        ".hidden",
        "a/.b.tmp",
        "a\\b",
        "a\0b",
        "a\n",
        "ü",
    ],
)
def test_a_key_that_could_lead_elsewhere_is_refused(store: LocalStore, key: str) -> None:
    with pytest.raises(ArtifactError, match="is not an artifact key"):
        store.write(key, b"x")
    for method in (store.read, store.exists, store.delete, store.stat, store.url):
        with pytest.raises(ArtifactError):
            method(key)
    assert list(store.root.rglob("*")) == []


def test_a_link_out_of_the_store_is_refused(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (store.root / "link").symlink_to(outside)
    for call in (lambda: store.read("link/secret"), lambda: store.write("link/new", b"x")):
        with pytest.raises(ArtifactError, match="leads out of the store"):
            call()
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_write_that_fails_leaves_the_old_bytes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_list_walks_only_below_its_prefix(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("jobs/a/1", "jobs/ab/2", "jobs/b/3", "generations/4"):
        store.write(key, b"")
    walked: list[Path] = []
    rglob = Path.rglob

    def spy(folder: Path, pattern: str) -> Iterator[Path]:
        walked.append(folder)
        return rglob(folder, pattern)

    monkeypatch.setattr(Path, "rglob", spy)
    assert store.list("jobs/a/") == ("jobs/a/1",)
    assert store.list("jobs/a") == ("jobs/a/1", "jobs/ab/2")
    assert store.list("../jobs/") == store.list("/etc/") == ()
    assert walked == [store.root / "jobs" / "a", store.root / "jobs"]


def test_half_written_bytes_are_not_listed(store: LocalStore) -> None:
    with atomic_file(store.root / "a") as file:
        file.write(b"half")
        file.flush()
        assert store.list() == ()
        assert len(list(store.root.iterdir())) == 1
    assert store.list() == ("a",)


def test_bytes_are_synchronised_before_they_get_their_name(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spy, since no test can cut the power: data, then name, then every new folder's parent."""
    order: list[str] = []
    sync, rename = os.fsync, Path.replace

    def spy_sync(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").resolve()
        order.append("data" if target.is_file() else target.relative_to(store.root).as_posix())
        sync(descriptor)

    def spy_rename(path: Path, target: Path) -> Path:
        order.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", spy_sync)
    monkeypatch.setattr(Path, "replace", spy_rename)
    store.write("a/b/c", b"x")
    assert order == ["data", "rename", "a/b", "a", "."]
    order.clear()
    store.write("a/b/c", b"y")
    assert order == ["data", "rename", "a/b"]


def test_others_may_read_what_the_umask_lets_them(store: LocalStore) -> None:
    plain = store.root / "plain"
    plain.touch()
    store.write("ours", b"x")
    assert (store.root / "ours").stat().st_mode == plain.stat().st_mode
