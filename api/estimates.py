"""What a job will cost, told from its chain alone: denoiser calls, counted as the trainer does.

Where a method draws its chain by chance, the figure is the mean over all draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from api.schemas.jobs import Estimate, Evaluations, StageEvaluations
from api.service import Service
from shortft_core import catalog, schedule
from shortft_core.spec import (
    AlignProp,
    AlignSpec,
    AnyMethod,
    Direct,
    DraftK,
    DraftLV,
    DRTune,
    ReFL,
    ShortFT,
    resolved,
)
from shortft_core.stages import stage_starts
from store import measurements, workers
from store.measurements import Measurement

_Counts = tuple[float, float]
"""Calls with gradient, and without."""


def estimate(service: Service, spec: AlignSpec) -> Estimate:
    """The cost of a resolved job; times and memory only where such a job was measured before."""
    method = spec.method
    per_image = evaluations_per_image(spec)
    updates = _updates_of_stages(spec, len(per_image))
    images_per_update = method.batch_size * resolved(method.accumulation, "accumulation")
    measured = _measured(service, spec)
    return Estimate(
        is_exact=_is_exact(spec),
        stages=[
            StageEvaluations(stage=stage, updates=length, per_image=_evaluations(counts))
            for stage, (length, counts) in enumerate(zip(updates, per_image, strict=True), start=1)
        ],
        images=None if method.updates is None else method.updates * images_per_update,
        total=_total(updates, per_image, images_per_update),
        seconds=_seconds(spec, measured),
        memory_bytes=None if measured is None else measured.peak_memory_bytes,
        device=None if measured is None else measured.device,
    )


def _seconds(spec: AlignSpec, measured: Measurement | None) -> float | None:
    method = spec.method
    if method.updates is None or measured is None:
        return method.seconds
    return measured.seconds_per_update * method.updates


def _measured(service: Service, spec: AlignSpec) -> Measurement | None:
    """Figures of the first device, among those of the living workers, that has any."""
    with service.database.read() as session:
        living = workers.alive(session)
        devices = sorted({worker.device for worker in living if worker.kind == "train"})
        found = (measurements.measured(session, spec, device) for device in devices)
        return next((figures for figures in found if figures is not None), None)


def evaluations_per_image(spec: AlignSpec) -> tuple[_Counts, ...]:
    """Calls of one training image (with, without) gradient, in each stage."""
    if isinstance(spec.method, ShortFT):
        return _shortft(spec.method)
    counts = _baseline(spec.method)
    return (_on_a_leash(spec.method, counts) if spec.method.leash else counts,)


def _on_a_leash(method: AnyMethod, counts: _Counts) -> _Counts:
    """The base model is asked beside each attached call.

    It carries gradient too where an earlier attached call has moved the latents.
    """
    attached, cut = counts
    moved = attached - 1 if isinstance(method, DraftK | AlignProp | Direct) else 0
    return attached + moved, cut + attached - moved


def _baseline(method: DraftK | DraftLV | ReFL | AlignProp | DRTune | Direct) -> _Counts:
    match method:
        case DraftK(steps=steps, gradient_steps=attached):
            return schedule.counts(schedule.draft_k_plan(steps, attached))
        case DraftLV(steps=steps, noised_copies=copies):
            return 1 + copies, steps - 1
        case ReFL(first_mid_step=first, last_mid_step=last):
            return 1, (first + last) / 2
        case AlignProp():
            return _alignprop(method)
        case DRTune():
            return _drtune(method)
        case Direct(segments=segments):
            return segments, 0


def _shortft(method: ShortFT) -> tuple[_Counts, ...]:
    source = method.shortcut
    borders: tuple[int, ...] = ()
    if source is not None and source.name is not None:
        borders = catalog.shortcut_borders(catalog.SHORTCUTS[source.name], method.segments)
    readings = schedule.Readings(
        first_segment_grad_steps=method.first_segment_grad_steps, scope=method.scope
    )
    stages = 1 if method.ablation == "no_progressive" else method.segments
    plans = (
        schedule.plan(
            method.steps, method.segments, stage, readings=readings, shortcut_borders=borders
        )
        for stage in range(1, stages + 1)
    )
    return tuple(
        schedule.counts((*plan, *(schedule.leash_calls(plan) if method.leash else ())))
        for plan in plans
    )


def _alignprop(method: AlignProp) -> _Counts:
    """Step i of T is attached with probability (i + 1) / (T + 1), the last one if no other is."""
    steps = method.steps
    if method.cut == "fixed":
        cut = steps - 1 if method.cut_step is None else method.cut_step
        return steps - cut, cut
    if method.cut == "per_batch":
        return (steps + 1) / 2, (steps - 1) / 2
    chances = [(step + 1) / (steps + 1) for step in range(steps)]
    none_attached = math.prod(1 - chance for chance in chances)
    attached = math.fsum(chances) + none_attached
    return attached, steps - attached


def _drtune(method: DRTune) -> _Counts:
    """The mean over all starts and stops, which are drawn independently and equally often.

    Step n of the T that are counted down to 1 is made if the stop, drawn from 1 to m, is not above
    it: with probability min(n, m) / m.
    """
    steps, trained, last = method.steps, method.trained_steps, method.early_stop
    if not last:
        return trained, steps - trained
    starts = range(1, schedule.drtune_starts(steps, trained) + 1)
    attached = fmean(
        math.fsum(min(n, last) / last for n in schedule.drtune_steps(steps, trained, start))
        for start in starts
    )
    made = steps - (last + 1) / 2 + 1
    return attached, made - attached


def _updates_of_stages(spec: AlignSpec, stages: int) -> tuple[int | None, ...]:
    updates = spec.method.updates
    if updates is None:
        return (None,) * stages
    shares = spec.method.stage_shares if isinstance(spec.method, ShortFT) else None
    if stages == 1 or shares is None:
        return (updates,)
    starts = (*stage_starts(shares, updates), updates)
    return tuple(stop - start for start, stop in pairwise(starts))


def _total(
    updates: Sequence[int | None], per_image: Sequence[_Counts], images_per_update: int
) -> Evaluations | None:
    known = [length for length in updates if length is not None]
    if len(known) < len(updates):
        return None
    pairs = list(zip(known, per_image, strict=True))
    return Evaluations(
        with_gradient=images_per_update * math.fsum(n * attached for n, (attached, _) in pairs),
        without_gradient=images_per_update * math.fsum(n * cut for n, (_, cut) in pairs),
    )


def _evaluations(counts: _Counts) -> Evaluations:
    return Evaluations(with_gradient=counts[0], without_gradient=counts[1])


def _is_exact(spec: AlignSpec) -> bool:
    """A mean is exact; what the run decides by itself is not."""
    method = spec.method
    return not isinstance(method, ShortFT) or (
        method.stage_switch == "shares" and method.prefix_pool == 0
    )
