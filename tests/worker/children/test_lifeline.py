"""A trainer's lifeline: it hears its supervisor, and ends without one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from worker.children import lifeline
from worker.children.lifeline import Lifeline
from worker.protocol import Control, ExitCode

START = 1000.0


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(lifeline, "elapsed_seconds", found)
    return found


class Line:
    """Both ends of a trainer's input."""

    def __init__(self, lease_seconds: float = 10.0) -> None:
        self.source, self.target = os.pipe()
        self.left: list[int] = []
        self.lifeline = Lifeline(lease_seconds, START, source=self.source, leave=self.left.append)

    def say(self, control: str, renewed_at: float = 0.0) -> None:
        order = Control.model_validate({"control": control, "renewed_at": renewed_at})
        os.write(self.target, order.model_dump_json().encode() + b"\n")
        self.lifeline.look(0.0)


@pytest.fixture
def line(clock: Clock) -> Iterator[Line]:
    found = Line()
    yield found
    os.close(found.source)


@pytest.mark.parametrize(
    ("control", "code"),
    [("stop", ExitCode.STOPPED), ("pause", ExitCode.RESTING), ("cancel", ExitCode.RESTING)],
)
def test_orders_end_the_work_after_the_update(line: Line, control: str, code: ExitCode) -> None:
    line.say("ok")
    assert not line.lifeline.should_stop()
    line.say(control)
    assert line.lifeline.should_stop()
    assert (line.lifeline.ending, line.left) == (code, [])


def test_the_first_order_counts(line: Line) -> None:
    line.say("pause")
    line.say("stop")
    assert line.lifeline.ending is ExitCode.RESTING


def test_without_renewal_it_stops_itself_and_then_leaves(line: Line, clock: Clock) -> None:
    clock.now += 7.9
    line.lifeline.look(0.0)
    assert not line.lifeline.should_stop()
    clock.now += 0.1
    line.lifeline.look(0.0)
    assert (line.lifeline.ending, line.left) == (ExitCode.FENCED, [])
    clock.now += 2.0
    line.lifeline.look(0.0)
    assert line.left == [ExitCode.FENCED]


def test_a_renewal_counts_from_when_it_began(line: Line, clock: Clock) -> None:
    clock.now += 7.0
    line.say("ok", clock.now - 3.0)
    clock.now += 4.9
    line.lifeline.look(0.0)
    assert line.lifeline.ending is None
    clock.now += 0.1
    line.lifeline.look(0.0)
    assert line.lifeline.ending is ExitCode.FENCED


def test_a_late_line_does_not_shorten_the_lease(line: Line, clock: Clock) -> None:
    clock.now += 1.0
    line.say("ok", clock.now)
    line.say("ok", clock.now - 100.0)
    clock.now += 7.9
    line.lifeline.look(0.0)
    assert line.lifeline.ending is None


def test_a_line_that_lay_in_the_pipe_is_as_old_as_its_renewal(line: Line, clock: Clock) -> None:
    """The machine froze, or this process: what was said before is no news."""
    renewed_at = clock.now
    clock.now += 60.0
    line.say("ok", renewed_at)
    assert (line.lifeline.ending, line.left) == (ExitCode.FENCED, [ExitCode.FENCED])


def test_the_lease_is_as_old_as_the_job_file_says(clock: Clock) -> None:
    source, target = os.pipe()
    late = Lifeline(10.0, clock.now - 8.0, source=source, leave=lambda _: None)
    late.look(0.0)
    assert late.ending is ExitCode.FENCED
    os.close(source)
    os.close(target)


@pytest.mark.parametrize(
    ("library", "code"), [("CDLL", 0), ("PyDLL", -signal.SIGALRM)], ids=["free", "hanging"]
)
def test_a_process_that_hangs_with_the_interpreters_lock_is_killed(library: str, code: int) -> None:
    """The second way of calling C keeps the lock, and no thread of the process has a turn."""
    source, target = os.pipe()
    script = (
        "import ctypes\n"
        "from worker.children.lifeline import Lifeline, elapsed_seconds\n"
        "Lifeline(60.0, elapsed_seconds(), hang_seconds=1.0).start()\n"
        f"ctypes.{library}(None).usleep(3_000_000)\n"
    )
    found = subprocess.run([sys.executable, "-c", script], stdin=source, check=False, timeout=60)
    os.close(source)
    os.close(target)
    assert found.returncode == code


def test_a_lost_lease_leaves_at_once(line: Line) -> None:
    line.say("lost")
    assert line.left == [ExitCode.FENCED]


def test_a_supervisor_that_is_gone_stops_it(line: Line) -> None:
    os.close(line.target)
    line.lifeline.look(0.0)
    line.lifeline.look(0.0)
    assert (line.lifeline.ending, line.left) == (ExitCode.STOPPED, [])


def test_an_order_may_come_in_parts(line: Line) -> None:
    text = Control(control="stop").model_dump_json().encode() + b"\n"
    for part in (text[:9], text[9:]):
        os.write(line.target, part)
        line.lifeline.look(0.0)
    assert line.lifeline.ending is ExitCode.STOPPED
