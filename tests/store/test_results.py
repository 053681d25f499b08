from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import IntegrityError

from shortft_core.events import CheckpointSaved, Picture, SamplePair, SamplesReady
from store import jobs, leases, results
from store.errors import InvalidStateError, LeaseLostError, NotFoundError
from store.models import Job, Sample
from store.objects import StoredObject
from store.pages import PageRequest
from store.results import NewAdapter, NewArtifact
from store.states import JobStatus
from store.transitions import Lease

if TYPE_CHECKING:
    from tests.store.conftest import Bench


def _object(key: str) -> StoredObject:
    return StoredObject(key, sha256=f"{len(key):064x}", size_bytes=len(key))


ARTIFACTS = [
    NewArtifact(kind=kind, filename=f"{kind}.zip", stored=_object(f"jobs/a/{kind}"))
    for kind in ("peft", "kohya", "report")
]
ADAPTER = NewAdapter(card={"steps": 50}, artifact_kinds=("peft",), prefix="jobs/a/adapter/")


def _save(bench: Bench, lease: Lease, update: int) -> None:
    event = CheckpointSaved(
        update=update, key=f"c/{update}.{lease.token}", sha256="0" * 64, size_bytes=9
    )
    bench.database.transact(lambda session: results.add_checkpoint(session, lease, event))


def _samples(update: int, *prompts: str) -> tuple[SamplesReady, dict[str, StoredObject]]:
    pairs = tuple(
        SamplePair(
            prompt=prompt,
            seed=2**63 - 1,
            base=Picture(key=f"{prompt}/base", scores={"oracle": 0.25}),
            tuned=Picture(key=f"{prompt}/tuned", scores={"oracle": 0.5}),
        )
        for prompt in prompts
    )
    keys = [picture.key for pair in pairs for picture in (pair.base, pair.tuned)]
    return SamplesReady(update=update, pairs=pairs), {key: _object(key) for key in keys}


