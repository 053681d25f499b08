"""Jobs that ran twice or never are counted, and the real service has none."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.service import small_jobs


def test_a_job_that_ran_twice_or_never_is_counted() -> None:
    row = small_jobs.row_of("sqlite", 2.0, ["a", "b", "c"], Counter({"a": 1, "b": 2}))
    assert (row["jobs"], row["not_once"], row["jobs_per_second"]) == (3, 2, 1.5)


def test_each_row_is_claimed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_jobs, "WORKERS", 2)
    row = small_jobs.measure_claims("sqlite", 6)
    assert (row["what"], row["jobs"], row["not_once"]) == ("claimed", 6, 0)


def test_a_few_jobs_are_done_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    # What four do, `test_scale_out` shows.
    monkeypatch.setattr(small_jobs, "WORKERS", 2)
    row = small_jobs.measure("sqlite", 6)
    assert (row["jobs"], row["workers"], row["not_once"]) == (6, 2, 0)
