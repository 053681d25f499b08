"""The only definition of a job."""

from shortft_core.spec.common import PromptSource, Source, Spec, resolved
from shortft_core.spec.distil import DistilSpec
from shortft_core.spec.job import AlignSpec, Evaluation, Guard, JobSpec
from shortft_core.spec.methods import (
    AlignProp,
    AnyMethod,
    Direct,
    DraftK,
    DraftLV,
    DRTune,
    Method,
    ReFL,
    ShortFT,
)
from shortft_core.spec.rewards import AnyReward, RewardTerm

__all__ = [
    "AlignProp",
    "AlignSpec",
    "AnyMethod",
    "AnyReward",
    "DRTune",
    "Direct",
    "DistilSpec",
    "DraftK",
    "DraftLV",
    "Evaluation",
    "Guard",
    "JobSpec",
    "Method",
    "PromptSource",
    "ReFL",
    "RewardTerm",
    "ShortFT",
    "Source",
    "Spec",
    "resolved",
]
