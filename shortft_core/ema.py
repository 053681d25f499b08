"""Exponential moving average of the branches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages a <- d a + (1 - d) w after each update; with decay 0 it is the weights.

    The decay warms up as (1 + n) / (10 + n), or the average would hold the untrained start for as
    long as a short run lasts.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.averages = [p.detach().clone() for p in self.parameters] if decay else []

    @torch.no_grad()
    def update(self, done: int) -> None:
        """Moves the averages one update on, after `done` earlier ones."""
        decay = min(self.decay, (1 + done) / (10 + done))
        for average, parameter in self._pairs():
            average.lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters hold the averages inside the block, and their own values after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def freeze(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gives these parameters their averages for good."""
        frozen = {id(parameter) for parameter in parameters}
        for average, parameter in self._pairs():
            if id(parameter) in frozen:
                parameter.copy_(average)

    def _swap(self) -> None:
        for index, parameter in enumerate(self.parameters if self.decay else ()):
            own = parameter.data
            parameter.data, self.averages[index] = self.averages[index], own

    def _pairs(self) -> Iterator[tuple[Tensor, nn.Parameter]]:
        return zip(self.averages, self.parameters if self.decay else (), strict=True)
