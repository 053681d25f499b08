"""The train station apart from attempts: shares of GPUs."""

from __future__ import annotations

import pytest

from worker.train.supervisor import share_of


@pytest.mark.parametrize(
    ("gpus", "slots", "shares"),
    [
        ((), 2, [(), ()]),
        (("0",), 1, [("0",)]),
        (("0", "1"), 1, [("0", "1")]),
        (("0", "1"), 2, [("0",), ("1",)]),
        (("0", "1", "2"), 2, [("0", "2"), ("1",)]),
        (("5",), 3, [("5",), ("5",), ("5",)]),
    ],
)
def test_slots_share_the_gpus(
    gpus: tuple[str, ...], slots: int, shares: list[tuple[str, ...]]
) -> None:
    assert [share_of(gpus, slot, slots) for slot in range(slots)] == shares
