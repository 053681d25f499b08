from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shortft_core.errors import UserError
from shortft_core.events import CheckpointSaved
from shortft_core.spec.common import Source
from store import adapter_references, leases, object_keys, results
from store.adapter_references import AdapterReference
from store.errors import NotFoundError
from store.models import Job
from store.results import NewAdapter

if TYPE_CHECKING:
    from store.transitions import Lease
    from tests.store.conftest import Bench


def _resolve(bench: Bench, reference: str, project: str = "default") -> AdapterReference:
    with bench.database.read() as session:
        return adapter_references.resolve(session, reference, project)


def _save(bench: Bench, lease: Lease, update: int) -> str:
    prefix = object_keys.checkpoint_prefix(lease.row_id, update, lease.token)
    key = object_keys.checkpoint_state(prefix)
    event = CheckpointSaved(update=update, key=key, sha256="0" * 64, size_bytes=9)
    bench.database.transact(lambda session: results.add_checkpoint(session, lease, event))
    return prefix


def test_a_running_job_offers_what_it_has_stored(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    with pytest.raises(UserError, match="Wait for its first checkpoint"):
        _resolve(bench, job.id)
    saved = [_save(bench, lease, update) for update in (10, 20)]
    found = _resolve(bench, f"{job.id}@20")
    assert found.prefix == saved[1] + "adapter/"
    assert found.card_key == saved[1] + "adapter/shortft.json"
    assert (found.id, found.card) == (f"{job.id}@20", None)
    assert found.base_model == Source(name="shapes")
    with pytest.raises(UserError, match="no best adapter yet") as raised:
        _resolve(bench, f"{job.id}@best")
    assert raised.value.remedy == f"Use {job.id}@10 or {job.id}@20"
    prefix = object_keys.best_prefix(job.id, 10, lease.token)
    bench.database.transact(lambda session: results.set_best(session, lease, 10, prefix))
    assert _resolve(bench, f"{job.id}@best").prefix == prefix
    assert bench.get(job.id).best_update == 10
    with pytest.raises(UserError, match="is preparing without a result") as raised:
        _resolve(bench, job.id)
    assert raised.value.remedy.startswith(f"Use {job.id}@best or ")
    with pytest.raises(UserError, match="keeps no checkpoint of update 30"):
        _resolve(bench, f"{job.id}@30")


def test_the_later_attempt_at_an_update_counts(bench: Bench) -> None:
    job = bench.create()
    _save(bench, bench.claim().lease, 10)
    bench.expire(Job, job.id)
    bench.database.transact(leases.sweep)
    bench.set(Job, job.id, run_after=job.created_at)
    prefix = _save(bench, bench.claim().lease, 10)
    assert prefix.endswith(".t3/")
    assert _resolve(bench, f"{job.id}@10").prefix == prefix + "adapter/"


def test_a_result_is_found_by_its_own_id_and_by_its_jobs(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    prefix = object_keys.artifacts_prefix(job.id, lease.token) + "adapter/"
    adapter = NewAdapter(card={"steps": 50}, artifact_kinds=(), prefix=prefix)
    bench.database.transact(lambda session: results.succeed(session, lease, [], adapter))
    row = bench.get(job.id).adapter
    assert row is not None
    for reference in (job.id, row.id):
        found = _resolve(bench, reference)
        assert (found.prefix, found.card) == (prefix, {"steps": 50})
        with pytest.raises(NotFoundError):
            _resolve(bench, reference, project="theirs")


@pytest.mark.parametrize(
    "reference", ["", "adp_x@best", "shapes", "gen_x", "@best", "job", "../job_x"]
)
def test_text_of_another_form_is_refused(bench: Bench, reference: str) -> None:
    with pytest.raises(UserError, match=r"names no adapter. Give adp_…, job_…, job_…@best"):
        _resolve(bench, reference)


@pytest.mark.parametrize("which", ["", "last", "-1", "1.0", "٣", "9" * 20])
def test_an_update_that_is_no_number_is_refused(bench: Bench, which: str) -> None:
    with pytest.raises(UserError, match="names no adapter"):
        _resolve(bench, f"{bench.create().id}@{which}")


def test_what_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="job job_x"):
        _resolve(bench, "job_x@best")
    with pytest.raises(NotFoundError, match="adapter adp_x"):
        _resolve(bench, "adp_x")


def test_a_distillation_has_no_adapter(bench: Bench) -> None:
    job = bench.create()
    bench.set(Job, job.id, kind="distil")
    with pytest.raises(UserError, match="makes a distil result"):
        _resolve(bench, f"{job.id}@best")
