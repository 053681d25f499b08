"""Latents before the gradient starts, kept because later stages never change them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shortft_core.denoise import Denoising
from shortft_core.methods import Batch
from shortft_core.schedule import Plan


class Prefixes:
    """The latents of each (prompt, seed) at the furthest point that was asked for.

    Only right while every branch of the prefix is frozen. A later stage continues from where the
    earlier one stopped, which gives the same bits as starting over in the same batches.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[int, Tensor]] = {}

    @torch.no_grad()
    def latents(
        self, prefix: Plan, batch: Batch, rolling: Callable[[Plan], Denoising]
    ) -> tuple[Tensor, int]:
        """Latents [B, C, h, w] after the prefix, and the calls per image it took to get there.

        `rolling` gives what runs a plan; it is asked for no more than what is not known yet.
        """
        keys = tuple(zip(batch.prompts, batch.seeds, strict=True))
        known = [self._known.get(key) for key in keys]
        starts = {0 if entry is None else entry[0] for entry in known}
        start = starts.pop() if len(starts) == 1 else 0
        denoising = rolling(prefix[start:])
        if start:
            latents = torch.stack([entry[1] for entry in known if entry is not None])
        else:
            latents = denoising.start(batch.seeds)
        latents = denoising.run(prefix[start:], latents, batch.prompts, batch.seeds)
        for key, image in zip(keys, latents, strict=True):
            self._known[key] = (len(prefix), image)
        return latents, len(prefix) - start
