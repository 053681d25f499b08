from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from shortft_core.events import CheckpointSaved, Picture, SamplePair, SamplesReady
from store import (
    generation_leases,
    generations,
    idempotency,
    jobs,
    leases,
    object_keys,
    results,
    rubbish,
)
from store.errors import NotFoundError
from store.generation_leases import NewImage
from store.generations import NewGeneration
from store.idempotency import KeyedRequest
from store.models import Generation, IdempotencyKey, Job
from store.objects import FolderStore, StoredObject
from store.pages import PageRequest
from store.results import NewAdapter, NewArtifact
from store.rubbish import Collected
from tests.store.serving import create

if TYPE_CHECKING:
    from store.transitions import Lease
    from tests.store.conftest import Bench

NOTHING = Collected(generations=0, objects=0, idempotency_keys=0, workers=0)


@pytest.fixture
def objects(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "objects")


def _put(objects: FolderStore, *keys: str, hours: float = 48) -> list[StoredObject]:
    """Objects that were written some time ago."""
    stored = []
    for key in keys:
        sha256 = objects.write(key, b"x")
        then = (datetime.now(tz=UTC) - timedelta(hours=hours)).timestamp()
        os.utime(objects.root / key, (then, then))
        stored.append(StoredObject(key, sha256, 1))
    return stored


def _save(bench: Bench, objects: FolderStore, lease: Lease, update: int) -> str:
    """A checkpoint with its folder."""
    prefix = object_keys.checkpoint_prefix(lease.row_id, update, lease.token)
    key = object_keys.checkpoint_state(prefix)
    _put(objects, key, prefix + "manifest.json", prefix + "adapter/shortft.json")
    event = CheckpointSaved(update=update, key=key, sha256="0" * 64, size_bytes=1)
    bench.database.transact(lambda session: results.add_checkpoint(session, lease, event))
    return prefix


def _publish(bench: Bench, objects: FolderStore, lease: Lease) -> None:
    """A best folder, samples, artifacts and an adapter, all named by rows."""
    best = object_keys.best_prefix(lease.row_id, 10, lease.token)
    samples = object_keys.samples_prefix(lease.row_id, lease.token)
    artifacts = object_keys.artifacts_prefix(lease.row_id, lease.token)
    _put(objects, best + "shortft.json", artifacts + "adapter/shortft.json")
    base, tuned = _put(objects, samples + "base.png", samples + "tuned.png")
    (report,) = _put(objects, artifacts + "report.html")
    pair = SamplePair(
        prompt="a star",
        seed=1,
        base=Picture(key=base.key, scores={}),
        tuned=Picture(key=tuned.key, scores={}),
    )
    event = SamplesReady(update=10, pairs=(pair,))
    with bench.database.write() as session:
        results.set_best(session, lease, 10, best)
        results.add_samples(session, lease, event, {base.key: base, tuned.key: tuned})
        results.succeed(
            session,
            lease,
            [NewArtifact(kind="report", filename="report.html", stored=report)],
            NewAdapter(card={}, artifact_kinds=(), prefix=artifacts + "adapter/"),
        )


def test_what_rows_name_is_kept(bench: Bench, objects: FolderStore) -> None:
    bench.create()
    lease = bench.claim().lease
    _save(bench, objects, lease, 10)
    _publish(bench, objects, lease)
    _put(objects, object_keys.prompts_prefix(lease.row_id) + "ps_a.json")
    before = objects.list()
    assert len(before) == 9
    assert rubbish.collect(bench.database, objects) == NOTHING
    assert objects.list() == before
    prefix = object_keys.job_prefix(lease.row_id)
    _put(objects, prefix + "checkpoints/000005.t1/state.safetensors", prefix + "samples/old.png")
    _put(objects, prefix + "artifacts/t1/new.html", hours=23)
    assert rubbish.collect(bench.database, objects).objects == 2
    assert objects.list() == tuple(sorted([*before, prefix + "artifacts/t1/new.html"]))


def test_a_running_attempt_keeps_what_it_has_not_published_yet(
    bench: Bench, objects: FolderStore
) -> None:
    job = bench.create()
    bench.claim()
    bench.expire(Job, job.id)
    bench.database.transact(leases.sweep)
    bench.set(Job, job.id, run_after=job.created_at)
    lease = bench.claim().lease
    assert lease.token == 3
    samples = object_keys.samples_prefix(job.id, lease.token) + "base/000.png"
    mine = object_keys.artifacts_prefix(job.id, lease.token) + "report.html"
    dead = object_keys.artifacts_prefix(job.id, 1) + "report.html"
    replaced = object_keys.samples_prefix(job.id, 1) + "base/000.png"
    _put(objects, samples, mine, dead, replaced)
    assert rubbish.collect(bench.database, objects).objects == 2
    assert objects.list() == (mine, samples)
    bench.database.transact(lambda session: leases.fail(session, lease, leases.NOTHING_SAID))
    assert rubbish.collect(bench.database, objects).objects == 2
    assert objects.list() == ()


