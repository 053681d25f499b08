"""Child processes: messages both ways, their log, and how they end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.invariants import alive
from worker import pipes
from worker.pipes import LOG_TAIL_BYTES, Child, describe_exit, drain_until
from worker.settings import child_environment

SECONDS = 20.0


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.kill()


def spawn(children: list[Child], script: str, **env: str) -> Child:
    command = [sys.executable, "-u", "-c", script]
    child = Child.spawn(command, env={**child_environment(), **env}, cwd=Path.cwd())
    children.append(child)
    return child


def until_ended(child: Child) -> list[object]:
    found: list[object] = list(drain_until(child, time.monotonic() + SECONDS))
    assert child.ended
    return found


def test_messages_go_both_ways(children: list[Child]) -> None:
    child = spawn(children, "import sys\nfor line in sys.stdin: print(line, end='')")
    for number in range(3):
        assert child.send({"number": number, "text": "ü\n"})
        assert child.receive(SECONDS) == {"number": number, "text": "ü\n"}
    child.close_input()
    assert until_ended(child) == []
    assert child.exit_cause() == "exit code 0"


def test_what_is_no_message_is_log(children: list[Child]) -> None:
    child = spawn(children, "print('a bare print'); print('[1]'); print('{\"a\": 1}')")
    assert until_ended(child) == [{"a": 1}]
    assert child.new_log_lines() == ["a bare print", "[1]"]
    assert child.new_log_lines() == []


def test_a_silent_child_is_waited_for_no_longer_than_asked(children: list[Child]) -> None:
    child = spawn(children, "import time; time.sleep(60)")
    assert child.receive(0.05) is None
    assert not child.ended
    assert child.wait(0.01) is None
    assert child.exit_cause() == "still running"


def test_the_log_keeps_its_tail_and_bars_their_last_state(children: list[Child]) -> None:
    script = (
        "import sys\n"
        "sys.stderr.write('10 %\\r50 %\\r100 %\\n')\n"
        "for i in range(5000): sys.stderr.write(f'line {i} ' + 'x' * 40 + '\\n')\n"
    )
    child = spawn(children, script)
    until_ended(child)
    child.wait()
    lines = child.new_log_lines()
    assert (len(lines), lines[0]) == (5001, "100 %")
    tail = child.log_tail()
    assert tail.splitlines()[-1].startswith("line 4999 ")
    assert LOG_TAIL_BYTES - 100 < len(tail) <= LOG_TAIL_BYTES


def test_sending_to_one_that_is_gone_says_so(children: list[Child]) -> None:
    child = spawn(children, "pass")
    until_ended(child)
    assert not child.send({"a": 1})


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Child.spawn(["/nowhere/at/all"], env={}, cwd=tmp_path)


def launch(children: list[Child], options: str, then: str) -> tuple[Child, int]:
    """A child that starts another process, and does something `then`."""
    script = (
        "import os, subprocess, time\n"
        f"inner = subprocess.Popen(['sleep', '60'], {options})\n"
        "print('{\"pid\": %d}' % inner.pid)\n" + then
    )
    child = spawn(children, script)
    message = child.receive(SECONDS)
    assert message is not None
    return child, message["pid"]


@pytest.mark.parametrize(
    "options", ["", "start_new_session=True", "start_new_session=True, env={'PATH': os.defpath}"]
)
def test_grandchildren_die_too(children: list[Child], options: str) -> None:
    child, inner = launch(children, options, "time.sleep(60)")
    child.kill()
    assert not alive({child.pid, inner})
    assert child.exit_cause() == "killed by SIGKILL, probably out of memory"


@pytest.mark.parametrize("grace_seconds", [0.0, SECONDS])
def test_what_a_child_leaves_behind_dies_too(children: list[Child], grace_seconds: float) -> None:
    then = "time.sleep(60)" if grace_seconds else ""
    child, inner = launch(children, "start_new_session=True", then)
    if not grace_seconds:
        child.process.wait(SECONDS)
        assert (alive({inner}), child.ended) == ({inner}, False)
    child.kill(grace_seconds)
    assert not alive({inner})
    assert until_ended(child) == []


def test_what_does_not_die_is_waited_for_only_so_long(
    children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, inner = launch(children, "start_new_session=True", "time.sleep(60)")
    # As inside a driver, where a signal waits.
    monkeypatch.setattr(pipes, "_kill", lambda _: None)
    monkeypatch.setattr(pipes, "_DYING_SECONDS", 0.05)
    child.kill()
    assert alive({inner}) == {inner}
    assert drain_until(child, time.monotonic() + 0.1) == []
    assert not child.ended
    child.give_up()
    assert until_ended(child) == []


def test_a_child_may_end_in_order(children: list[Child]) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('{}')\n"
        "time.sleep(60)\n"
    )
    child = spawn(children, script)
    assert child.receive(SECONDS) == {}
    child.kill(grace_seconds=SECONDS)
    assert child.exit_cause() == "exit code 75"


def test_a_child_is_not_signalled_when_another_thread_ends(children: list[Child]) -> None:
    script = (
        "from worker.children.lifeline import die_with_parent\n"
        "import time\n"
        "die_with_parent()\n"
        "print('{}')\n"
        "time.sleep(60)\n"
    )
    thread = threading.Thread(target=spawn, args=(children, script))
    thread.start()
    thread.join()
    assert children[0].receive(SECONDS) == {}
    assert children[0].wait(0.2) is None


def test_secrets_stay_here(children: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = ("SHORTFT_SECRET_KEY", "SHORTFT_DATABASE_URL", "SHORTFT_REDIS_URL", "AWS_SECRET")
    for name in hidden:
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("SHORTFT_DEVICE", "cpu")
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    child = spawn(children, script, CUDA_VISIBLE_DEVICES="1")
    [seen] = until_ended(child)
    assert isinstance(seen, dict)
    assert not set(hidden) & set(seen)
    assert (seen["SHORTFT_DEVICE"], seen["CUDA_VISIBLE_DEVICES"]) == ("cpu", "1")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "still running"),
        (0, "exit code 0"),
        (78, "exit code 78"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (128 + signal.SIGTERM, "killed by SIGTERM"),
        (137, "killed by SIGKILL, probably out of memory"),
        (255, "exit code 255"),
    ],
)
def test_exit_codes_in_words(code: int | None, words: str) -> None:
    assert describe_exit(code) == words


def test_a_child_leads_its_own_session(children: list[Child]) -> None:
    child = spawn(children, "import time; time.sleep(60)")
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
