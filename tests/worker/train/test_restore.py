"""A run folder for the next attempt: what is taken from the store, and what is only passed over."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from shortft_core import catalog, prompts
from shortft_core.events import (
    CheckpointSaved,
    EvaluationDone,
    Picture,
    SamplePair,
    SamplesReady,
    read_jsonl,
)
from shortft_core.spec import AlignSpec, PromptSource
from store import jobs, object_keys, prompt_sets, results, rubbish
from store.errors import NotFoundError
from store.leases import Claim, claim
from store.models import Job
from store.objects import FolderStore, StoredObject
from tests.faults.harness import Service
from worker.train.records import Records
from worker.train.restore import Restorer
from worker.train.stored import RunStorage

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


@dataclass
class Bench:
    """A claimed job, and what an attempt stores and restores with."""

    running: Service
    claimed: Claim
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.running.folder / "run"
        self.records = Records(self.running.database, self.claimed.lease, lambda: True)
        self.storage = RunStorage(self.running.objects, self.records, self.folder, lambda: True)

    def save(self, update: int, state: str = "state") -> CheckpointSaved:
        """A checkpoint in the run folder and in the store."""
        local = FolderStore(self.folder)
        folder = f"checkpoints/{update:06d}"
        data = f"{state} {update}".encode()
        digest = local.write(f"{folder}/state.safetensors", data)
        manifest = json.dumps({"update": update, "state_sha256": digest}).encode()
        local.write(f"{folder}/manifest.json", manifest)
        event = CheckpointSaved(
            update=update,
            key=f"{folder}/state.safetensors",
            sha256=digest,
            size_bytes=len(data),
        )
        self.storage.checkpoint(event)
        return event

    def evaluate(self, update: int, base: str) -> None:
        """An evaluation, the best so far; `base` is what the base model draws."""
        self.records.note(EvaluationDone(update=update, images=1, base={}, tuned={}, is_best=True))
        self.storage.samples(self.draw(update, base))

    def draw(self, update: int, base: str) -> SamplesReady:
        """Its pictures in the run folder."""
        local = FolderStore(self.folder)
        base_key, tuned_key = "samples/base/000.png", f"samples/{update:06d}/000.png"
        local.write(base_key, base.encode())
        local.write(tuned_key, f"{base}, tuned at {update}".encode())
        pictures = [Picture(key=key, scores={}) for key in (base_key, tuned_key)]
        pair = SamplePair(prompt="a star", seed=1, base=pictures[0], tuned=pictures[1])
        return SamplesReady(update=update, pairs=(pair,))

    def succeed_by_another(self) -> Bench:
        """The next attempt, on another machine, after the worker of this one was lost."""
        with self.running.database.write() as session:
            session.connection().exec_driver_sql(
                "UPDATE jobs SET status = 'queued', lease_owner = NULL, lease_expires_at = NULL"
            )
        return Bench(self.running, claim_next(self.running))

    def rows(self) -> dict[int, str]:
        """Updates of the checkpoints that rows name, and their keys."""
        job_id = self.claimed.job.id
        found = self.records.read(lambda session: results.checkpoints(session, job_id))
        return {row.update: row.object_key for row in found}

    def restore(self, name: str = "again") -> tuple[list[str], dict[str, Any]]:
        """What a new run folder holds, and the trainer's specification."""
        folder = self.running.folder / name
        job_id = self.claimed.job.id
        restorer = Restorer(
            job=self.records.read(lambda session: jobs.get_many(session, [job_id])[job_id]),
            objects=self.running.objects,
            records=self.records,
            folder=folder,
            give_up=lambda: True,
        )
        spec = restorer.restore()
        return list(FolderStore(folder).list()), spec

    def messages(self) -> list[str]:
        """Warnings of the job's history."""
        self.records.flush()
        history = self.running.events(self.claimed.job.id)
        return [event.message for event in history if event.level == "warn"]


def claim_next(running: Service) -> Claim:
    found = running.database.transact(lambda session: claim(session, "wrk_a", ["default"]))
    assert found is not None
    return found


