from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.states import (
    HELD,
    TERMINAL,
    TRANSITIONS,
    JobStatus,
    Refusal,
    Trigger,
    Verb,
    allowed,
    next_state,
)

S, T = JobStatus, Trigger
STATUSES = st.sampled_from(JobStatus)
TRIGGERS = st.lists(st.sampled_from(Trigger), max_size=30)


def _run(triggers: list[Trigger]) -> list[JobStatus]:
    """Every status that a job passes, refused triggers left out."""
    passed = [S.QUEUED]
    for trigger in triggers:
        result = next_state(passed[-1], trigger)
        if not isinstance(result, Refusal):
            passed.append(result)
    return passed


@given(TRIGGERS)
def test_a_terminal_status_is_never_left(triggers: list[Trigger]) -> None:
    passed = _run(triggers)
    assert not TERMINAL.intersection(passed[:-1])


@given(STATUSES, st.sampled_from(Trigger))
def test_a_refusal_names_the_verbs_that_work(status: JobStatus, trigger: Trigger) -> None:
    result = next_state(status, trigger)
    if not isinstance(result, Refusal):
        return
    assert (result.status, result.trigger) == (status, trigger)
    for verb in result.allowed:
        if verb in {Verb.CANCEL, Verb.PAUSE, Verb.RESUME}:
            assert not isinstance(next_state(status, Trigger(verb.value)), Refusal)
        else:
            assert status in TERMINAL


@given(TRIGGERS)
def test_a_lease_begins_with_a_claim_and_ends_with_the_worker(triggers: list[Trigger]) -> None:
    passed = [S.QUEUED]
    for trigger in triggers:
        result = next_state(passed[-1], trigger)
        if isinstance(result, Refusal):
            continue
        if result in HELD and passed[-1] not in HELD:
            assert trigger is T.CLAIM
        if passed[-1] in HELD and result not in HELD:
            assert trigger in {T.SUCCEED, T.FAIL, T.RELEASE}
        passed.append(result)


@given(TRIGGERS)
def test_a_cancel_that_was_accepted_wins(triggers: list[Trigger]) -> None:
    passed = _run(triggers)
    if S.CANCELLING in passed:
        assert set(passed[passed.index(S.CANCELLING) :]) <= {S.CANCELLING, S.CANCELLED}


@pytest.mark.parametrize("status", JobStatus)
def test_every_status_is_reached_and_can_end(status: JobStatus) -> None:
    reached, news = {S.QUEUED}, {S.QUEUED}
    while news:
        news = {to for (at, _), to in TRANSITIONS.items() if at in news} - reached
        reached |= news
    assert status in reached
    ends, news = set(TERMINAL), set(TERMINAL)
    while news:
        news = {at for (at, _), to in TRANSITIONS.items() if to in ends} - ends
        ends |= news
    assert status in ends


@pytest.mark.parametrize(
    ("status", "verbs"),
    [
        (S.QUEUED, {Verb.CANCEL, Verb.PAUSE}),
        (S.PREPARING, {Verb.CANCEL, Verb.PAUSE}),
        (S.RUNNING, {Verb.CANCEL, Verb.PAUSE}),
        (S.PAUSING, {Verb.CANCEL}),
        (S.PAUSED, {Verb.CANCEL, Verb.RESUME}),
        (S.CANCELLING, set()),
        (S.SUCCEEDED, {Verb.RERUN, Verb.DELETE}),
        (S.FAILED, {Verb.RETRY, Verb.RERUN, Verb.DELETE}),
        (S.CANCELLED, {Verb.RETRY, Verb.RERUN, Verb.DELETE}),
    ],
)
def test_what_users_may_ask(status: JobStatus, verbs: set[Verb]) -> None:
    assert set(allowed(status)) == verbs
