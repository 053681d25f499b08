"""What is compared: settings, variants, and the order in which their cells are worked off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.results import RESULTS, STATE
from shortft_core.spec import (
    AlignProp,
    AlignSpec,
    AnyMethod,
    AnyReward,
    Direct,
    DraftLV,
    DRTune,
    Evaluation,
    PromptSource,
    ReFL,
    ShortFT,
    Source,
)
from shortft_core.spec.rewards import HPSv2, Preference, Symmetry

SETTINGS: Final[Mapping[str, tuple[AnyReward, ...]]] = {
    "symmetry_reg": (Symmetry(), Preference(weight=0.1)),
    "hps": (HPSv2(),),
    "symmetry": (Symmetry(),),
}
"""What is maximized: symmetry beside the paper's regularizer, a preference model, and symmetry
alone, which is what reward hacking looks like."""

PREFIX_POOL: Final = 32
SHARES: Final = (0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3)
_COMMON: Final[Mapping[str, Any]] = {
    "rank": 16,
    "batch_size": 4,
    "warmup_updates": 5,
    "checkpoint_every": 20,
    "merged_rollouts": True,
}
VARIANTS: Final[Mapping[str, AnyMethod]] = {
    "draft_lv": DraftLV(**_COMMON),
    "drtune": DRTune(trained_steps=5, **_COMMON),
    # Checkpointing trades time for memory, and here only time is scarce.
    "alignprop": AlignProp(gradient_checkpointing=False, **_COMMON),
    "refl": ReFL(**_COMMON),
    "direct": Direct(**_COMMON),
    "shortft": ShortFT(stage_shares=SHARES, prefix_pool=PREFIX_POOL, **_COMMON),
    "shortft_no_tlora": ShortFT(stage_shares=SHARES, ablation="no_tlora", **_COMMON),
    "shortft_no_progressive": ShortFT(stage_shares=SHARES, ablation="no_progressive", **_COMMON),
}
UNTUNED: Final = ("base", "few_step")
"""The base model on the full chain, and the few-step model that `direct` tunes."""
BUDGET_VARIANT: Final = "shortft"
BUDGET_UPDATES: Final = 150
"""Every variant gets the seconds that ShortFT needs for this many updates."""
SEEDS: Final = (0, 1, 2)

SWEEP_SETTING: Final = "symmetry_reg"
SWEEP_SEED: Final = 100
SWEEP_SHARE: Final = 1 / 3
"""Share of the budget that a run of the sweep gets."""
LEARNING_RATES: Final = (3e-4, 1e-3, 3e-3)

BASE_MODEL: Final = Source(name="shapes")
TRAINING_PROMPTS: Final = PromptSource(name="shapes-train")
HELD_OUT_PROMPTS: Final = PromptSource(name="shapes-eval")
HELD_OUT_JUDGES: Final[Mapping[str, tuple[str, ...]]] = {
    # Here `clipscore` has the same weights as `pickscore`, which the regularizer optimizes.
    "symmetry_reg": ("oracle",),
    "hps": ("clipscore", "oracle"),
    "symmetry": ("clipscore", "oracle"),
}
"""What the guard watches in each setting: judges that it does not optimize."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a cell looks at; the prompts of the curve, the sweep and the table differ."""

    curve_points: int = 3
    curve_prompts: int = 8
    final_prompts: int = 16
    final_seeds: int = 2
    pictured_prompts: int = 6

    def final_slice(self, *, sweep: bool) -> slice:
        """Which held-out prompts the final evaluation takes: the sweep never sees the table's."""
        first = self.curve_prompts + (self.final_prompts if sweep else 0)
        return slice(first, first + self.final_prompts)


FULL: Final = Scale()


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the comparison."""

    setting: str
    variant: str
    seed: int
    learning_rate: float | None = None
    """Given in the sweep; the cells of the table take what the sweep has chosen."""
    scale: Scale = field(default=FULL, compare=False)

    @property
    def is_sweep(self) -> bool:
        """Whether it serves to choose a learning rate."""
        return self.learning_rate is not None

    @property
    def is_untuned(self) -> bool:
        """Whether it only looks at a model as it is."""
        return self.variant in UNTUNED

    @property
    def name(self) -> str:
        """Unique, and a file name."""
        rate = f"-{self.learning_rate:g}" if self.is_sweep else ""
        return f"{self.setting}-{self.variant}-{self.seed}{rate}"

    @property
    def budget_share(self) -> float:
        """Share of the budget."""
        return SWEEP_SHARE if self.is_sweep else 1.0


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the comparison keeps its records and its unfinished runs."""

    results: Path = RESULTS / "alignment"
    state: Path = STATE / "alignment"

    def record(self, cell: Cell) -> Path:
        """What a finished cell found; committed."""
        return self.results / ("sweep" if cell.is_sweep else "cells") / f"{cell.name}.json"

    def run(self, cell: Cell) -> Path:
        """The cell's run folder, its log, its lock and its pictures."""
        return self.state / cell.name

    @property
    def calibration(self) -> Path:
        """Seconds per update of every variant."""
        return self.results / "calibration.csv"

    @property
    def sweep(self) -> Path:
        """The learning rates that were tried, and those that were chosen."""
        return self.results / "sweep.csv"


def table_cells() -> list[Cell]:
    """One setting after the other, all variants of a seed together: one seed alone says little."""
    return [
        cell
        for setting in SETTINGS
        for cell in (
            *(Cell(setting, variant, 0) for variant in UNTUNED),
            *(Cell(setting, variant, seed) for seed in SEEDS for variant in VARIANTS),
        )
    ]


def sweep_cells() -> list[Cell]:
    """Every learning rate of every variant on one setting, the middle one of all first."""
    middle = LEARNING_RATES[len(LEARNING_RATES) // 2]
    rates = sorted(LEARNING_RATES, key=lambda rate: rate != middle)
    return [
        Cell(SWEEP_SETTING, variant, SWEEP_SEED, rate) for rate in rates for variant in VARIANTS
    ]


def spec_of(cell: Cell, updates: int, learning_rate: float) -> AlignSpec:
    """The job of a cell that tunes."""
    points = 1 if cell.is_sweep else cell.scale.curve_points
    method = VARIANTS[cell.variant].model_copy(
        update={"updates": updates, "learning_rate": learning_rate}
    )
    return AlignSpec(
        base_model=BASE_MODEL,
        method=method,
        rewards=SETTINGS[cell.setting],
        prompts=TRAINING_PROMPTS,
        evaluation=Evaluation(
            prompts=HELD_OUT_PROMPTS,
            count=cell.scale.curve_prompts,
            every_updates=math.ceil(updates / points),
            held_out=HELD_OUT_JUDGES[cell.setting],
        ),
        seed=cell.seed,
        name=cell.name,
    )
