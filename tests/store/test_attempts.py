from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.attempts import Ending, Limits, Tally

LIMITS = Limits()
NEW = Tally(attempt=0, crashes=0, lost_leases=0)


def _claimed(tally: Tally) -> Tally:
    return Tally(attempt=tally.attempt + 1, crashes=tally.crashes, lost_leases=tally.lost_leases)


def _after(endings: list[tuple[Ending, bool]]) -> Tally:
    tally = NEW
    for ending, progressed in endings:
        tally = _claimed(tally).after(ending, progressed=progressed)
    return tally


@pytest.mark.parametrize(
    ("ending", "times", "code"),
    [(Ending.CRASHED, 3, "crashed"), (Ending.LEASE_EXPIRED, 10, "worker_lost")],
)
def test_a_job_is_given_up_at_its_limit_and_not_before(
    ending: Ending, times: int, code: str
) -> None:
    assert _after([(ending, False)] * (times - 1)).exhausted(LIMITS) is None
    assert _after([(ending, False)] * times).exhausted(LIMITS) == code


def test_bad_luck_does_not_make_a_job_poison() -> None:
    endings = [(Ending.LEASE_EXPIRED, False)] * 9 + [(Ending.CRASHED, False)] * 2
    assert _after(endings).exhausted(LIMITS) is None


def test_a_new_checkpoint_forgives() -> None:
    crash, progress = (Ending.CRASHED, False), (Ending.CRASHED, True)
    assert _after([crash, crash, progress, crash]).exhausted(LIMITS) is None
    assert _after([crash, crash, progress, crash, crash]).exhausted(LIMITS) == "crashed"


def test_an_orderly_stop_is_no_attempt() -> None:
    assert _after([(Ending.STOPPED, False)] * 200) == NEW


def test_even_progress_ends_at_the_cap() -> None:
    assert _after([(Ending.CRASHED, True)] * 49).exhausted(LIMITS) is None
    assert _after([(Ending.CRASHED, True)] * 50).exhausted(LIMITS) == "too_many_attempts"


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_wait_doubles_up_to_its_cap(crashes: int, lost_leases: int) -> None:
    wait = Tally(attempt=1, crashes=crashes, lost_leases=lost_leases).backoff(LIMITS)
    failures = crashes + lost_leases
    expected = min(600.0, 5.0 * 2 ** min(failures - 1, 20)) if failures else 0.0
    assert 0.7 * expected <= wait.total_seconds() + 1e-6
    assert wait <= timedelta(seconds=1.3 * expected + 1e-6)
