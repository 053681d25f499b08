"""Slots: one piece of work each, given back whatever happens."""

from __future__ import annotations

import threading

import pytest

from worker.slots import Slots


def test_a_slot_serves_one_at_a_time() -> None:
    slots = Slots(["a", "b"])
    with slots.taken() as first, slots.taken() as second, slots.taken() as none:
        assert {first, second, none} == {"a", "b", None}
        assert slots.busy == 2
    assert slots.busy == 0


def test_a_slot_is_free_again_after_a_fault() -> None:
    slots = Slots([0])
    with pytest.raises(RuntimeError), slots.taken():
        raise RuntimeError
    with slots.taken() as slot:
        assert slot == 0


def test_who_waits_hears_of_the_last_one() -> None:
    slots, begun, go_on = Slots([0]), threading.Event(), threading.Event()

    def work() -> None:
        with slots.taken():
            begun.set()
            go_on.wait()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    assert slots.wait_until_idle(timeout=0.0) == 1
    go_on.set()
    assert slots.wait_until_idle(timeout=10.0) == 0
    thread.join()