def test_objects_of_a_job_without_a_row_go_after_a_day(bench: Bench, objects: FolderStore) -> None:
    """Its row may be younger than the backup that the database was restored from."""
    job, kept = bench.create(), bench.create()
    lease = bench.claim().lease
    _save(bench, objects, lease, 10)
    other = _save(bench, objects, bench.claim().lease, 10)
    _put(objects, object_keys.samples_prefix(job.id, 1) + "new.png", hours=0)
    bench.database.transact(lambda session: leases.fail(session, lease, leases.NOTHING_SAID))
    bench.database.transact(lambda session: jobs.remove(session, job.id))
    with pytest.raises(NotFoundError):
        bench.get(job.id)
    assert rubbish.collect(bench.database, objects).objects == 3
    young = object_keys.samples_prefix(job.id, 1) + "new.png"
    assert objects.list() == tuple(sorted([*objects.list(other), young]))
    assert len(objects.list(other)) == 3
    assert kept.id in other
    _put(objects, young, hours=25)
    assert rubbish.collect(bench.database, objects).objects == 1


def test_probes_that_a_crash_has_left(bench: Bench, objects: FolderStore) -> None:
    _put(objects, object_keys.probe_key())
    fresh = object_keys.probe_key()
    _put(objects, fresh, hours=0)
    assert rubbish.collect(bench.database, objects).objects == 1
    assert objects.list() == (fresh,)


def test_pictures_of_generations(bench: Bench, objects: FolderStore) -> None:
    new = NewGeneration(request={}, batch_key="a", kind="score")
    made = bench.database.transact(lambda session: generations.create(session, new))
    uploads = object_keys.upload_prefix(made.id)
    early = object_keys.upload_prefix("gen_not_yet")
    (scored, _) = _put(objects, uploads + "0.png", uploads + "1.png")
    _put(objects, early + "0.png", hours=1)
    _put(objects, object_keys.generation_prefix("gen_gone", 1) + "0.png")
    assert rubbish.collect(bench.database, objects).objects == 1
    (claimed,) = bench.database.transact(
        lambda session: generation_leases.claim_batch(session, "wrk_a", most=1)
    )
    image = NewImage(stored=scored, prompt="", seed=None, width=1, height=1)
    bench.database.transact(lambda s: generation_leases.succeed(s, claimed.lease, [image]))
    assert rubbish.collect(bench.database, objects).objects == 1
    assert objects.list() == (uploads + "0.png", early + "0.png")
    with bench.database.read() as session:
        assert session.get_one(Generation, made.id).status == "succeeded"


def test_generations_are_kept_for_so_long_and_no_longer(bench: Bench, objects: FolderStore) -> None:
    ended = []
    for _ in range(3):
        ended.append(create(bench).id)
        bench.database.transact(lambda s: generations.cancel(s, ended[-1], "default"))
    waiting = create(bench).id
    for generation_id, days in zip(ended, (40, 31, 29), strict=True):
        then = datetime.now(tz=UTC) - timedelta(days=days)
        bench.set(Generation, generation_id, finished_at=then)
        _put(objects, object_keys.generation_prefix(generation_id, 1) + "0.png")
    assert rubbish.collect(bench.database, objects).generations == 0
    month = timedelta(days=30)
    found = rubbish.collect(bench.database, objects, keep_generations=month)
    assert found.generations == 2
    assert rubbish.collect(bench.database, objects, keep_generations=month).generations == 0
    with bench.database.read() as session:
        left = generations.page(session, "default", PageRequest()).rows
    assert {row.id for row in left} == {ended[2], waiting}


def test_keys_and_workers_that_are_past_their_time(bench: Bench, objects: FolderStore) -> None:
    keyed = KeyedRequest(project="default", operation="POST /jobs", key="a", request_sha256="0")
    with bench.database.write() as session:
        idempotency.claim(session, keyed, "job_a")
    assert rubbish.collect(bench.database, objects) == NOTHING
    with bench.database.write() as session:
        past = datetime.now(tz=UTC) - timedelta(seconds=1)
        session.execute(update(IdempotencyKey).values(expires_at=past))
    assert rubbish.collect(bench.database, objects) == Collected(
        generations=0, objects=0, idempotency_keys=1, workers=0
    )


def test_what_lies_elsewhere_is_not_touched(bench: Bench, objects: FolderStore) -> None:
    _put(objects, "models/a.safetensors", "jobs.json", "other/jobs/x")
    assert rubbish.collect(bench.database, objects) == NOTHING
    assert len(objects.list()) == 3
