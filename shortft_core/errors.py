"""Every exception this project raises on purpose.

To add one: derive it from the nearest class here, pass every constructor argument on to
`super().__init__` (so it survives pickling between processes), and describe when it is raised.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ShortFTError(Exception):
    """Root of all errors of this project."""


class UserError(ShortFTError, ValueError):
    """Something a user wrote cannot be used; names the field and the remedy."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(field, problem, remedy)
        self.field = field
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}. {self.remedy}."


class UnknownNameError(UserError):
    """A name that no table of the catalog holds; lists the nearest known names."""

    def __init__(self, field: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        near = difflib.get_close_matches(name, self.known, n=3, cutoff=0.4)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "Use one of the known names"
        super().__init__(
            field, f"unknown name {name!r}", f"{remedy} (known: {', '.join(self.known)})"
        )

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...]]]:
        return type(self), (self.field, self.name, self.known)


class PlanError(UserError):
    """No legal chain exists for these steps, segments and shortcut borders."""


class PromptError(UserError):
    """A prompt set cannot be read, or holds no usable prompt."""


class WeightsError(UserError):
    """A model folder or checkpoint is not what its loader needs (layout, keys, values)."""


class MissingWeightsError(WeightsError):
    """A file is neither on this machine nor reachable; names the file."""


class ArtifactError(ShortFTError):
    """A stored artifact or checkpoint is torn, changed or belongs to something else."""


class StoppedError(ShortFTError):
    """A run was told to stop while it evaluated; what it had of the evaluation is dropped."""


class DivergedError(ShortFTError, ArithmeticError):
    """A loss, gradient or merged weight is not finite; raised before it is used."""
