from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError

from shortft_core.errors import UserError
from shortft_core.events import CheckpointSaved
from shortft_core.spec import AlignSpec, DistilSpec, JobSpec, PromptSource, Source
from store import api_keys, jobs, leases, results
from store.api_keys import NewApiKey, Scope
from store.attempts import Ending
from store.engine import Database
from store.errors import InvalidStateError, NotFoundError, QuotaExceededError
from store.jobs import JobFilter, NewJob
from store.leases import Report
from store.models import Job
from store.pages import PageRequest
from store.states import JobStatus
from tests.store.conftest import at_once

if TYPE_CHECKING:
    from tests.store.conftest import Bench


SAVED = CheckpointSaved(update=2, key="a/b", sha256="0" * 64, size_bytes=1)


def test_a_new_job_is_queued_with_its_first_event(bench: Bench) -> None:
    job = bench.create()
    assert job.status is JobStatus.QUEUED
    assert (job.attempt, job.lease_token, job.event_seq) == (0, 0, 1)
    assert (job.name, job.labels, job.method) == ("mirror", {"team": "a"}, "draft_k")
    assert bench.types(job.id) == ["job.created"]


def test_the_row_gives_the_specification_back(bench: Bench) -> None:
    job = bench.get(bench.create().id)
    spec = TypeAdapter[Any](JobSpec).validate_python(job.spec)
    assert spec == bench.spec
    assert job.spec_sha256 == spec.sha256()


def test_a_distillation_is_a_job_too(bench: Bench) -> None:
    spec = DistilSpec(base_model=Source(name="shapes"), prompts=PromptSource(name="shapes-train"))
    job = bench.create(spec=spec)
    assert (job.kind, job.method) == ("distil", None)
    assert TypeAdapter[Any](JobSpec).validate_python(job.spec) == spec


def test_an_id_is_used_once(bench: Bench) -> None:
    job = bench.create()
    with pytest.raises(IntegrityError):
        bench.create(id=job.id)
    assert bench.types(job.id) == ["job.created"]


def test_another_projects_job_is_not_there(bench: Bench) -> None:
    job = bench.create(project="ours")
    with bench.database.read() as session:
        assert jobs.get(session, job.id, "ours").id == job.id
        for row_id, project in ((job.id, "theirs"), ("job_none", "ours")):
            with pytest.raises(NotFoundError, match=row_id):
                jobs.get(session, row_id, project)


def test_a_queued_job_is_cancelled_at_once(bench: Bench) -> None:
    job = bench.create()
    cancelled = bench.database.transact(lambda session: jobs.cancel(session, job.id))
    assert cancelled.status is JobStatus.CANCELLED
    assert cancelled.finished_at is not None
    assert cancelled.cancel_requested_at is not None
    assert bench.types(job.id) == ["job.created", "job.cancelled"]


def test_a_held_job_is_cancelled_by_its_worker(bench: Bench) -> None:
    bench.create()
    claim = bench.claim()
    cancelling = bench.database.transact(lambda session: jobs.cancel(session, claim.job.id))
    assert cancelling.status is JobStatus.CANCELLING
    assert cancelling.lease_owner == "wrk_a"
    status = bench.database.transact(lambda session: leases.renew(session, claim.lease))
    assert status is JobStatus.CANCELLING
    done = bench.database.transact(
        lambda session: leases.release(session, claim.lease, Ending.STOPPED)
    )
    assert done.status is JobStatus.CANCELLED
    assert bench.types(claim.job.id) == [
        "job.created",
        "job.preparing",
        "job.cancelling",
        "job.cancelled",
    ]


def test_pause_and_resume_keep_the_attempts(bench: Bench) -> None:
    job = bench.create()
    for _ in range(3):
        claim = bench.claim()
        bench.database.transact(lambda session: jobs.pause(session, job.id))
        with bench.database.write() as session:
            paused = leases.release(session, claim.lease, Ending.STOPPED)
        assert paused.status is JobStatus.PAUSED
        resumed = bench.database.transact(lambda session: jobs.resume(session, job.id))
        assert (resumed.status, resumed.pause_requested_at) == (JobStatus.QUEUED, None)
        assert resumed.attempt == 0
    assert bench.claim().lease.token == 4