@pytest.fixture
def bench(running: Service) -> Bench:
    running.create(updates=100)
    return Bench(running, claim_next(running))


def hide(running: Service, folder: str) -> Path:
    """Moves a part of the store away, as if a disk was not mounted; returns where it is."""
    assert isinstance(running.objects, FolderStore)
    return (running.objects.root / folder).rename(running.folder / "hidden")


def checkpoint_files(update: int) -> list[str]:
    return [f"checkpoints/{update:06d}/{name}" for name in ("manifest.json", "state.safetensors")]


def test_checkpoints_that_are_not_there_are_not_forgotten(bench: Bench) -> None:
    bench.save(5)
    bench.save(10)
    prefix = object_keys.job_prefix(bench.claimed.job.id) + "checkpoints"
    hidden = hide(bench.running, prefix)
    assert bench.restore()[0] == []
    assert bench.messages() == [
        f"checkpoint {update} is absent; an older state is resumed from" for update in (10, 5)
    ]
    assert isinstance(bench.running.objects, FolderStore)
    hidden.rename(bench.running.objects.root / prefix)
    found, _ = bench.restore()
    assert [name for name in found if name.startswith("checkpoints/")] == checkpoint_files(10)


def test_a_checkpoint_that_changed_is_forgotten(bench: Bench) -> None:
    bench.save(5)
    bench.save(10)
    bench.running.objects.write(bench.rows()[10], b"other")
    found, _ = bench.restore()
    assert [name for name in found if name.startswith("checkpoints/")] == checkpoint_files(5)
    assert set(bench.rows()) == {5}
    assert bench.messages() == ["checkpoint 10 is damaged; an older state is resumed from"]


def test_an_attempt_that_began_further_back_keeps_its_own_checkpoints(bench: Bench) -> None:
    bench.save(40)
    bench.save(45)
    later = bench.succeed_by_another()
    later.save(5)
    assert set(later.rows()) == {5, 45}
    later.save(10)
    assert set(later.rows()) == {5, 10}


