"""The acceptance report: jumps against naive jumps, the shortened chain against the full one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from PIL import Image
from torch import Tensor

from shortft_core.distil.jumps import Jump, Pairs
from shortft_core.generate import to_pil
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.sampling import ddim_step, run_chain
from shortft_core.schedule import CLEAN, Evaluation, Plan
from shortft_core.shortcut_card import JumpError, Report, RewardShift

COLUMNS: Final = 8
SIDE: Final = 128
"""Pixels of each picture of the comparison."""

_Predict = Callable[[Tensor, int, Tensor], Tensor]
"""Latents, timestep and conditioning to noise."""


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """Measures a distilled model beside its base on held-out trajectories."""

    base: DiffusionModel
    student: DiffusionModel
    chain: Plan
    jumps: Sequence[Jump]
    guidance_scale: float
    pairs: Pairs
    batch_size: int

    def report(self, reward: Composite) -> tuple[Report, Image.Image]:
        """The figures, and rows of pictures: full chain, shortened chain, naive jumps."""
        full = self._decode(self._end_states())
        shortened = self._decode(self._shortened(self._distilled))
        naive = self._decode(self._shortened(self._guided))
        scores = [self._scores(reward, images) for images in (full, shortened, naive)]
        figures = Report(
            trajectories=len(self.pairs.states),
            jumps=tuple(self._error(jump) for jump in self.jumps),
            image_rmse=_rms(shortened - full),
            naive_image_rmse=_rms(naive - full),
            rewards={
                name: RewardShift(
                    full_mean=scores[0][name].mean().item(),
                    full_std=scores[0][name].std(correction=0).item(),
                    shortened_mean=scores[1][name].mean().item(),
                    naive_mean=scores[2][name].mean().item(),
                )
                for name in scores[0]
            },
        )
        return figures, comparison((full, shortened, naive))

    def _distilled(self, latents: Tensor, timestep: int, conditioning: Tensor) -> Tensor:
        return self.student.predict_noise(latents, timestep, conditioning, 1.0)

    def _guided(self, latents: Tensor, timestep: int, conditioning: Tensor) -> Tensor:
        return self.base.predict_noise(latents, timestep, conditioning, self.guidance_scale)

    def _unguided(self, latents: Tensor, timestep: int, conditioning: Tensor) -> Tensor:
        return self.base.predict_noise(latents, timestep, conditioning, 1.0)

    def _error(self, jump: Jump) -> JumpError:
        return JumpError(
            timestep=jump[0],
            next_timestep=jump[1],
            rmse=self._rmse(jump, self._distilled),
            guided_naive_rmse=self._rmse(jump, self._guided),
            unguided_naive_rmse=self._rmse(jump, self._unguided),
        )

    @torch.no_grad()
    def _rmse(self, jump: Jump, predict: _Predict) -> float:
        errors = []
        for rows in self._batches():
            start = self.pairs.at(rows, jump[0]).to(self.base.device)
            conditioning = self.base.encode_prompts(self.pairs.prompts(rows))
            noise_prediction = predict(start, jump[0], conditioning)
            end = ddim_step(start, noise_prediction, *jump, self.base.alphas_cumprod)
            errors.append(end.cpu() - self.pairs.at(rows, jump[1]))
        return _rms(torch.cat(errors))

    @torch.no_grad()
    def _shortened(self, predict_jump: _Predict) -> Tensor:
        """Clean latents of the chain from the first jump on, with these jumps."""
        first = next(i for i, e in enumerate(self.chain) if self._is_jump(e))
        tail, parts = self.chain[first:], []
        for rows in self._batches():
            conditioning = self.base.encode_prompts(self.pairs.prompts(rows))

            def predict(
                latents: Tensor, evaluation: Evaluation, conditioning: Tensor = conditioning
            ) -> Tensor:
                call = predict_jump if self._is_jump(evaluation) else self._guided
                return call(latents, evaluation.timestep, conditioning)

            start = self.pairs.at(rows, tail[0].timestep).to(self.base.device)
            parts.append(run_chain(tail, start, predict, self.base.alphas_cumprod).cpu())
        return torch.cat(parts)

    def _is_jump(self, evaluation: Evaluation) -> bool:
        return (evaluation.timestep, evaluation.next_timestep) in self.jumps

    def _end_states(self) -> Tensor:
        return self.pairs.at(range(len(self.pairs.states)), CLEAN)

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> Tensor:
        parts = [
            self.base.decode(latents[list(rows)].to(self.base.device)).clamp(0, 1).cpu()
            for rows in self._batches()
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def _scores(self, reward: Composite, images: Tensor) -> dict[str, Tensor]:
        parts = [
            reward.terms(
                images[list(rows)].to(self.base.device), self.pairs.prompts(rows), exact=True
            )
            for rows in self._batches()
        ]
        return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}

    def _batches(self) -> Iterator[range]:
        count = len(self.pairs.states)
        for start in range(0, count, self.batch_size):
            yield range(start, min(start + self.batch_size, count))


def comparison(rows: Sequence[Tensor]) -> Image.Image:
    """One row of pictures per chain, the same prompt and seed in each column."""
    columns = min(COLUMNS, len(rows[0]))
    sheet = Image.new("RGB", (columns * SIDE, len(rows) * SIDE))
    for row, images in enumerate(rows):
        for column, picture in enumerate(to_pil(images[:columns])):
            resized = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(resized, (column * SIDE, row * SIDE))
    return sheet


def _rms(errors: Tensor) -> float:
    return errors.square().mean().sqrt().item()
