"""The tables and sentences of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import yaml

from shortft_core.events import EvaluationDone, StepMetrics
from shortft_core.paired import Change
from shortft_core.report.curves import TARGET
from shortft_core.report.log import RunLog
from shortft_core.report.markup import (
    Html,
    duration,
    element,
    facts,
    join,
    note,
    raw,
    signed,
    size,
    table,
)


def heading(log: RunLog) -> Html:
    """What was tuned, how it ended, and what came of it."""
    name = log.spec.get("name") or log.folder.resolve().name
    outcome, look = _outcome(log)
    return join(
        [
            element("h1", name, " ", element("span", outcome, cls=f"badge {look}".strip())),
            element("p", _sentence(log), cls="lead"),
            element("p", _result(log), cls="lead"),
        ]
    )


def alerts(log: RunLog) -> Html:
    """What the guard found; empty where it found nothing."""
    if not log.alerts:
        return element("p", "The guard raised no alert.", cls="empty")
    rows = [
        (
            element("span", alert.kind.replace("_", " "), cls="bad"),
            alert.message or alert.judge or "",
            alert.update,
            "" if alert.value is None else f"{alert.value:.3f}",
            "" if alert.limit is None else f"{alert.limit:.3f}",
            alert.action,
        )
        for alert in log.alerts
    ]
    head = ("alert", "what it means", "update", "value", "limit", "action")
    return table(head, rows, text_columns=2)


def judges(log: RunLog) -> Html:
    """Base beside tuned for every judge at the best evaluation, with paired intervals."""
    shown = log.best or (log.evaluations[-1] if log.evaluations else None)
    if shown is None:
        return element("p", "No evaluation was made.", cls="empty")
    found = log.changes(shown.update)
    rows = [_judge_row(judge, shown, found.get(judge)) for judge in shown.base]
    rows += _diversity_rows(shown)
    explained = note(
        f"Update {shown.update}, {shown.images} held-out images, raw units; {TARGET} is the",
        " weighted sum that was maximized. The interval is Student's, of the mean paired",
        " difference, with prompts as independent units. Diversity is how much the images differ",
        " from each other: their standard deviation, averaged over pixels.",
    )
    head = ("judge", "base", "tuned", "change", "95 % interval", "images improved")
    return join([explained, table(head, rows)])


def evaluations(log: RunLog) -> Html:
    """Every evaluation in numbers: what the curves draw."""
    if not log.evaluations:
        return Html("")
    names = list(log.evaluations[-1].base)
    rows = [
        (
            f"{event.update}{' (best)' if event is log.best else ''}",
            duration(log.wall_seconds[event.created_at]),
            *(raw(event.tuned[name].mean) for name in names if name in event.tuned),
        )
        for event in log.evaluations
        if set(names) <= event.tuned.keys()
    ]
    last = log.evaluations[-1].base
    base = ("base", "", *(raw(last[name].mean) for name in names))
    whole = table(("update", "wall time", *names), [base, *rows])
    return element("details", element("summary", "All evaluations in numbers"), whole)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a number of updates took."""

    updates: int
    seconds: float
    with_gradient: float
    """Denoiser calls, one per image and call of the chain."""
    without_gradient: float
    images: int
    peak_memory_bytes: int


def costs(log: RunLog) -> dict[int, Cost]:
    """Stage -> cost of its updates."""
    seen = {0: 0, **{step.update: step.images_seen for step in log.steps}}
    stages = groupby(sorted(log.steps, key=lambda step: step.stage), key=lambda step: step.stage)
    return {stage: _cost(list(steps), seen) for stage, steps in stages}


def cost(log: RunLog) -> Html:
    """Time, denoiser calls, images and memory, per stage where there are several."""
    if not log.steps:
        return element("p", "No update was made.", cls="empty")
    stages = costs(log)
    rows = [_cost_row(f"stage {stage}", spent) for stage, spent in stages.items()]
    total = _total(list(stages.values()))
    rows = [*(rows if len(rows) > 1 else []), _cost_row("all updates", total)]
    wall = max(log.wall_seconds.values())
    explained = note(
        f"Evaluations are denoiser calls, counted once per image. All of it took {duration(wall)};",
        f" {duration(max(0.0, wall - total.seconds))} of it went into held-out pictures,",
        " judging and saving.",
    )
    head = (
        "",
        "updates",
        "wall time",
        "evaluations with gradient",
        "without",
        "images seen",
        "peak memory",
    )
    return join([explained, table(head, rows)])


def log_lines(log: RunLog) -> Html:
    """Log lines with the time they were written."""
    rows = [
        (f"{line.created_at:%Y-%m-%d %H:%M:%S} UTC", line.level, line.message) for line in log.lines
    ]
    if not rows:
        return element("p", "The log is empty.", cls="empty")
    return table(("time", "level", "message"), rows, text_columns=3)


