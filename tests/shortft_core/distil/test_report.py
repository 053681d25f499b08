"""The report against cases whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from shortft_core import rewards
from shortft_core.distil.jumps import Pairs, jumps_of, kept_times, shortened_chain
from shortft_core.distil.report import COLUMNS, SIDE, Examiner, comparison
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.rewards import Composite
from shortft_core.sampling import ddim_step, initial_latents
from shortft_core.schedule import CLEAN
from shortft_core.spec.distil import DistilSpec
from shortft_core.spec.rewards import reward_term

MakeExaminer = Callable[..., Examiner]
PROMPTS = ("a red circle", "a blue star", "a red star")


@pytest.fixture
def reward() -> Composite:
    terms = (reward_term("brightness"), reward_term("symmetry"))
    return rewards.build(terms, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def examiner(
    load_tiny: Callable[..., StableDiffusion], tiny_spec: Callable[..., DistilSpec]
) -> MakeExaminer:
    """Held-out states that are made with unguided jumps of the base: it is then a perfect student.

    The student may be handed another prediction through `student`.
    """

    def make(*, few_step: bool = False) -> Examiner:
        spec, base = tiny_spec(few_step=few_step), load_tiny()
        jumps, chain = jumps_of(spec, base), shortened_chain(spec, base)
        times = kept_times(jumps)
        states = [initial_latents([1, 2, 3], (4, 8, 8))]
        conditioning = base.encode_prompts(PROMPTS)
        for t, s in pairwise(times):
            scale = 1.0 if (t, s) in jumps else 3.0
            with torch.no_grad():
                noise = base.predict_noise(states[-1], t, conditioning, scale)
            states.append(ddim_step(states[-1], noise, t, s, base.alphas_cumprod))
        return Examiner(
            base=base,
            student=base,
            chain=chain,
            jumps=jumps,
            guidance_scale=3.0,
            pairs=Pairs(
                states=torch.stack(states, dim=1),
                times=times,
                prompt=lambda row: PROMPTS[row],
                alphas_cumprod=base.alphas_cumprod,
            ),
            batch_size=2,
        )

    return make


@pytest.mark.parametrize("few_step", [False, True])
def test_a_perfect_student_has_no_error(
    examiner: MakeExaminer, reward: Composite, *, few_step: bool
) -> None:
    made = examiner(few_step=few_step)
    report, picture = made.report(reward)
    assert report.trajectories == 3
    assert report.rms_ratio < 1e-5
    assert report.image_rmse < 1e-5
    assert report.naive_image_rmse > 1e-4
    assert report.rewards.keys() == {"brightness", "symmetry"}
    assert all(abs(score.shift) < 1e-3 for score in report.rewards.values())
    assert report.missed_goals() == ()
    assert picture.size == (3 * SIDE, 3 * SIDE)


def test_errors_are_those_of_the_states(examiner: MakeExaminer, reward: Composite) -> None:
    made = examiner()
    (jump,) = made.jumps
    rows = range(3)
    conditioning = made.base.encode_prompts(PROMPTS)
    start, end = made.pairs.at(rows, jump[0]), made.pairs.at(rows, jump[1])

    def error(scale: float) -> Tensor:
        with torch.no_grad():
            noise = made.base.predict_noise(start, jump[0], conditioning, scale)
        return ddim_step(start, noise, *jump, made.base.alphas_cumprod) - end

    (found,) = made.report(reward)[0].jumps
    assert found.guided_naive_rmse == pytest.approx(error(3.0).square().mean().sqrt().item())
    assert found.unguided_naive_rmse == pytest.approx(0.0, abs=1e-6)
    assert (found.timestep, found.next_timestep) == jump


def test_the_full_chain_is_the_stored_end(examiner: MakeExaminer, reward: Composite) -> None:
    made = examiner()
    ends = made.pairs.at(range(3), CLEAN)
    images = made.base.decode(ends).clamp(0, 1)
    expected = reward.terms(images, PROMPTS, exact=True)["brightness"]
    found = made.report(reward)[0].rewards["brightness"]
    assert found.full_mean == pytest.approx(expected.mean().item(), abs=1e-6)
    assert found.full_std == pytest.approx(expected.std(correction=0).item(), abs=1e-6)


def test_the_comparison_shows_each_chain_in_a_row() -> None:
    black, white = torch.zeros(20, 3, 16, 16), torch.ones(20, 3, 16, 16)
    sheet = comparison((black, white))
    assert sheet.size == (COLUMNS * SIDE, 2 * SIDE)
    assert sheet.getpixel((SIDE // 2, SIDE // 2)) == (0, 0, 0)
    assert sheet.getpixel((SIDE // 2, SIDE + SIDE // 2)) == (255, 255, 255)
