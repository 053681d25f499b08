from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from shortft_core.errors import ArtifactError
from shortft_core.events import (
    AlertRaised,
    CheckpointSaved,
    DistilMetrics,
    Diversity,
    EvaluationDone,
    Event,
    LogLine,
    PhaseStarted,
    Picture,
    RunFinished,
    RunStarted,
    SamplePair,
    SamplesReady,
    Score,
    StepMetrics,
    fan_out,
    from_envelope,
    jsonl_sink,
    read_jsonl,
    to_envelope,
)

STEP = StepMetrics(
    update=3,
    loss=-0.25,
    reward=0.25,
    terms={"hps_v2": 0.25, "symmetry": -0.5},
    grad_norms={1: 0.5, 2: 0.125},
    learning_rate=1e-3,
    seconds=2.5,
    evaluations_with_gradient=7,
    evaluations_without_gradient=11,
    images_seen=12,
)
EVENTS: tuple[Event, ...] = (
    RunStarted(spec_sha256="0" * 64, updates=120),
    RunStarted(spec_sha256="0" * 64, updates=None, first_update=51),
    PhaseStarted(phase="downloading"),
    STEP,
    DistilMetrics(update=50, updates=1500, errors={"741 -> 501": 0.5}),
    EvaluationDone(
        update=30,
        images=16,
        base={"oracle": Score(mean=0.5, std=0.25)},
        tuned={"oracle": Score(mean=0.75, std=0.125)},
        is_best=True,
        diversity=Diversity(base=0.25, tuned=0.125),
    ),
    CheckpointSaved(update=30, key="checkpoints/30", sha256="f" * 64, size_bytes=10),
    SamplesReady(
        update=30,
        pairs=(
            SamplePair(
                prompt="ein roter Kreis – ✓",
                seed=7,
                base=Picture(key="a.png", scores={"hps_v2": 0.25}),
                tuned=Picture(key="b.png", scores={"hps_v2": 0.5}),
            ),
        ),
    ),
    AlertRaised(kind="reward_divergence", update=30, action="pause", judge="oracle", value=-0.75),
    LogLine(message="resumed"),
    RunFinished(outcome="completed", updates=120, best_update=90, seconds=300.0),
)


@pytest.mark.parametrize(
    "number", range(len(EVENTS)), ids=lambda number: f"{number}-{EVENTS[number].type}"
)
def test_the_envelope_is_json_and_turns_back_into_the_event(number: int) -> None:
    event = EVENTS[number]
    envelope = json.loads(json.dumps(to_envelope(event), allow_nan=False))
    assert set(envelope) == {"object", "type", "created_at", "level", "message", "data"}
    assert envelope["object"] == "event"
    assert envelope["type"] == event.type
    assert from_envelope(envelope) == event


def test_types_are_distinct_names_of_the_interface() -> None:
    types = {event.type for event in EVENTS}
    assert len(types) == len({type(event) for event in EVENTS})
    assert all(name.startswith("job.") and name == name.lower() for name in types)


def test_numbers_arrive_in_raw_units() -> None:
    assert to_envelope(STEP)["data"]["terms"] == {"hps_v2": 0.25, "symmetry": -0.5}
    assert to_envelope(STEP)["data"]["grad_norms"] == {"1": 0.5, "2": 0.125}


def test_numbers_that_are_not_finite_stay_json() -> None:
    broken = STEP.model_copy(update={"loss": math.nan, "terms": {"hps_v2": -math.inf}})
    again = from_envelope(json.loads(json.dumps(to_envelope(broken), allow_nan=False)))
    assert isinstance(again, StepMetrics)
    assert math.isnan(again.loss)
    assert again.terms["hps_v2"] == -math.inf


def test_the_time_is_aware() -> None:
    assert abs(datetime.now(tz=UTC) - LogLine().created_at) < timedelta(minutes=1)
    assert str(to_envelope(STEP)["created_at"]).endswith("Z")
    with pytest.raises(ValidationError, match="timezone"):
        LogLine(created_at=datetime(2026, 1, 1))  # noqa: DTZ001


def test_an_alert_is_a_warning() -> None:
    assert AlertRaised(kind="nan", update=1, action="stop").level == "warn"
    assert STEP.level == "info"


def test_events_are_frozen_and_closed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        STEP.loss = 0.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        LogLine.model_validate({"surprise": 1})


def test_what_the_service_adds_does_no_harm() -> None:
    envelope = {**to_envelope(STEP), "id": "evt_1", "seq": 118, "job_id": "job_1"}
    assert from_envelope(envelope) == STEP


@pytest.mark.parametrize(
    "change",
    [{"type": "job.unknown"}, {"data": {}}, {"data": None}, {"created_at": "2026-01-01T00:00:00"}],
    ids=["type", "missing fields", "no data", "naive time"],
)
def test_other_envelopes_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="not an event envelope"):
        from_envelope({**to_envelope(STEP), **change})


def test_fan_out_reaches_all_sinks_in_order() -> None:
    seen: list[tuple[str, Event]] = []
    emit = fan_out(lambda event: seen.append(("a", event)), lambda event: seen.append(("b", event)))
    emit(STEP)
    assert seen == [("a", STEP), ("b", STEP)]


def test_a_file_keeps_events_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "run" / "events.jsonl"
    for half in (EVENTS[:4], EVENTS[4:]):
        emit = jsonl_sink(path)
        for event in half:
            emit(event)
    assert tuple(read_jsonl(path)) == EVENTS
    assert path.read_bytes().count(b"\n") == len(EVENTS)


def test_a_line_that_a_crash_tore_is_neither_read_nor_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    samples = next(event for event in EVENTS if isinstance(event, SamplesReady))
    jsonl_sink(path)(samples)
    whole = path.read_bytes()
    torn_inside_a_character = whole[: whole.index("✓".encode()) + 1]
    path.write_bytes(whole + torn_inside_a_character)
    assert tuple(read_jsonl(path)) == (samples,)
    jsonl_sink(path)(STEP)
    assert tuple(read_jsonl(path)) == (samples, STEP)


def test_a_broken_line_names_its_number(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    jsonl_sink(path)(STEP)
    with path.open("ab") as file:
        file.write(b"{]\n")
    with pytest.raises(ArtifactError, match="line 2"):
        tuple(read_jsonl(path))


def test_what_no_reader_could_take_is_replaced() -> None:
    line = LogLine(message="half \ud83d and \x00")
    assert to_envelope(line)["message"] == "half \ufffd and \ufffd"
    json.dumps(to_envelope(line)).encode()
