"""When stages begin, for every number of updates, and when a reward has stopped rising."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortft_core.errors import PlanError
from shortft_core.stages import PLATEAU_UPDATES, default_shares, has_plateaued, stage_starts


def test_the_paper_length_of_a_hundred_updates() -> None:
    assert default_shares(4) == (0.55, 0.20, 0.15, 0.10)
    assert stage_starts(default_shares(4), 100) == (0, 55, 75, 90)
    assert stage_starts(default_shares(4), 120) == (0, 66, 90, 108)


@given(st.integers(1, 16))
def test_other_numbers_of_segments_halve_their_shares(segments: int) -> None:
    shares = default_shares(segments)
    assert len(shares) == segments
    assert sum(shares) == pytest.approx(1.0, abs=1e-12)
    if segments != 4:
        assert all(b == pytest.approx(a / 2) for a, b in pairwise(shares))


@given(st.data(), st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8))
def test_every_stage_has_an_update_and_keeps_its_share(
    data: st.DataObject, weights: list[float]
) -> None:
    shares = [weight / sum(weights) for weight in weights]
    updates = data.draw(st.integers(len(shares), 2000))
    starts = stage_starts(shares, updates)
    assert starts[0] == 0
    assert len(starts) == len(shares)
    lengths = [later - earlier for earlier, later in pairwise((*starts, updates))]
    assert min(lengths) >= 1
    if min(shares) * updates >= 2:
        for length, share in zip(lengths, shares, strict=True):
            assert abs(length - share * updates) <= 1 + 1e-6


@given(st.integers(2, 8))
def test_fewer_updates_than_stages_are_refused(segments: int) -> None:
    shares = default_shares(segments)
    assert stage_starts(shares, segments) == tuple(range(segments))
    with pytest.raises(PlanError, match=f"Use at least {segments} updates") as caught:
        stage_starts(shares, segments - 1)
    assert caught.value.field == "method.updates"


@pytest.mark.parametrize(
    ("rewards", "flat"),
    [
        ([1.0] * 20, True),
        ([1.0] * 19, False),
        ([0.0] * 10 + [1.0] * 10, False),
        ([1.0] * 10 + [0.0] * 10, True),
        ([0.0] * 100 + [1.0] * 20, True),
        ([9.0] * 30 + [0.0] * 10 + [1.0] * 10, False),
        ([], False),
    ],
)
def test_a_plateau_is_a_window_no_better_than_the_one_before(
    rewards: list[float],
    flat: bool,  # noqa: FBT001 - parametrized
) -> None:
    assert PLATEAU_UPDATES == 10
    assert has_plateaued(rewards) is flat


@given(st.lists(st.integers(-1000, 1000).map(float), min_size=20, max_size=40))
def test_steadily_better_rewards_are_no_plateau(rewards: list[float]) -> None:
    assert not has_plateaued([index + reward / 1e6 for index, reward in enumerate(rewards)])