def test_a_queued_job_is_paused_at_once(bench: Bench) -> None:
    job = bench.create()
    paused = bench.database.transact(lambda session: jobs.pause(session, job.id))
    assert paused.status is JobStatus.PAUSED
    with bench.database.write() as session:
        assert leases.claim(session, "wrk_a", ["default"]) is None


def test_a_refused_verb_names_the_allowed_ones_and_changes_nothing(bench: Bench) -> None:
    job = bench.create()
    with pytest.raises(InvalidStateError) as raised:
        bench.database.transact(lambda session: jobs.resume(session, job.id))
    assert raised.value.status == "queued"
    assert raised.value.allowed == ("cancel", "pause")
    assert str(raised.value) == (f"job {job.id} is queued: resume is refused, cancel, pause may be")
    assert bench.types(job.id) == ["job.created"]


def test_a_retry_goes_on_from_the_last_checkpoint(bench: Bench) -> None:
    bench.create(priority=5, api_key_id=None)
    claim = bench.claim()
    bench.database.transact(lambda session: results.add_checkpoint(session, claim.lease, SAVED))
    bench.database.transact(lambda session: leases.fail(session, claim.lease, Report()))
    again = bench.database.transact(lambda session: jobs.retry(session, claim.job.id))
    assert again.id != claim.job.id
    assert (again.parent_id, again.parent_update) == (claim.job.id, 2)
    assert (again.spec_sha256, again.priority) == (claim.job.spec_sha256, 5)
    assert (again.status, again.attempt, again.resumable_update) == (JobStatus.QUEUED, 0, 0)
    assert bench.get(claim.job.id).status is JobStatus.FAILED


def _fail(bench: Bench, *updates: int) -> Job:
    """Lets the next job fail behind checkpoints of these updates."""
    lease = bench.claim().lease
    with bench.database.write() as session:
        for number in updates:
            saved = SAVED.model_copy(update={"update": number})
            results.add_checkpoint(session, lease, saved)
        return leases.fail(session, lease, Report())


def _retry(bench: Bench, job: Job) -> Job:
    return bench.database.transact(lambda session: jobs.retry(session, job.id))


def test_a_retry_without_a_checkpoint_passes_on_what_it_was_to_go_on_from(bench: Bench) -> None:
    bench.create()
    first = _fail(bench, 80, 90)
    second = _retry(bench, first)
    bench.database.transact(lambda session: jobs.relabel(session, second.id, {"b": "2"}))
    bench.database.transact(lambda session: jobs.cancel(session, second.id))
    third = _retry(bench, second)
    assert (third.parent_id, third.parent_update, third.labels) == (first.id, 90, {"b": "2"})
    assert _fail(bench).id == third.id
    fourth = _retry(bench, third)
    assert (fourth.parent_id, fourth.parent_update) == (first.id, 90)
    # What it needs is not theirs.
    with bench.database.write() as session:
        jobs.remove(session, second.id)
        jobs.remove(session, third.id)
    with pytest.raises(InvalidStateError, match="delete is refused"):
        bench.database.transact(lambda session: jobs.remove(session, first.id))
    assert _fail(bench, 95).id == fourth.id
    fifth = _retry(bench, fourth)
    assert (fifth.parent_id, fifth.parent_update) == (fourth.id, 95)


def test_a_retry_of_a_retry_whose_parent_is_gone_starts_anew(bench: Bench) -> None:
    bench.create()
    first = _fail(bench, 90)
    second = _retry(bench, first)
    bench.database.transact(lambda session: jobs.cancel(session, second.id))
    bench.database.transact(lambda session: jobs.remove(session, first.id))
    third = _retry(bench, second)
    assert (third.parent_id, third.parent_update) == (second.id, None)


def test_a_retry_of_a_rerun_starts_anew(bench: Bench) -> None:
    bench.create()
    first = _fail(bench, 90)
    second = bench.database.transact(lambda session: jobs.rerun(session, first.id))
    bench.database.transact(lambda session: jobs.cancel(session, second.id))
    third = _retry(bench, second)
    assert (third.parent_id, third.parent_update) == (second.id, None)


