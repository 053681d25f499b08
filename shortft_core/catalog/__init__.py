"""Everything a specification may name, in readable tables; nothing is imported until it is used."""

from shortft_core.catalog.entries import (
    BaseModel,
    MethodEntry,
    Reward,
    ShortcutEntry,
    Weights,
)
from shortft_core.catalog.method_defaults import resolve_method, tuning, with_preset
from shortft_core.catalog.resolve import (
    find,
    load,
    resolve,
    resolve_distil,
    resolve_job,
    resolve_reward,
    source_names,
)
from shortft_core.catalog.shortcuts import (
    SHORTCUTS,
    check_shortcut,
    shortcut_borders,
)
from shortft_core.catalog.tables import (
    BASE_MODELS,
    DEFAULT_JUDGES,
    DEFAULT_TUNING,
    DEFAULT_UPDATES,
    METHODS,
    MODEL_FAMILIES,
    ORACLE,
    ORACLE_TARGET,
    PRESETS,
    PROMPT_SETS,
    REWARDS,
)

__all__ = [
    "BASE_MODELS",
    "DEFAULT_JUDGES",
    "DEFAULT_TUNING",
    "DEFAULT_UPDATES",
    "METHODS",
    "MODEL_FAMILIES",
    "ORACLE",
    "ORACLE_TARGET",
    "PRESETS",
    "PROMPT_SETS",
    "REWARDS",
    "SHORTCUTS",
    "BaseModel",
    "MethodEntry",
    "Reward",
    "ShortcutEntry",
    "Weights",
    "check_shortcut",
    "find",
    "load",
    "resolve",
    "resolve_distil",
    "resolve_job",
    "resolve_method",
    "resolve_reward",
    "shortcut_borders",
    "source_names",
    "tuning",
    "with_preset",
]
