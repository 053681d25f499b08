"""The pairs of the paper's chain, and the noise that makes a jump exact."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shortft_core.distil.jumps import (
    Pairs,
    exact_noise,
    jumps_of,
    kept_times,
    recorded_grid,
    shortened_chain,
)
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.sampling import ddim_step
from shortft_core.schedule import CLEAN, ddim_grid
from shortft_core.spec.distil import DistilSpec

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0)


@pytest.mark.parametrize(
    ("segments", "few_step", "expected"),
    [
        (4, False, ((741, 501), (481, 261), (241, 1))),
        (2, False, ((481, 1),)),
        (4, True, ((981, 741), (741, 481), (481, 241), (241, CLEAN))),
    ],
)
def test_jumps_of_50_steps(
    load_tiny: Callable[..., StableDiffusion],
    tiny_spec: Callable[..., DistilSpec],
    segments: int,
    expected: tuple[tuple[int, int], ...],
    *,
    few_step: bool,
) -> None:
    spec = tiny_spec(steps=50, segments=segments, few_step=few_step)
    model = load_tiny()
    assert jumps_of(spec, model) == expected
    chain = [(e.timestep, e.next_timestep) for e in shortened_chain(spec, model)]
    assert set(expected) <= set(chain)
    assert chain[-1][1] == CLEAN


def test_only_what_the_jumps_need_is_kept() -> None:
    assert kept_times([(741, 501), (241, 1)]) == (741, 501, 241, 1, CLEAN)
    assert kept_times([(981, 481), (481, CLEAN)]) == (981, 481, CLEAN)


@given(st.integers(1, 999), st.data())
def test_the_exact_noise_lands_on_the_end(t: int, data: st.DataObject) -> None:
    s = data.draw(st.integers(0, t - 1))
    generator = torch.Generator().manual_seed(t)
    start, end = torch.randn(2, 1, 4, 2, 2, generator=generator).double()
    noise = exact_noise(start, end, (t, s), ALPHAS)
    assert torch.allclose(ddim_step(start, noise, t, s, ALPHAS), end, atol=1e-8)


def test_its_error_is_that_of_the_end_over_the_coefficient_of_the_noise() -> None:
    start, end = torch.randn(2, 1, 4, 2, 2).double()
    noise = exact_noise(start, end, (741, 501), ALPHAS)
    moved = ddim_step(start, noise + 0.1, 741, 501, ALPHAS)
    # -1.218 is the coefficient of the noise that diffusers' step has for this pair.
    assert (moved - end).mean().item() == pytest.approx(-0.1218, abs=1e-4)


def test_pairs_pick_rows_and_times() -> None:
    states = torch.arange(12, dtype=torch.float16).reshape(3, 4, 1, 1, 1)
    pairs = Pairs(states=states, times=(741, 501, 241, 1), prompt=str, alphas_cumprod=ALPHAS)
    assert pairs.at([2, 0], 501).flatten().tolist() == [9.0, 1.0]
    assert pairs.prompts([2, 0]) == ["2", "0"]
    noise = pairs.noise([1], (241, 1))
    landed = ddim_step(pairs.at([1], 241), noise, 241, 1, ALPHAS)
    assert landed.item() == pytest.approx(7.0, abs=1e-5)


def test_a_coarse_grid_still_stops_at_every_end_of_a_jump() -> None:
    grid, times = ddim_grid(50), (741, 501, 481, 261, 241, 1, CLEAN)
    assert recorded_grid(grid, times) == grid
    coarse = recorded_grid(grid, times, 3)
    assert coarse[:6] == (981, 921, 861, 801, 741, 681)
    assert coarse[8:10] == (501, 481)
    assert coarse[-1] == 1
    assert len(coarse) == 19


@given(st.integers(2, 60), st.integers(1, 9), st.data())
def test_a_coarse_grid_is_a_part_of_the_grid_that_begins_where_it_begins(
    steps: int, stride: int, data: st.DataObject
) -> None:
    grid = ddim_grid(steps)
    times = data.draw(st.lists(st.sampled_from((*grid, CLEAN)), min_size=1))
    coarse = recorded_grid(grid, times, stride)
    assert coarse == tuple(t for t in grid if t in set(coarse))
    assert {grid[0], *times} - {CLEAN} <= set(coarse)
    indices = [grid.index(t) for t in coarse]
    assert all(0 < b - a <= stride for a, b in pairwise((*indices, steps)))
