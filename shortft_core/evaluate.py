"""The held-out panel: base beside tuned on the same prompts and seeds, scored by every judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Final

import torch
from torch import Tensor

from shortft_core.artifacts import ArtifactStore
from shortft_core.errors import DivergedError, StoppedError
from shortft_core.events import (
    AlertRaised,
    Diversity,
    EvaluationDone,
    EventSink,
    Picture,
    SamplePair,
    SamplesReady,
    Score,
)
from shortft_core.generate import Sampler, png_bytes, to_pil
from shortft_core.rewards import Composite, Reward
from shortft_core.spec import Guard

TARGET: Final = "target"
"""Name of the weighted sum that the job maximizes, among the judges."""
NO_SPREAD: Final = 1e-6
"""Below this a standard deviation in fp32 is rounding, not spread."""
COLLAPSED_DIVERSITY: Final = 0.3
"""Share of the base model's diversity below which the alarm says the images have become one."""


@dataclass(frozen=True)
class Scores:
    """What every judge gave each image of the panel: raw units, [N] per judge."""

    images: Tensor
    judges: Mapping[str, Tensor]

    def mean(self, judge: str) -> float:
        """Mean score of one judge."""
        return self.judges[judge].mean().item()

    def std(self, judge: str) -> float:
        """Standard deviation over the images, 0 for a single one."""
        return self.judges[judge].std(correction=0).item()

    @property
    def diversity(self) -> float:
        """Standard deviation over the panel's images, averaged over pixels."""
        return self.images.std(dim=0, correction=0).mean().item()

    def summary(self) -> dict[str, Score]:
        """Mean and spread of each judge, for the event."""
        return {judge: Score(mean=self.mean(judge), std=self.std(judge)) for judge in self.judges}

    def of(self, index: int) -> dict[str, float]:
        """Every judge's score of one image."""
        return {judge: scores[index].item() for judge, scores in self.judges.items()}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Fixed prompts and seeds, and the judges who see their images."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    reward: Composite
    held_out: Mapping[str, Reward]

    @torch.no_grad()
    def score(self, sampler: Sampler, before_batch: Callable[[], None] = lambda: None) -> Scores:
        """Generates the panel's images and scores them with exact preprocessing.

        `before_batch` may raise, which ends the work.
        """
        images = sampler.images(self.prompts, self.seeds, before_batch=before_batch)
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, len(images), sampler.batch_size):
            before_batch()
            rows = slice(start, start + sampler.batch_size)
            seen = self._judge(images[rows].to(sampler.model.device), self.prompts[rows])
            for judge, scores in seen.items():
                parts.setdefault(judge, []).append(scores.cpu())
        return Scores(images, {judge: torch.cat(scores) for judge, scores in parts.items()})

    def _judge(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        terms = self.reward.terms(images, prompts, exact=True)
        held_out = {
            n: judge.score(images, prompts, exact=True) for n, judge in self.held_out.items()
        }
        return {TARGET: self.reward.weighted_sum(terms), **terms, **held_out}


@dataclass(frozen=True)
class Verdict:
    """What an evaluation means for the run."""

    target: float
    """Mean target reward of the tuned model, raw units."""
    is_best: bool
    alarm: bool


@dataclass(kw_only=True)
class Evaluator:
    """Scores the tuned model on the panel, stores the pictures and guards the held-out judges."""

    panel: Panel
    tuned: Sampler
    guard: Guard
    store: ArtifactStore
    emit: EventSink
    on_best: Callable[[], None] = field(default=lambda: None)
    should_stop: Callable[[], bool] = lambda: False

    @cached_property
    def base(self) -> Scores:
        """The untuned model on the panel, made once; raises StoppedError."""
        plan = tuple(replace(evaluation, branches=()) for evaluation in self.tuned.plan)
        sampler = replace(self.tuned, plan=plan, adapter={})
        scores = self.panel.score(sampler, self._go_on)
        self._store_images("base", scores.images, sampler)
        return scores

    def _go_on(self) -> None:
        if self.should_stop():
            raise StoppedError("told to stop while the panel was scored")

    def prepare(self) -> None:
        """Scores the base model, so that prompts or judges that cannot serve fail at once.

        Raises DivergedError if a judge gives it a score that is not finite, and StoppedError.
        """
        broken = _not_finite(self.base)
        if broken is not None:
            raise DivergedError(f"{broken} gives the base model a score that is not finite")

    def auto_threshold(self) -> float:
        """Two standard deviations above the base model's mean target: nothing beyond counts."""
        return self.base.mean(TARGET) + 2 * self.base.std(TARGET)

    def evaluate(self, update: int, *, best: float | None) -> Verdict:
        """One evaluation: pictures, scores, the alarm, and whether this is the best so far.

        Best is the highest target among those whose held-out mean has not fallen too far. Raises
        StoppedError, before anything of it is told or kept.
        """
        base, tuned = self.base, self.panel.score(self.tuned, self._go_on)
        alerts = self._alerts(update, base, tuned)
        target = tuned.mean(TARGET)
        is_best = not alerts and (best is None or target > best)
        self._store_images(f"{update:06d}", tuned.images, self.tuned)
        self.emit(
            EvaluationDone(
                update=update,
                images=len(tuned.images),
                base=base.summary(),
                tuned=tuned.summary(),
                is_best=is_best,
                diversity=Diversity(base=base.diversity, tuned=tuned.diversity),
            )
        )
        self.emit(SamplesReady(update=update, pairs=self._pairs(update, base, tuned)))
        for alert in alerts:
            self.emit(alert)
        if is_best:
            self.on_best()
        return Verdict(target, is_best, alarm=bool(alerts))

    def _alerts(self, update: int, base: Scores, tuned: Scores) -> list[AlertRaised]:
        alert = partial(AlertRaised, update=update, action=self.guard.action)
        broken = _not_finite(tuned)
        if broken is not None:
            return [alert(kind="nan", judge=broken)]
        drop = held_out_drop(base, tuned, tuple(self.panel.held_out))
        # A panel of one image, or of equal ones, has no diversity to lose.
        share = tuned.diversity / base.diversity if base.diversity > NO_SPREAD else 1.0
        alerts = []
        if drop > self.guard.max_heldout_drop:
            alerts.append(
                alert(
                    kind="reward_divergence",
                    value=drop,
                    limit=self.guard.max_heldout_drop,
                    message="The held-out judges fell: the reward is being hacked",
                )
            )
        if share < COLLAPSED_DIVERSITY:
            alerts.append(
                alert(
                    kind="diversity_collapse",
                    value=share,
                    limit=COLLAPSED_DIVERSITY,
                    message="The images of different prompts have become alike",
                )
            )
        return alerts

    def _pairs(self, update: int, base: Scores, tuned: Scores) -> tuple[SamplePair, ...]:
        return tuple(
            SamplePair(
                prompt=prompt,
                seed=seed,
                base=Picture(key=_key("base", index), scores=base.of(index)),
                tuned=Picture(key=_key(f"{update:06d}", index), scores=tuned.of(index)),
            )
            for index, (prompt, seed) in enumerate(
                zip(self.panel.prompts, self.panel.seeds, strict=True)
            )
        )

    def _store_images(self, folder: str, images: Tensor, sampler: Sampler) -> None:
        rows = zip(to_pil(images), self.panel.prompts, self.panel.seeds, strict=True)
        for index, (picture, prompt, seed) in enumerate(rows):
            provenance = sampler.describe(prompt, seed)
            self.store.write(_key(folder, index), png_bytes(picture, provenance))


def held_out_drop(base: Scores, tuned: Scores, judges: Sequence[str]) -> float:
    """Mean fall of the judges in standard deviations of the base model's scores; 0 without any.

    A judge that gives every base image the same score counts in raw units.
    """
    spreads = {judge: base.std(judge) for judge in judges}
    falls = [
        (base.mean(judge) - tuned.mean(judge)) / (spread if spread > NO_SPREAD else 1.0)
        for judge, spread in spreads.items()
    ]
    return sum(falls) / len(falls) if falls else 0.0


def _not_finite(scores: Scores) -> str | None:
    """The first judge with a score that is NaN or infinite."""
    judges = scores.judges.items()
    return next((name for name, values in judges if not torch.isfinite(values).all()), None)


def _key(folder: str, index: int) -> str:
    return f"samples/{folder}/{index:03d}.png"
