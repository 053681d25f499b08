"""What is kept loaded: bounded by bytes, the longest unused goes, and memory is really freed."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from worker.children.memory import is_out_of_memory
from worker.children.warm import Warm, held_bytes

KILOBYTE = 1024


def model(kilobytes: int) -> nn.Linear:
    return nn.Linear(16, kilobytes * KILOBYTE // 64, bias=False)


def test_the_longest_unused_is_evicted_and_its_memory_freed() -> None:
    warm = Warm(10 * KILOBYTE)
    first = weakref.ref(warm.get("a", lambda: model(4)).weight)
    warm.get("b", lambda: model(4))
    assert warm.size_bytes == 8 * KILOBYTE
    warm.get("a", lambda: model(4))
    second = weakref.ref(warm.get("b", lambda: model(4)).weight)
    warm.get("a", lambda: model(4))
    warm.get("c", lambda: model(4))
    assert ("a" in warm, "b" in warm, "c" in warm) == (True, False, True)
    assert second() is None
    assert first() is not None
    assert warm.size_bytes == 8 * KILOBYTE


def test_the_newest_is_kept_whatever_its_size_with_what_it_is_built_upon() -> None:
    warm = Warm(KILOBYTE)
    warm.get("other", lambda: model(1))
    warm.get("base", lambda: model(2))
    warm.get("adapter", lambda: model(4), upon="base")
    assert ("other" in warm, "base" in warm, "adapter" in warm) == (False, True, True)


def test_what_is_built_upon_something_goes_with_it() -> None:
    warm = Warm(7 * KILOBYTE)
    warm.get("base", lambda: model(2))
    warm.get("adapter", lambda: model(4), upon="base")
    warm.get("other", lambda: model(2))
    assert ("base" in warm, "adapter" in warm, "other" in warm) == (False, False, True)


def test_shared_memory_counts_once() -> None:
    warm, base = Warm(100 * KILOBYTE), model(2)
    warm.get("base", lambda: base)
    warm.get("copy", lambda: [base, model(3)], upon="base")
    assert warm.size_bytes == 5 * KILOBYTE
    assert held_bytes({"again": [base, base.weight]}) == 2 * KILOBYTE


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("none left")])
def test_everything_is_forgotten_where_memory_ends_and_it_is_tried_again(
    error: Exception,
) -> None:
    warm = Warm(100 * KILOBYTE)
    warm.get("base", lambda: model(2))
    warm.get("other", lambda: model(2))
    tries = []

    def make() -> nn.Linear:
        tries.append("other" in warm)
        if tries[-1]:
            raise error
        return model(1)

    warm.get("adapter", make, upon="base")
    assert tries == [True, False]
    assert ("base" in warm, "other" in warm) == (True, False)


def test_other_errors_are_not_tried_again() -> None:
    tries = []

    def make() -> nn.Linear:
        tries.append(1)
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        Warm(1).get("a", make)
    assert tries == [1]


def test_the_cpu_says_in_words_that_memory_ended() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
