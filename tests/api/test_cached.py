from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from api.cached import Cached


def test_an_answer_is_kept_for_its_time() -> None:
    kept, fresh = Cached[int](3600.0), Cached[int](0.0)
    numbers = count()
    assert [kept.get(lambda: next(numbers)) for _ in range(3)] == [0, 0, 0]
    assert [fresh.get(lambda: next(numbers)) for _ in range(3)] == [1, 2, 3]


def test_of_callers_at_once_one_does_the_work() -> None:
    cached, numbers = Cached[int](3600.0), count()
    together = threading.Barrier(8)

    def ask(_: int) -> int:
        together.wait()
        return cached.get(lambda: next(numbers))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [0] * 8
    assert next(numbers) == 1


def test_a_failure_is_not_kept() -> None:
    cached = Cached[float](3600.0)
    for divisor, found in ((0, None), (2, 0.5), (0, 0.5)):
        try:
            answer: float | None = cached.get(lambda by=divisor: 1 / by)  # type: ignore[misc]
        except ZeroDivisionError:
            answer = None
        assert answer == found
