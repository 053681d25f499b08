"""The only definition of a job."""

from shortft_core.spec.common import PromptSource, Source, Spec
from shortft_core.spec.job import AlignSpec, Evaluation, Guard
from shortft_core.spec.methods import AnyMethod, DraftK, Method
from shortft_core.spec.rewards import AnyReward, RewardTerm

__all__ = [
    "AlignSpec",
    "AnyMethod",
    "AnyReward",
    "DraftK",
    "Evaluation",
    "Guard",
    "Method",
    "PromptSource",
    "RewardTerm",
    "Source",
    "Spec",
]