def test_checkpoints_are_listed_from_the_newest(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    for update in (10, 20, 30):
        _save(bench, lease, update)
    with bench.database.read() as session:
        found = results.checkpoints(session, job.id)
    assert [(row.update, row.object_key) for row in found] == [
        (30, "c/30.1"),
        (20, "c/20.1"),
        (10, "c/10.1"),
    ]
    assert bench.get(job.id).resumable_update == 30
    assert bench.types(job.id)[2:] == ["job.checkpoint"] * 3
    with bench.database.write() as session:
        results.forget_checkpoint(session, lease, found[-1].id)
    with bench.database.read() as session:
        assert [row.update for row in results.checkpoints(session, job.id)] == [30, 20]


def test_a_checkpoint_is_recorded_once_per_attempt(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    _save(bench, lease, 10)
    with pytest.raises(IntegrityError):
        _save(bench, lease, 10)
    assert bench.types(job.id)[2:] == ["job.checkpoint"]


def test_samples_are_filtered(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    for update in (0, 5):
        event, stored = _samples(update, "a star", "a ring")
        with bench.database.write() as session:
            results.add_samples(session, lease, event, stored)
    with bench.database.read() as session:
        assert len(results.samples(session, job.id)) == 8
        found = results.samples(session, job.id, update=5, pair_index=1)
        tuned = results.samples(session, job.id, kind="tuned")
    assert [(row.kind, row.prompt, row.scores) for row in found] == [
        ("base", "a ring", {"oracle": 0.25}),
        ("tuned", "a ring", {"oracle": 0.5}),
    ]
    assert found[0].seed == 2**63 - 1
    assert (found[0].object_key, found[0].size_bytes) == ("a ring/base", 11)
    assert [row.update for row in tuned] == [0, 0, 5, 5]


def test_samples_come_in_pages_and_alone(bench: Bench) -> None:
    job, other = bench.create(), bench.create()
    lease = bench.claim().lease
    for update in (5, 0):
        event, stored = _samples(update, "a star", "a ring")
        with bench.database.write() as session:
            results.add_samples(session, lease, event, stored)
    with bench.database.read() as session:
        rows = results.samples(session, lease.row_id)
        paged: list[Sample] = []
        while page := results.samples(
            session, lease.row_id, after=paged[-1].id if paged else None, limit=3
        ):
            assert len(page) <= 3
            paged += page
        assert [row.id for row in paged] == [row.id for row in rows]
        assert len({row.id for row in rows}) == 8
        behind = results.samples(session, lease.row_id, after=rows[1].id, kind="tuned")
        assert [row.id for row in behind] == [rows[3].id, rows[5].id, rows[7].id]
        assert results.sample(session, lease.row_id, rows[4].id).id == rows[4].id
        (elsewhere,) = {job.id, other.id} - {lease.row_id}
        for sought in (results.sample, lambda s, j, i: results.samples(s, j, after=i)):
            with pytest.raises(NotFoundError):
                sought(session, elsewhere, rows[4].id)


def test_an_evaluation_that_is_repeated_replaces_its_pictures(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    for prompts in (("a star", "a ring"), ("a moon",)):
        event, stored = _samples(5, *prompts)
        with bench.database.write() as session:
            results.add_samples(session, lease, event, stored)
    with bench.database.read() as session:
        found = results.samples(session, job.id)
    assert [row.prompt for row in found] == ["a moon", "a moon"]


def test_a_picture_that_was_not_stored_is_not_recorded(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    event, stored = _samples(5, "a star")
    del stored["a star/tuned"]
    with pytest.raises(KeyError, match="a star/tuned"), bench.database.write() as session:
        results.add_samples(session, lease, event, stored)
    assert bench.types(job.id) == ["job.created", "job.preparing"]


def test_success_publishes_everything_at_once(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    with bench.database.write() as session:
        results.succeed(session, lease, ARTIFACTS, ADAPTER, {"best_update": 3})
    found = bench.get(job.id)
    assert found.status is JobStatus.SUCCEEDED
    assert (found.lease_owner, found.lease_expires_at) == (None, None)
    assert [row.kind for row in found.artifacts] == ["kohya", "peft", "report"]
    assert {row.lease_token for row in found.artifacts} == {1}
    assert found.adapter is not None
    assert (found.adapter.card, found.adapter.prefix) == ({"steps": 50}, "jobs/a/adapter/")
    assert found.adapter.artifact_ids == [found.artifacts[1].id]
    with bench.database.read() as session:
        assert results.artifact(session, job.id, found.artifacts[0].id).filename == "kohya.zip"
        assert results.artifacts(session, job.id)[2].object_key == "jobs/a/report"
        assert results.adapter(session, found.adapter.id, "default").job_id == job.id
        page = results.adapters(session, "default", PageRequest())
        assert [row.id for row in page.rows] == [found.adapter.id]


def test_what_is_not_there_is_named(bench: Bench) -> None:
    with bench.database.read() as session:
        with pytest.raises(NotFoundError, match="artifact art_x"):
            results.artifact(session, "job_x", "art_x")
        with pytest.raises(NotFoundError, match="adapter adp_x"):
            results.adapter(session, "adp_x", "default")


@pytest.mark.parametrize("verb", [jobs.cancel, jobs.pause])
def test_a_verb_that_came_first_wins_over_the_result(bench: Bench, verb: object) -> None:
    job = bench.create()
    lease = bench.claim().lease
    bench.database.transact(lambda session: verb(session, job.id))  # type: ignore[operator]
    with pytest.raises(InvalidStateError), bench.database.write() as session:
        results.succeed(session, lease, ARTIFACTS, ADAPTER)
    with bench.database.read() as session:
        assert results.artifacts(session, job.id) == ()


def test_a_result_that_came_first_wins_over_the_verb(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    bench.database.transact(lambda session: results.succeed(session, lease, ARTIFACTS))
    with pytest.raises(InvalidStateError, match="succeeded"):
        bench.database.transact(lambda session: jobs.cancel(session, job.id))
    assert len(bench.get(job.id).artifacts) == 3


def test_a_result_that_cannot_be_recorded_leaves_the_job_held(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    with pytest.raises(IntegrityError):
        bench.database.transact(
            lambda session: results.succeed(session, lease, [ARTIFACTS[0], ARTIFACTS[0]])
        )
    found = bench.get(job.id)
    assert found.status is JobStatus.PREPARING
    assert isinstance(found, Job)
    assert bench.types(job.id) == ["job.created", "job.preparing"]


def test_the_best_adapter_is_named_while_the_job_runs(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    for update in (10, 20):
        prefix = f"jobs/a/best/{update}/"
        with bench.database.write() as session:
            results.set_best(session, lease, update, prefix)
        found = bench.get(job.id)
        assert (found.best_update, found.best_prefix) == (update, prefix)
    bench.expire(Job, job.id)
    bench.database.transact(leases.sweep)
    with pytest.raises(LeaseLostError), bench.database.write() as session:
        results.set_best(session, lease, 30, "jobs/a/best/30/")
    assert bench.get(job.id).best_update == 20
    assert bench.types(job.id)[2:] == ["job.retrying"]
