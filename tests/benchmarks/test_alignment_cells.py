"""The order of the cells, and that no choice is made on what the tables show."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.alignment.cells import (
    FULL,
    HELD_OUT_JUDGES,
    HELD_OUT_PROMPTS,
    LEARNING_RATES,
    SEEDS,
    SETTINGS,
    SWEEP_SEED,
    UNTUNED,
    VARIANTS,
    Cell,
    spec_of,
    sweep_cells,
    table_cells,
)
from shortft_core import catalog, prompts


def test_a_setting_is_finished_before_the_next_begins_the_base_first() -> None:
    size = len(UNTUNED) + len(SEEDS) * len(VARIANTS)
    for number, setting in enumerate(("symmetry_reg", "hps", "symmetry")):
        cells = table_cells()[number * size : (number + 1) * size]
        assert {cell.setting for cell in cells} == {setting}
        assert [cell.is_untuned for cell in cells] == sorted(c.is_untuned for c in cells)[::-1]
        tuned = [cell.seed for cell in cells if not cell.is_untuned]
        assert tuned == [seed for seed in SEEDS for _ in VARIANTS]


def test_every_cell_is_there_once() -> None:
    assert len({cell.name for cell in table_cells()}) == len(SETTINGS) * (
        len(UNTUNED) + len(VARIANTS) * len(SEEDS)
    )
    tried = Counter(cell.variant for cell in sweep_cells())
    assert tried == dict.fromkeys(VARIANTS, len(LEARNING_RATES))


def test_curve_sweep_and_table_look_at_other_prompts() -> None:
    known = prompts.load(HELD_OUT_PROMPTS).prompts
    curve = set(known[: FULL.curve_prompts])
    sweep, table = (set(known[FULL.final_slice(sweep=flag)]) for flag in (True, False))
    assert len(curve) + len(sweep) + len(table) == len(curve | sweep | table)
    assert (len(sweep), len(table)) == (FULL.final_prompts, FULL.final_prompts)
    assert SWEEP_SEED not in SEEDS


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_guarding_judge_shares_weights_with_the_objective(setting: str) -> None:
    optimized = {
        name
        for term in SETTINGS[setting]
        for name in (term.name, *catalog.REWARDS[term.name].preset)
    }
    weights = [catalog.REWARDS[name].weights.get("shapes") for name in optimized]
    for judge in set(HELD_OUT_JUDGES[setting]) - {catalog.ORACLE}:
        assert catalog.REWARDS[judge].weights["shapes"] not in weights


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_job_with_its_points(variant: str) -> None:
    spec = catalog.resolve(spec_of(Cell("symmetry_reg", variant, 1), 87, 2e-3))
    assert (spec.method.updates, spec.method.learning_rate) == (87, 2e-3)
    every = spec.evaluation.every_updates
    assert len({*range(every, 88, every), 87}) == FULL.curve_points
    assert (spec.method.rank, spec.method.batch_size, spec.method.warmup_updates) == (16, 4, 5)