def test_a_second_save_of_an_update_spares_what_the_row_vouches_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies between the objects and the row of the second."""
    bench.save(5)
    with monkeypatch.context() as patch:
        patch.setattr(bench.records, "write", lambda _: [])
        bench.save(5, "evaluated")
    found, _ = bench.restore()
    assert found[:2] == checkpoint_files(5)
    state = bench.running.folder / "again" / "checkpoints/000005/state.safetensors"
    assert state.read_bytes() == b"state 5"
    bench.save(5, "evaluated")
    assert list(bench.rows()) == [5]
    stored = bench.running.objects.list(object_keys.job_prefix(bench.claimed.job.id))
    assert [bench.running.objects.read(key) for key in stored if key.endswith("safetensors")] == [
        b"evaluated 5"
    ]


def test_a_checkpoint_without_manifest_is_not_vouched_for(bench: Bench) -> None:
    event = bench.save(5)
    key = event.key.replace("000005", "000006")
    FolderStore(bench.folder).write(key, b"state 5")
    bench.storage.checkpoint(event.model_copy(update={"update": 6, "key": key}))
    assert list(bench.rows()) == [5]
    assert bench.messages()[0].startswith("checkpoint 6: ")


def test_a_best_folder_that_is_replaced_meanwhile_is_left_out(bench: Bench) -> None:
    """The card is not yet there, or no longer: the trainer is about to say that a better one is."""
    for content in ({"branch_1.safetensors": "{}"}, {"shortft.json": "{"}):
        for name, text in content.items():
            FolderStore(bench.folder).write(f"best/{name}", text.encode())
        bench.storage.best(5)
    assert bench.running.job(bench.claimed.job.id).best_prefix is None


def test_a_store_that_is_away_for_a_moment_costs_no_best_adapter(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.save(5)
    prefix = object_keys.best_prefix(bench.claimed.job.id, 5, 1)
    bench.running.objects.write(prefix + "shortft.json", b"{}")
    evaluated = EvaluationDone(update=5, images=1, base={}, tuned={}, is_best=True)
    bench.records.note(evaluated)
    bench.records.write(lambda session, lease: results.set_best(session, lease, 5, prefix))
    objects = bench.running.objects
    failed: list[str] = []
    exists = objects.exists

    def fails_once(key: str) -> bool:
        if key.endswith("shortft.json") and not failed:
            failed.append(key)
            raise ConnectionError("reset by peer")
        return exists(key)

    monkeypatch.setattr(objects, "exists", fails_once)
    restorer = Restorer(
        job=bench.running.job(bench.claimed.job.id),
        objects=objects,
        records=bench.records,
        folder=bench.running.folder / "again",
        give_up=lambda: False,
    )
    restorer.restore()
    assert len(failed) == 1
    assert (bench.running.folder / "again" / "best" / "shortft.json").is_file()


def fail_all(running: Service) -> None:
    """Ends all jobs that have not ended yet."""
    with running.database.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE jobs SET status = 'failed', lease_owner = NULL, lease_expires_at = NULL,"
            " finished_at = updated_at WHERE finished_at IS NULL"
        )


def test_a_repeated_job_inherits_prompts_that_were_deleted(running: Service) -> None:
    texts = prompts.load(PromptSource(inline=("a red circle", "a blue star")))
    database = running.database
    row = database.transact(lambda session: prompt_sets.create(session, "default", "mine", texts))
    content = {
        "base_model": {"name": "shapes"},
        "method": {"type": "draft_k", "updates": 5},
        "rewards": [{"name": "symmetry"}],
        "prompts": {"id": row.id},
        "evaluation": {"prompts": {"inline": ["a star"]}},
    }
    new = jobs.NewJob(spec=catalog.resolve(AlignSpec.model_validate(content)))
    database.transact(lambda session: jobs.create(session, new))
    parent = Bench(running, claim_next(running))
    parent.restore("parent")
    with database.write() as session:
        session.connection().exec_driver_sql("DELETE FROM prompt_sets")
    fail_all(running)
    with pytest.raises(NotFoundError), database.read() as session:
        prompt_sets.load(session, row.id, "default")
    database.transact(lambda session: jobs.rerun(session, parent.claimed.job.id))
    child = Bench(running, claim_next(running))
    found, spec = child.restore("child")
    assert found == [f"prompts/{row.id}.json"]
    assert spec["prompts"]["path"] == found[0]
    own = object_keys.prompts_prefix(child.claimed.job.id) + f"{row.id}.json"
    assert json.loads(running.objects.read(own)) == ["a red circle", "a blue star"]


def test_prompts_are_inherited_past_a_job_that_never_began(running: Service) -> None:
    database = running.database
    texts = prompts.load(PromptSource(inline=("a red circle",)))
    row = database.transact(lambda session: prompt_sets.create(session, "default", "mine", texts))
    running.create(updates=5)
    first = claim_next(running)
    with database.write() as session:
        spec = {**first.job.spec, "prompts": {"id": row.id}}
        session.execute(update(Job).where(Job.id == first.job.id).values(spec=spec))
    bench = Bench(running, first)
    bench.restore("first")
    with database.write() as session:
        session.connection().exec_driver_sql("DELETE FROM prompt_sets")
    fail_all(running)
    second = database.transact(lambda session: jobs.rerun(session, first.job.id))
    database.transact(lambda session: jobs.cancel(session, second.id))
    database.transact(lambda session: jobs.rerun(session, second.id))
    found, _ = Bench(running, claim_next(running)).restore("third")
    assert found == [f"prompts/{row.id}.json"]


def test_a_retry_of_a_retry_has_the_state_and_the_best_of_the_first(bench: Bench) -> None:
    running = bench.running
    bench.save(90)
    best = object_keys.best_prefix(bench.claimed.job.id, 90, 1)
    running.objects.write(best + "shortft.json", b"{}")
    bench.records.write(lambda session, lease: results.set_best(session, lease, 90, best))
    with running.database.write() as session:
        session.connection().exec_driver_sql("UPDATE jobs SET project = 'theirs'")
    fail_all(running)
    second = running.database.transact(lambda session: jobs.retry(session, bench.claimed.job.id))
    running.database.transact(lambda session: jobs.cancel(session, second.id))
    running.database.transact(lambda session: jobs.retry(session, second.id))
    found, _ = Bench(running, claim_next(running)).restore("third")
    assert found == ["best/shortft.json", *checkpoint_files(90), "events.jsonl"]


def test_a_rerun_has_nothing_of_its_parents_best(bench: Bench) -> None:
    running = bench.running
    best = object_keys.best_prefix(bench.claimed.job.id, 5, 1)
    running.objects.write(best + "shortft.json", b"{}")
    bench.records.write(lambda session, lease: results.set_best(session, lease, 5, best))
    fail_all(running)
    running.database.transact(lambda session: jobs.rerun(session, bench.claimed.job.id))
    again = Bench(running, claim_next(running))
    again.save(5)
    assert again.restore()[0] == [*checkpoint_files(5), "events.jsonl"]


def test_a_history_has_the_pictures_of_the_attempts_that_made_them(bench: Bench) -> None:
    bench.evaluate(5, "a star on one GPU")
    bench.save(5)
    later = bench.succeed_by_another()
    later.evaluate(10, "a star on another")
    # Only told of, so that the best evaluation and the last one are of two attempts.
    later.records.note(EvaluationDone(update=5, images=1, base={}, tuned={}, is_best=True))
    later.records.flush()
    later.restore()
    folder = later.running.folder / "again"
    samples = [e for e in read_jsonl(folder / "events.jsonl") if isinstance(e, SamplesReady)]
    shown = {
        event.update: [(folder / key).read_text() for key in (pair.base.key, pair.tuned.key)]
        for event in samples
        for pair in event.pairs
    }
    assert shown == {
        5: ["a star on one GPU", "a star on one GPU, tuned at 5"],
        10: ["a star on another", "a star on another, tuned at 10"],
    }


def test_a_history_of_an_earlier_version_has_its_pictures(bench: Bench) -> None:
    """Without tokens in their keys."""
    prefix = object_keys.job_prefix(bench.claimed.job.id)
    keys = [f"{prefix}samples/{name}/000.png" for name in ("base", "000005")]
    stored = {
        key: StoredObject(key, bench.running.objects.write(key, key.encode()), len(key))
        for key in keys
    }
    pictures = [Picture(key=key, scores={}) for key in keys]
    pair = SamplePair(prompt="a star", seed=1, base=pictures[0], tuned=pictures[1])
    event = SamplesReady(update=5, pairs=(pair,))
    bench.records.write(lambda session, lease: results.add_samples(session, lease, event, stored))
    bench.save(5)
    found, _ = bench.restore()
    assert found[-2:] == ["samples/000005/000.png", "samples/base/000.png"]


def test_recorded_trajectories_outlive_an_attempt(bench: Bench) -> None:
    names = [f"trajectories/{role}/000000.safetensors" for role in ("held-out", "training")]
    for name in names:
        FolderStore(bench.folder).write(name, name.encode())
    FolderStore(bench.folder).root.joinpath("trajectories/training/.half.tmp").write_bytes(b"x")
    bench.storage.trajectories()
    bench.storage.trajectories()
    assert bench.restore()[0] == names
    again = bench.running.folder / "again"
    assert [(again / name).read_text() for name in names] == names
    database, objects = bench.running.database, bench.running.objects
    with database.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE jobs SET status = 'paused', lease_owner = NULL, lease_expires_at = NULL"
        )
    assert rubbish.collect(database, objects, older_than=-rubbish.AGE).objects == 0
    with database.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE jobs SET status = 'failed', finished_at = updated_at"
        )
    assert rubbish.collect(database, objects, older_than=-rubbish.AGE).objects == 2
