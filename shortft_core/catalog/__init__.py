"""Everything a specification may name, in readable tables; nothing is imported until it is used."""

from shortft_core.catalog.entries import BaseModel, MethodEntry, Reward, Weights
from shortft_core.catalog.resolve import (
    find,
    guidance_scale,
    load,
    resolve,
    resolve_reward,
    source_names,
)
from shortft_core.catalog.tables import (
    BASE_MODELS,
    DEFAULT_GUIDANCE_SCALE,
    DEFAULT_JUDGES,
    DEFAULT_UPDATES,
    METHODS,
    MODEL_FAMILIES,
    ORACLE,
    ORACLE_TARGET,
    PROMPT_SETS,
    REWARDS,
)

__all__ = [
    "BASE_MODELS",
    "DEFAULT_GUIDANCE_SCALE",
    "DEFAULT_JUDGES",
    "DEFAULT_UPDATES",
    "METHODS",
    "MODEL_FAMILIES",
    "ORACLE",
    "ORACLE_TARGET",
    "PROMPT_SETS",
    "REWARDS",
    "BaseModel",
    "MethodEntry",
    "Reward",
    "Weights",
    "find",
    "guidance_scale",
    "load",
    "resolve",
    "resolve_reward",
    "source_names",
]
