"""The generate station with real children: batches, cancelled rows, crashes, hangs and poison."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from shortft_core.spec.generation import ScoredImage, ScoreSpec, ServedAdapter
from shortft_core.spec.rewards import reward_term
from store.states import GenerationStatus
from tests.worker.generate.conftest import Bench
from tests.worker.generate.samples import asked, served, write_adapter

Alone = Callable[..., AbstractContextManager[Bench]]
RED, BLUE = "a red circle", "a blue star"
LONG = {"steps": 16}
SUCCEEDED, CANCELLED = GenerationStatus.SUCCEEDED, GenerationStatus.CANCELLED


def on(stack: str) -> pytest.MarkDecorator:
    """One stack alone, for what happens to the process that both share."""
    return pytest.mark.parametrize("running", [stack], indirect=True)


# First, as the process has not yet loaded what it would have to load again.
@on("postgresql")
def test_an_idle_process_that_dies_is_nobodys_fault(running: Bench) -> None:
    before, child = running.child_pid, running.station.children[0]
    os.kill(before, signal.SIGKILL)
    running.until(lambda: child.has_ended)
    (row,) = running.finished(*running.ask(asked(RED)))
    assert (row.status, row.attempt, row.crashes) == (SUCCEEDED, 1, 0)
    assert running.child_pid != before


def test_six_requests_of_two_callers_are_answered_as_one_batch(
    running: Bench, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "a", seed=1)
    adapter = served(folder)
    for path in folder.glob("*.*"):
        running.context.objects.write_file(f"{adapter.prefix}{path.name}", path)
    specs = [
        asked(f"{RED} {number}", adapters=(adapter,), compare_base=number == 0)
        for number in range(6)
    ]
    rows = running.finished(*running.ask(*specs))
    assert [row.status for row in rows] == [SUCCEEDED] * 6
    assert {row.project for row in rows} == {"ours", "theirs"}
    assert [len(row.images) for row in rows] == [2, 1, 1, 1, 1, 1]
    assert [image.kind for image in rows[0].images] == ["base", "tuned"]
    assert len({image.sha256 for row in rows for image in row.images}) == 7
    assert {row.attempt for row in rows} == {1}
    # Seconds are the batch's: requests that were made together say the same.
    assert len({(row.outcome or {})["timings"]["generate"] for row in rows}) == 1
    for row in rows:
        for image in row.images:
            data = running.context.objects.read(image.object_key, sha256=image.sha256)
            assert image.object_key.startswith(f"generations/{row.id}/t1/")
            with Image.open(BytesIO(data)) as picture:
                assert json.loads(picture.info["shortft"])["request"]["prompts"] == [image.prompt]
                assert picture.size == (image.width, image.height)
    assert list(running.context.settings.work_dir.rglob("*.png")) == []


def test_rows_cancelled_in_a_batch_get_nothing_and_the_others_go_on(running: Bench) -> None:
    ids = running.ask(*(asked(f"{RED} {number}", **LONG) for number in range(2)))
    running.until(lambda: running.is_running(ids[0]))
    running.cancel(ids[0])
    rows = running.finished(*ids)
    assert [row.status for row in rows] == [CANCELLED, SUCCEEDED]
    assert [len(row.images) for row in rows] == [0, 1]


def test_uploaded_pictures_are_scored_where_they_lie(running: Bench) -> None:
    buffer = BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, format="JPEG")
    key = "uploads/gen_x/000.jpg"
    sha256 = running.context.objects.write(key, buffer.getvalue())
    image = ScoredImage(key=key, sha256=sha256, prompt=RED)
    changed = image.model_copy(update={"sha256": hashlib.sha256(b"other").hexdigest()})
    rewards = (reward_term("symmetry", None),)
    nowhere = ServedAdapter(id="adp_x", prefix="adapters/nowhere/", card_sha256="0" * 64)
    ids = running.ask(
        ScoreSpec(rewards=rewards, images=(image,)),
        ScoreSpec(rewards=rewards, images=(changed,)),
        asked(RED, adapters=(nowhere,)),
    )
    scored, refused, absent = running.finished(*ids)
    (found,) = scored.images
    assert found.scores == pytest.approx({"symmetry": 0.0}, abs=0.02)
    assert (found.object_key, found.sha256, found.seed) == (key, sha256, None)
    assert (found.width, found.height, found.media_type) == (20, 10, "image/jpeg")
    assert (refused.error_code, absent.error_code) == ("storage_error", "storage_error")
    assert "has changed" in str(refused.error_message)
    assert "there is no artifact adapters/nowhere/shortft.json" in str(absent.error_message)


@on("sqlite")
@pytest.mark.timeout(300)
def test_poison_takes_no_innocent_request_with_it(
    running: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process hangs with all of them, is replaced, and the next one dies of the poison."""
    running.finished(*running.ask(asked(RED)))
    hung, child = running.child_pid, running.station.children[0]
    impatient = running.context.settings.model_copy(update={"generate_timeout_seconds": 3.0})
    monkeypatch.setattr(child, "_settings", impatient)
    os.kill(hung, signal.SIGSTOP)
    poison, *innocent = running.ask(
        asked(BLUE, **LONG), *(asked(f"{RED} {number}", **LONG) for number in range(2))
    )
    running.until(lambda: child.pid not in {None, hung} and not child.was_ready)
    monkeypatch.undo()
    assert not Path(f"/proc/{hung}").exists()
    died = running.child_pid
    running.until(lambda: child.was_ready and running.is_running(poison))
    assert not any(running.is_running(one) for one in innocent)
    os.kill(died, signal.SIGKILL)
    failed, *rows = running.finished(poison, *innocent)
    assert (failed.status, failed.error_code) == (GenerationStatus.FAILED, "crashed")
    assert (failed.attempt, failed.crashes) == (2, 2)
    assert "SIGKILL" in str(failed.error_message)
    assert [row.status for row in rows] == [SUCCEEDED] * 2
    assert [(row.attempt, row.crashes, len(row.images)) for row in rows] == [(2, 1, 1)] * 2
    assert [row.exit_cause for row in rows] == ["it said nothing for 3 s"] * 2
    assert running.child_pid not in {hung, died}


# The last of the shared process.
@on("sqlite")
def test_stopping_finishes_what_it_can(running: Bench) -> None:
    (asked_for,) = running.ask(asked(*[f"{RED} {number}" for number in range(4)]))
    running.until(lambda: running.is_running(asked_for))
    running.context.stopping.set()
    running.station.stop()
    row = running.get(asked_for)
    assert (row.status, row.attempt, row.crashes) == (SUCCEEDED, 1, 0)


def test_a_worker_that_stops_gives_back_what_it_cannot_finish(alone: Alone) -> None:
    with alone(grace_seconds=0.5) as made:
        made.drain()
        (long,) = made.ask(asked(*[f"{RED} {number}" for number in range(16)], **LONG))
        made.until(lambda: made.is_running(long))
        pid, folder = made.child_pid, made.context.settings.work_dir / "generations"
        made.context.stopping.set()
        # Celery waits for its threads before it lets the station be stopped.
        made.until(lambda: not made.is_running(long))
        row = made.get(long)
        assert (row.status, row.attempt, row.crashes) == (GenerationStatus.QUEUED, 0, 0)
        made.station.stop()
        assert not Path(f"/proc/{pid}").exists()
        assert list(folder.iterdir()) == []
