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


def test_the_base_comes_first_then_seed_by_seed() -> None:
    cells = table_cells()
    untuned, tuned = cells[: len(SETTINGS) * len(UNTUNED)], cells[len(SETTINGS) * len(UNTUNED) :]
    assert all(cell.is_untuned for cell in untuned)
    assert [cell.seed for cell in tuned] == sorted(cell.seed for cell in tuned)
    first = [cell.setting for cell in tuned[: len(SETTINGS) * len(VARIANTS)]]
    expected = [s for s in ("symmetry_reg", "hps", "symmetry") for _ in VARIANTS]
    assert first == expected


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