def test_a_rerun_starts_anew(bench: Bench) -> None:
    job = bench.create()
    bench.database.transact(lambda session: jobs.cancel(session, job.id))
    again = bench.database.transact(
        lambda session: jobs.rerun(session, job.id, jobs.Repeat(id="job_mine"))
    )
    assert (again.id, again.parent_id, again.parent_update) == ("job_mine", job.id, None)


@pytest.mark.parametrize("verb", [jobs.retry, jobs.rerun, jobs.remove])
def test_only_finished_jobs_are_repeated_or_removed(bench: Bench, verb: Any) -> None:
    job = bench.create()
    with pytest.raises(InvalidStateError, match="cancel, pause may be"):
        bench.database.transact(lambda session: verb(session, job.id))


def test_a_removed_job_takes_its_rows_along_and_leaves_its_children(bench: Bench) -> None:
    job = bench.create()
    bench.database.transact(lambda session: jobs.cancel(session, job.id))
    child = bench.database.transact(lambda session: jobs.rerun(session, job.id))
    bench.database.transact(lambda session: jobs.remove(session, job.id))
    with bench.database.read() as session, pytest.raises(NotFoundError):
        jobs.get(session, job.id)
    assert bench.types(job.id) == []
    assert bench.get(child.id).parent_id is None


def _found(bench: Bench, **fields: Any) -> list[str | None]:
    with bench.database.read() as session:
        page = jobs.page(session, JobFilter(**fields), PageRequest(order="asc"))
    return [job.name for job in page.rows]


def test_filters(bench: Bench) -> None:
    for name, labels in (("Red 50%", {"a": "1"}), ("blue", {"a": "1", "b": "2"}), (None, {})):
        spec = bench.spec.model_copy(update={"name": name, "metadata": labels})
        job = bench.create(spec=spec)
    bench.create(project="theirs")
    bench.database.transact(lambda session: jobs.cancel(session, job.id))
    hour = timedelta(hours=1)
    assert _found(bench) == ["Red 50%", "blue", None]
    assert _found(bench, statuses=frozenset({JobStatus.QUEUED})) == ["Red 50%", "blue"]
    assert _found(bench, labels={"a": "1"}) == ["Red 50%", "blue"]
    assert _found(bench, labels={"a": "1", "b": "2"}) == ["blue"]
    assert _found(bench, labels={"b": "1"}) == []
    assert _found(bench, text="rEd") == ["Red 50%"]
    assert _found(bench, text="%") == ["Red 50%"]
    assert _found(bench, method="draft_k", base_model="shapes", text="b") == ["blue"]
    assert _found(bench, method="refl") == []
    assert _found(bench, kind="distil") == []
    assert len(_found(bench, created_after=datetime.now(tz=UTC) - hour)) == 3
    assert _found(bench, created_before=datetime.now(tz=UTC) - hour) == []


def test_the_place_in_the_queue_is_that_of_the_claims(bench: Bench) -> None:
    made = [bench.create(priority=priority) for priority in (0, 5, 0, -3, 5)]
    with bench.database.read() as session:
        places = jobs.queue_positions(session, made)
    claimed = [bench.claim().job.id for _ in made]
    assert sorted(places, key=lambda row_id: places[row_id]) == claimed
    assert sorted(places.values()) == [0, 1, 2, 3, 4]


def test_priority_moves_a_job_and_has_bounds(bench: Bench) -> None:
    first, second = bench.create(), bench.create()
    bench.database.transact(lambda session: jobs.reprioritize(session, second.id, 1))
    assert bench.claim().job.id == second.id
    with pytest.raises(UserError, match="too far"):
        bench.database.transact(lambda session: jobs.reprioritize(session, first.id, 101))
    bench.database.transact(lambda session: jobs.cancel(session, first.id))
    with pytest.raises(InvalidStateError):
        bench.database.transact(lambda session: jobs.reprioritize(session, first.id, 1))


