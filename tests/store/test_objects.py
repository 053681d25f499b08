from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortft_core.artifacts import ArtifactStore
from shortft_core.errors import ArtifactError, UserError
from store.objects import BucketStore, FolderStore, ObjectStore, StoredObject, open_objects

KEY = "jobs/job_a/t1/adapter.safetensors"
FINAL = "jobs/job_a/adapter.safetensors"


@pytest.fixture(params=["file", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """A folder, and fsspec's bucket in memory: the code that a bucket on a network runs through."""
    if request.param == "file":
        return open_objects((tmp_path / "with a space").as_uri())
    return open_objects(f"memory://{tmp_path.name}{os.getpid()}/prefix")


def test_what_is_written_is_read(objects: ArtifactStore) -> None:
    sha256 = objects.write(KEY, b"tensors")
    assert sha256 == hashlib.sha256(b"tensors").hexdigest()
    assert objects.read(KEY, sha256=sha256) == b"tensors"
    assert objects.exists(KEY)
    stat = objects.stat(KEY)
    assert stat.size_bytes == 7
    assert abs(datetime.now(tz=UTC) - stat.modified_at) < timedelta(minutes=1)


def test_bytes_that_changed_are_noticed(objects: ObjectStore) -> None:
    first = objects.write(KEY, b"old")
    objects.write(KEY, b"new")
    assert objects.read(KEY) == b"new"
    with pytest.raises(ArtifactError, match="has changed"):
        objects.read(KEY, sha256=first)


def test_list_is_sorted_and_filtered_by_prefix(objects: ObjectStore) -> None:
    for key in ("b/2", "b/10", "a", "bc", "b/c/d"):
        objects.write(key, b"")
    assert objects.list() == ("a", "b/10", "b/2", "b/c/d", "bc")
    assert objects.list("b") == ("b/10", "b/2", "b/c/d", "bc")
    assert objects.list("b/") == ("b/10", "b/2", "b/c/d")
    assert objects.list("b/c/") == ("b/c/d",)
    assert objects.list("nothing/here") == ()


def test_delete_may_be_repeated(objects: ObjectStore) -> None:
    objects.write(KEY, b"x")
    objects.delete(KEY)
    objects.delete(KEY)
    assert not objects.exists(KEY)
    assert objects.list() == ()


@pytest.mark.parametrize("method", ["read", "stat", "url"])
def test_a_missing_object_is_named(objects: ObjectStore, method: str) -> None:
    with pytest.raises(ArtifactError, match=KEY):
        getattr(objects, method)(KEY)
    with pytest.raises(ArtifactError, match=KEY), objects.open(KEY):
        pass


@pytest.mark.parametrize("key", ["", "/etc/x", "../x", "a/../../x", "a//b", ".h", "a/.t", "a\n"])
def test_a_key_that_could_lead_elsewhere_is_refused(objects: ObjectStore, key: str) -> None:
    methods: list[Any] = [objects.read, objects.exists, objects.delete, objects.stat, objects.url]
    for method in methods:
        with pytest.raises(ArtifactError):
            method(key)
    with pytest.raises(ArtifactError, match="is not an artifact key"):
        objects.write(key, b"x")
    with pytest.raises(ArtifactError):
        objects.publish(key, FINAL)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=5000))
def test_a_file_is_stored_with_its_hash(
    objects: ObjectStore, tmp_path: Path, content: bytes
) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    stored = objects.write_file(KEY, source)
    assert stored == StoredObject(KEY, hashlib.sha256(content).hexdigest(), len(content))
    assert objects.read(KEY, sha256=stored.sha256) == content
    with objects.open(KEY) as file:
        assert file.read() == content


def test_a_file_larger_than_a_block_is_stored_whole(objects: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 << 20) + b"end")
    stored = objects.write_file(KEY, source)
    assert stored.size_bytes == (3 << 20) + 3
    assert objects.read(KEY, sha256=stored.sha256) == source.read_bytes()


def test_publishing_moves_and_may_be_repeated(objects: ObjectStore) -> None:
    objects.write(FINAL, b"old")
    objects.write(KEY, b"new")
    for _ in range(2):
        objects.publish(KEY, FINAL)
        assert objects.read(FINAL) == b"new"
        assert not objects.exists(KEY)
    with pytest.raises(ArtifactError, match="there is no artifact jobs/job_b/x"):
        objects.publish("jobs/job_b/x", "jobs/job_b/y")


def test_a_bucket_that_is_away_does_not_look_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = BucketStore(f"memory://{tmp_path.name}{os.getpid()}")
    objects.write(KEY, b"x")
    assert not objects.exists(KEY.rpartition("/")[0])

    def is_away(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(objects._filesystem, "info", is_away)
        for ask in (objects.exists, objects.delete):
            with pytest.raises(ConnectionError):
                ask(KEY)
    assert objects.read(KEY) == b"x"


def test_the_url_of_a_folder_leads_to_the_bytes(tmp_path: Path) -> None:
    objects = open_objects(tmp_path.as_uri())
    objects.write(KEY, b"tensors")
    assert Path(unquote(urlsplit(objects.url(KEY)).path)).read_bytes() == b"tensors"


def test_the_url_of_a_bucket_names_it(tmp_path: Path) -> None:
    objects = open_objects(f"memory://{tmp_path.name}")
    objects.write(KEY, b"tensors")
    assert objects.url(KEY) == f"memory:///{tmp_path.name}/{KEY}"


def test_a_write_that_fails_leaves_the_old_bytes(tmp_path: Path) -> None:
    objects = FolderStore(tmp_path)
    objects.write(KEY, b"old")
    with pytest.raises(FileNotFoundError):
        objects.write_file(KEY, tmp_path / "missing")
    assert objects.read(KEY) == b"old"
    assert objects.list() == (KEY,)


def test_publishing_syncs_both_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rename survives a power cut: each folder is synchronised after it, new ones too."""
    objects = FolderStore(tmp_path)
    objects.write("temporary/a", b"x")
    synced: list[int] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        assert objects.exists("final/deep/a")
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    objects.publish("temporary/a", "final/deep/a")
    folders = ("final/deep", "temporary", "final", ".")
    assert synced == [(tmp_path / folder).stat().st_ino for folder in folders]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("data", "no scheme"),
        ("file://data", "no absolute folder"),
        ("file://host/data", "no absolute folder"),
        ("nosuch://bucket", "nosuch is not available"),
    ],
)
def test_other_addresses_are_refused(url: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        open_objects(url)


def test_both_are_stores_of_the_core(tmp_path: Path) -> None:
    stores: list[ArtifactStore] = [FolderStore(tmp_path), BucketStore(f"memory://{tmp_path.name}")]
    assert [store.list() for store in stores] == [(), ()]
