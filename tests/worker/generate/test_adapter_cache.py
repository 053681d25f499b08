"""Adapter folders on disk: verified, shared, bounded."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shortft_core.adapter_card import CARD_FILE
from shortft_core.errors import ArtifactError
from shortft_core.spec.generation import ServedAdapter
from store.objects import FolderStore
from tests.worker.generate.samples import served, write_adapter
from worker.generate.adapter_cache import IN_USE_SECONDS, AdapterCache


@pytest.fixture
def objects(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "objects")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        name: write_adapter(root / name, seed=seed, rank=1) for seed, name in enumerate(("a", "b"))
    }


def aged(folder: Path) -> Path:
    """The folder, as if nobody had used it for an hour."""
    long_ago = time.time() - IN_USE_SECONDS - 1
    os.utime(folder, (long_ago, long_ago))
    return folder


def store(objects: FolderStore, folder: Path) -> ServedAdapter:
    adapter = served(folder)
    for path in folder.glob("*.*"):
        objects.write_file(f"{adapter.prefix}{path.name}", path)
    return adapter


def test_holds_what_the_card_names_and_asks_the_store_once(
    objects: FolderStore, folders: dict[str, Path], tmp_path: Path
) -> None:
    adapter = store(objects, folders["a"])
    cache = AdapterCache(tmp_path / "cache", objects)
    found = cache.fetch(adapter)
    names = {path.name for path in found.iterdir()}
    assert names == {CARD_FILE, "branch_1.safetensors", "branch_2.safetensors"}
    for name in names:
        assert (found / name).read_bytes() == (folders["a"] / name).read_bytes()
        objects.delete(f"{adapter.prefix}{name}")
    again = AdapterCache(tmp_path / "cache", objects).fetch(adapter)
    assert again == found
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [adapter.card_sha256]


@pytest.mark.parametrize("name", [CARD_FILE, "branch_2.safetensors"])
def test_a_changed_file_is_refused_and_nothing_of_it_stays(
    objects: FolderStore, folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    adapter = store(objects, folders["a"])
    changed = objects.read(f"{adapter.prefix}{name}") + b" "
    objects.write(f"{adapter.prefix}{name}", changed)
    with pytest.raises(ArtifactError, match=f"{name} has changed"):
        AdapterCache(tmp_path / "cache", objects).fetch(adapter)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_absent_file_is_refused(
    objects: FolderStore, folders: dict[str, Path], tmp_path: Path
) -> None:
    adapter = store(objects, folders["a"])
    objects.delete(f"{adapter.prefix}branch_1.safetensors")
    with pytest.raises(ArtifactError, match="there is no artifact adapters/a/branch_1"):
        AdapterCache(tmp_path / "cache", objects).fetch(adapter)


def test_the_longest_unused_is_deleted_but_nothing_that_may_be_read(
    objects: FolderStore, folders: dict[str, Path], tmp_path: Path
) -> None:
    first, second = store(objects, folders["a"]), store(objects, folders["b"])
    cache = AdapterCache(tmp_path / "cache", objects, limit_bytes=1)
    old = cache.fetch(first)
    new = cache.fetch(second)
    assert old.is_dir()
    aged(old)
    assert cache.fetch(second) == new
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [second.card_sha256]


def test_workers_that_delete_the_same_folders_do_not_meet(
    objects: FolderStore, folders: dict[str, Path], tmp_path: Path
) -> None:
    adapter = store(objects, folders["a"])
    cache = AdapterCache(tmp_path / "cache", objects, limit_bytes=1)
    cache.fetch(adapter)
    for number in range(400):
        folder = tmp_path / "cache" / f"{number:03d}"
        folder.mkdir()
        (folder / CARD_FILE).write_bytes(b"{}")
        aged(folder)
    begin = threading.Barrier(4)

    def fetch(_: int) -> Path:
        begin.wait()
        return AdapterCache(tmp_path / "cache", objects, limit_bytes=1).fetch(adapter)

    with ThreadPoolExecutor(4) as pool:
        assert {path.name for path in pool.map(fetch, range(4))} == {adapter.card_sha256}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [adapter.card_sha256]


def test_what_killed_workers_left_goes_after_a_while(
    objects: FolderStore, folders: dict[str, Path], tmp_path: Path
) -> None:
    adapter = store(objects, folders["a"])
    cache = AdapterCache(tmp_path / "cache", objects)
    for name in (".dead.part", ".dead.old", ".young.part"):
        folder = tmp_path / "cache" / name
        folder.mkdir(parents=True)
        (folder / CARD_FILE).write_bytes(b"{}")
        if "dead" in name:
            aged(folder)
    cache.fetch(adapter)
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {adapter.card_sha256, ".young.part"}


def test_files_are_on_the_disk_before_their_folder_can_be_found(
    objects: FolderStore,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = store(objects, folders["a"])
    synced: dict[int, bool] = {}
    sync = os.fsync

    def watched(file: int) -> None:
        sync(file)
        synced[os.fstat(file).st_ino] = (tmp_path / "cache" / adapter.card_sha256).exists()

    monkeypatch.setattr(os, "fsync", watched)
    found = AdapterCache(tmp_path / "cache", objects).fetch(adapter)
    assert synced == {path.stat().st_ino: False for path in found.iterdir()}