def provenance(log: RunLog) -> Html:
    """Hashes of what went in and came out."""
    rows: list[tuple[str, object]] = []
    if log.started is not None:
        rows.append(("specification, sha256", _hash(log.started.spec_sha256)))
    cards = log.cards()
    fingerprints = {str(card.get("base_sha256")) for card in cards.values()}
    rows += [("base denoiser, sha256", _hash(value)) for value in sorted(fingerprints)]
    for folder, card in cards.items():
        files = zip(card.get("branches", ()), card.get("sha256", ()), strict=True)
        rows += [(f"{folder}/{name}, sha256", _hash(value)) for name, value in files]
    return facts(rows) if rows else element("p", "Nothing was written yet.", cls="empty")


def configuration(log: RunLog) -> Html:
    """The resolved specification as YAML."""
    text = yaml.safe_dump(dict(log.spec), sort_keys=False, allow_unicode=True, width=96)
    return element("pre", text)


def source_name(source: Any) -> str:
    """A source of the specification in words."""
    if source.get("inline") is not None:
        return f"{len(source['inline'])} prompts of the specification"
    if source.get("id"):
        return f"{source['id']}@{source.get('revision') or 'main'}"
    return str(source.get("name") or source.get("path"))


def _outcome(log: RunLog) -> tuple[str, str]:
    if log.finished is not None:
        looks = {"completed": "good", "failed": "bad"}
        return log.finished.outcome, looks.get(log.finished.outcome, "")
    return ("not started", "") if log.started is None else ("running, or interrupted", "")


def _sentence(log: RunLog) -> str:
    method = log.spec["method"]
    rewards = [(term.get("weight", 1.0), term["name"]) for term in log.spec["rewards"]]
    summed = " + ".join(name if weight == 1 else f"{weight:g} {name}" for weight, name in rewards)
    return (
        f"{source_name(log.spec['base_model'])} tuned with {method['type']} towards {summed}"
        f" on {source_name(log.spec['prompts'])}, rank {method.get('rank')},"
        f" {len(log.steps)} updates."
    )


def _result(log: RunLog) -> Html:
    shown = log.best or (log.evaluations[-1] if log.evaluations else None)
    if shown is None or TARGET not in shown.base:
        return Html("It was not evaluated.")
    before, after = shown.base[TARGET].mean, shown.tuned[TARGET].mean
    which = "Best" if log.best else "No evaluation passed the guard; last"
    change = log.changes(shown.update).get(TARGET)
    doubt = f" \N{PLUS-MINUS SIGN} {change.half_width:.4f}" if change and change.half_width else ""
    return join(
        [
            f"{which} at update {shown.update}: held-out target {raw(before)}",
            " \N{RIGHTWARDS ARROW} ",
            f"{raw(after)} (",
            signed(after - before),
            f"{doubt}, {shown.images} images).",
        ]
    )


def _judge_row(judge: str, shown: EvaluationDone, change: Change | None) -> tuple[object, ...]:
    base, tuned = shown.base[judge].mean, shown.tuned[judge].mean
    interval = change.interval if change else None
    return (
        judge,
        raw(base),
        raw(tuned),
        signed(tuned - base),
        f"{raw(interval[0])} to {raw(interval[1])}" if interval else "",
        f"{change.improved} of {change.pairs}" if change else "",
    )


def _diversity_rows(shown: EvaluationDone) -> list[tuple[object, ...]]:
    if (found := shown.diversity) is None:
        return []
    change = signed(found.tuned - found.base)
    return [("diversity", raw(found.base), raw(found.tuned), change, "", "")]


def _cost(steps: Sequence[StepMetrics], seen: dict[int, int]) -> Cost:
    images = [step.images_seen - seen.get(step.update - 1, 0) for step in steps]
    both = list(zip(steps, images, strict=True))
    return Cost(
        updates=len(steps),
        seconds=sum(step.seconds for step in steps),
        with_gradient=sum(step.evaluations_with_gradient * count for step, count in both),
        without_gradient=sum(step.evaluations_without_gradient * count for step, count in both),
        images=sum(images),
        peak_memory_bytes=max(step.peak_memory_bytes for step in steps),
    )


def _total(stages: Sequence[Cost]) -> Cost:
    return Cost(
        updates=sum(stage.updates for stage in stages),
        seconds=sum(stage.seconds for stage in stages),
        with_gradient=sum(stage.with_gradient for stage in stages),
        without_gradient=sum(stage.without_gradient for stage in stages),
        images=sum(stage.images for stage in stages),
        peak_memory_bytes=max(stage.peak_memory_bytes for stage in stages),
    )


def _cost_row(name: str, spent: Cost) -> tuple[str, ...]:
    return (
        name,
        f"{spent.updates:,}",
        duration(spent.seconds),
        f"{spent.with_gradient:,.0f}",
        f"{spent.without_gradient:,.0f}",
        f"{spent.images:,}",
        size(spent.peak_memory_bytes) if spent.peak_memory_bytes else "not recorded",
    )


def _hash(value: str) -> Html:
    return element("span", value, cls="hash")
