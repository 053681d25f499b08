from __future__ import annotations

import inspect
from multiprocessing.reduction import ForkingPickler

import pytest

from shortft_core.errors import ShortFTError
from store import errors
from store.errors import InvalidStateError, LeaseLostError, NotFoundError, QuotaExceededError

OURS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", OURS)
def test_all_belong_to_the_one_tree(kind: type[Exception]) -> None:
    assert issubclass(kind, ShortFTError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotFoundError("job", "job_a"), "there is no job job_a"),
        (QuotaExceededError("jobs", 3, 3), "3 of 3 jobs of this key are unfinished"),
        (LeaseLostError("job_a", 3), "lease 3 of job_a is no longer held"),
        (
            InvalidStateError("job", "job_a", "cancelling", "pause", ()),
            "job job_a is cancelling: pause is refused, nothing may be",
        ),
    ],
)
def test_they_say_what_is_wrong_and_survive_the_way_between_processes(
    error: Exception, text: str
) -> None:
    again = ForkingPickler.loads(ForkingPickler.dumps(error))
    assert str(again) == str(error) == text
    assert vars(again) == vars(error)
