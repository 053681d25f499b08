"""Stored trajectories of the base model on its guided chain: the only data that a jump learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from shortft_core.artifacts import atomic_file
from shortft_core.errors import ArtifactError
from shortft_core.models import DiffusionModel
from shortft_core.sampling import ddim_step, derive_seed, initial_latents
from shortft_core.schedule import CLEAN
from shortft_core.spec.common import Spec, identity

_STATES = "states"


class Recording(Spec):
    """Everything that stored trajectories depend on; trajectory i follows from it and i alone."""

    base_sha256: str
    """Fingerprint of the base model."""
    timesteps: tuple[int, ...]
    """The DDIM grid, first step first."""
    guidance_scale: float
    """Classifier-free guidance of the chain, which a jump absorbs."""
    prompts_sha256: str
    """Identity of the prompt list."""
    seed: int
    role: str
    """What the trajectories are for; each role has seeds of its own."""
    kept: tuple[int, ...]
    """Times whose states are stored, noisiest first; CLEAN is the end of the chain."""

    def sha256(self) -> str:
        """Identity: the header of every stored chunk carries it."""
        return identity(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorder:
    """Runs the base model on its full chain and keeps the states, a chunk of trajectories a file.

    Chunks are atomic and independent: a stopped recording resumes, several processes may share one.
    """

    model: DiffusionModel
    prompts: Sequence[str]
    recording: Recording
    folder: Path
    batch_size: int

    def missing(self, count: int) -> list[int]:
        """First trajectory of each chunk of the first `count` trajectories that is not stored."""
        return [n for n in range(0, count, self.batch_size) if not self._path(n).exists()]

    def record(self, first: int, count: int) -> Path:
        """Stores trajectories `first` to `first + batch_size - 1`, or up to `count`."""
        numbers = range(first, min(first + self.batch_size, count))
        states = self._states(numbers).to("cpu", torch.float16).contiguous()
        header = {"recording": self.recording.sha256(), "first": str(first)}
        with atomic_file(self._path(first)) as file:
            file.write(save({_STATES: states}, metadata=header))
        return self._path(first)

    def prompt(self, number: int) -> str:
        """The prompt of a trajectory: the list in turn, with other noise in every round."""
        return self.prompts[number % len(self.prompts)]

    def seed(self, number: int) -> int:
        """The seed of a trajectory's first noise."""
        return derive_seed(self.recording.seed, self.recording.role, number)

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:06d}.safetensors"

    @torch.no_grad()
    def _states(self, numbers: Sequence[int]) -> Tensor:
        """Kept states [B, times, C, h, w] of the explicit guided DDIM chain."""
        model, kept = self.model, set(self.recording.kept)
        conditioning = model.encode_prompts([self.prompt(number) for number in numbers])
        shape = model.latent_shape(model.image_size, model.image_size)
        latents = initial_latents([self.seed(number) for number in numbers], shape)
        precision = torch.promote_types(next(model.denoiser.parameters()).dtype, torch.float32)
        latents = latents.to(model.device, precision)
        states = []
        for t, s in pairwise((*self.recording.timesteps, CLEAN)):
            if t in kept:
                states.append(latents)
            noise_prediction = model.predict_noise(
                latents, t, conditioning, self.recording.guidance_scale
            )
            latents = ddim_step(latents, noise_prediction, t, s, model.alphas_cumprod)
        return torch.stack([*states, latents] if CLEAN in kept else states, dim=1)


def record_all(
    recorder: Recorder, count: int, *, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[int]:
    """Stores what is missing of the first `count` trajectories; yields how many are stored."""
    missing = recorder.missing(count)
    for position, first in enumerate(missing, start=1):
        if should_stop():
            return
        recorder.record(first, count)
        left = sum(min(recorder.batch_size, count - n) for n in missing[position:])
        yield count - left


def load_states(folder: Path, recording: Recording, times: Sequence[int], count: int) -> Tensor:
    """States [count, times, C, h, w] in fp16 of the first `count` trajectories, in order.

    Raises ArtifactError if one is missing or a chunk belongs to another recording.
    """
    columns = [recording.kept.index(time) for time in times]
    parts: list[Tensor] = []
    stored = 0
    for path in sorted(folder.glob("*.safetensors")):
        if stored >= count:
            break
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("recording") != recording.sha256():
                raise ArtifactError(f"{path} belongs to another recording")
            if header["first"] != str(stored):
                break
            parts.append(file.get_tensor(_STATES)[:, columns].clone())
        stored += len(parts[-1])
    if stored < count:
        raise ArtifactError(f"{folder} holds {stored} of {count} trajectories in a row")
    return torch.cat(parts)[:count]