def test_labels_are_replaced_and_checked(bench: Bench) -> None:
    job = bench.create()
    bench.database.transact(lambda session: jobs.relabel(session, job.id, {"b": "2"}))
    assert bench.get(job.id).labels == {"b": "2"}
    assert _found(bench, labels={"b": "2"}) == ["mirror"]
    with pytest.raises(UserError, match="NUL"):
        bench.database.transact(lambda session: jobs.relabel(session, job.id, {"b": "\0"}))


def _key(bench: Bench) -> str:
    new = NewApiKey(name="a", scopes=frozenset({Scope.JOBS_WRITE}))
    row, _ = bench.database.transact(lambda session: api_keys.issue(session, b"s" * 32, new))
    return row.id


def test_open_jobs_are_counted_per_key(bench: Bench) -> None:
    key = _key(bench)
    first = bench.create(api_key_id=key)
    bench.create(api_key_id=key)
    bench.create()
    with bench.database.read() as session:
        assert jobs.count_open(session, key) == 2
    bench.database.transact(lambda session: jobs.cancel(session, first.id))
    with bench.database.read() as session:
        assert jobs.count_open(session, key) == 1


def test_a_key_has_no_more_open_jobs_than_it_may(bench: Bench, url: URL) -> None:
    key = _key(bench)
    done: list[str] = []

    def submit(database: Database) -> None:
        new = NewJob(spec=bench.spec, api_key_id=key)
        with suppress(QuotaExceededError):
            done.append(database.transact(lambda s: jobs.create(s, new, most_open=3)).id)

    at_once(url, submit)
    assert len(done) == 3
    with pytest.raises(QuotaExceededError, match="3 of 3 jobs of this key are unfinished"):
        bench.database.transact(
            lambda s: jobs.create(s, NewJob(spec=bench.spec, api_key_id=key), most_open=3)
        )
    bench.create(api_key_id=key)
    assert len(_found(bench)) == 4


def test_a_parent_stays_until_its_retry_has_a_checkpoint_of_its_own(bench: Bench) -> None:
    parent = bench.create()
    lease = bench.claim().lease
    with bench.database.write() as session:
        results.add_checkpoint(session, lease, SAVED)
        leases.fail(session, lease, Report())
    child = bench.database.transact(lambda s: jobs.retry(s, parent.id))
    with pytest.raises(InvalidStateError, match="delete is refused, retry, rerun may be"):
        bench.database.transact(lambda s: jobs.remove(s, parent.id))
    lease = bench.claim().lease
    with bench.database.write() as session:
        results.add_checkpoint(session, lease, SAVED)
    bench.database.transact(lambda s: jobs.remove(s, parent.id))
    assert bench.get(child.id).parent_id is None


def test_a_name_that_no_database_can_hold_is_cleaned(bench: Bench) -> None:
    job = bench.create(spec=bench.spec.model_copy(update={"name": "a\0b"}))
    assert bench.get(job.id).name == "a\ufffdb"
    assert isinstance(job, Job)


def test_jobs_are_found_by_reward(bench: Bench) -> None:
    mirror = bench.create()
    rewards = [{"name": "compressibility"}, {"name": "symmetry", "weight": 0.5}]
    both = AlignSpec.model_validate({**bench.spec.model_dump(mode="json"), "rewards": rewards})
    mixed = bench.create(spec=both)
    with bench.database.read() as session:
        for reward, expected in (
            ("symmetry", [mixed.id, mirror.id]),
            ("compressibility", [mixed.id]),
            ("symm", []),
        ):
            page = jobs.page(session, JobFilter(reward=reward), PageRequest())
            assert [job.id for job in page.rows] == expected


def test_jobs_are_counted_by_status_and_class(bench: Bench) -> None:
    for resource_class in ("default", "default", "large", "large"):
        bench.create(resource_class=resource_class)
    bench.claim()
    with bench.database.read() as session:
        counts, depths = jobs.count_by_status(session), jobs.queue_depths(session)
    assert {status for status, count in counts.items() if count} == {
        JobStatus.QUEUED,
        JobStatus.PREPARING,
    }
    assert (counts[JobStatus.QUEUED], len(counts)) == (3, len(JobStatus))
    assert depths == {"default": 1, "large": 2}
