"""A child process that speaks JSON lines: one message a line, both ways; stderr is its log.

The child is the leader of a session of its own, so that a signal to the worker's group, such as an
interrupt from a terminal, does not reach it: the worker ends it in order.

A child may be a launcher that makes each of its processes the leader of yet another session. So
all that comes of a child carries its mark in the environment, and is found by it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

Message = Mapping[str, Any]
LOG_TAIL_BYTES: Final = 64 * 1024
LONGEST_LOG_LINE: Final = 2000
"""Characters; a progress bar may write without ever ending its line."""
_MARK: Final = "SHORTFT_CHILD"
_PROCESSES: Final = Path("/proc")
"""Of Linux; elsewhere only the child itself and its group are killed."""
_DYING_SECONDS: Final = 5.0
"""How long what was killed is waited for: inside a driver, a process may not die at all."""
_LOG: Final = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 0.01
_OUT_OF_MEMORY_CODES: Final = frozenset({-signal.SIGKILL, 128 + signal.SIGKILL})


@dataclass(kw_only=True)
class Child:
    """A running child process; `spawn` makes one.

    `receive`, `new_log_lines` and `log_tail` belong to one thread; the others may be called from
    any.
    """

    process: subprocess.Popen[bytes]
    mark: str
    """A name that no other child has."""
    _messages: queue.SimpleQueue[Message | None] = field(default_factory=queue.SimpleQueue)
    _ended: bool = False
    _given_up: bool = False
    _sending: threading.Lock = field(default_factory=threading.Lock)
    _tail: deque[str] = field(default_factory=deque)
    _tail_bytes: int = 0
    _new_lines: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self._log_reader = threading.Thread(target=self._read_log, name="child-log", daemon=True)
        self._log_reader.start()

    @classmethod
    def spawn(cls, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Self:
        """Starts `command` with this environment and a mark; raises OSError where it cannot."""
        mark = secrets.token_hex(16)
        started: queue.SimpleQueue[Self | OSError] = queue.SimpleQueue()

        def live() -> None:
            # Linux sends the parent-death signal when the spawning thread ends, so the child is
            # spawned by the thread that reads it to the end.
            try:
                process = subprocess.Popen(  # noqa: S603  an operator's command, no shell
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**env, _MARK: mark},
                    cwd=cwd,
                    start_new_session=True,
                )
            except OSError as error:
                started.put(error)
                return
            child = cls(process=process, mark=mark)
            started.put(child)
            child.read()

        threading.Thread(target=live, name="child-messages", daemon=True).start()
        outcome = started.get()
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether every message was received and the process is gone, or was given up."""
        return self._ended and (self._given_up or self.process.poll() is not None)

    def send(self, message: Message) -> bool:
        """Writes one line; False where the child no longer reads."""
        line = json.dumps(message, separators=(",", ":")) + "\n"
        try:
            with self._sending:
                stdin = _pipe(self.process.stdin)
                stdin.write(line.encode())
                stdin.flush()
        except (BrokenPipeError, ValueError):  # the latter: closed by this side
            return False
        return True

    def receive(self, timeout_seconds: float) -> Message | None:
        """The next message; None if none came in time, or none will come again."""
        if self._ended:
            return None
        try:
            message = self._messages.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        self._ended = message is None
        return message

    def close_input(self) -> None:
        """Lets the child read the end of its input."""
        with self._sending:
            try:
                _pipe(self.process.stdin).close()
            except BrokenPipeError:
                _LOG.debug("child %d was gone before its input was closed", self.pid)

    def new_log_lines(self) -> list[str]:
        """What it wrote to stderr since the last call."""
        lines = []
        while not self._new_lines.empty():
            lines.append(self._new_lines.get())
        return lines

    def log_tail(self) -> str:
        """The last 64 KB of stderr."""
        return "\n".join(list(self._tail))

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The exit code, or None if it still runs after this time."""
        try:
            code = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        # A grandchild may hold stderr open for longer.
        self._log_reader.join(timeout=1.0)
        return code

    def kill(self, grace_seconds: float = 0.0) -> None:
        """SIGTERM to the child, then SIGKILL to all that came of it; returns when they are gone.

        Without grace, SIGKILL at once. What not even this ends is waited for some seconds.
        """
        if grace_seconds > 0 and self.process.poll() is None:
            self.process.terminate()
            self.wait(grace_seconds)
        # Before the first one dies: the children of the dead have another parent.
        family = self._family()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            _LOG.debug("the group of child %d is gone", self.pid)
        self._kill_all(family)

    def give_up(self) -> None:
        """Takes what it has said by now for all, as its pipe may be held by what does not die."""
        self._given_up = True
        self._messages.put(None)

    def exit_cause(self) -> str:
        """How it ended, for people."""
        return describe_exit(self.process.poll())

    def read(self) -> None:
        """Reads what the child says until it is gone; what the spawning thread does."""
        with _pipe(self.process.stdout) as stdout:
            for line in stdout:
                message = _parse(line)
                if message is None:
                    self._log(line)
                else:
                    self._messages.put(message)
        # The death signal is sent when this thread ends; a child may close its output first.
        self.process.wait()
        self.close_input()
        self._messages.put(None)

    def _kill_all(self, family: set[int]) -> None:
        """Until none is left, since what was not dead yet may have started another."""
        deadline = time.monotonic() + _DYING_SECONDS
        while family and time.monotonic() < deadline:
            for pid in family:
                _kill(pid)
            time.sleep(_LOOK_SECONDS)
            family = self._family()
        if family:
            _LOG.error("of child %d, these do not die: %s", self.pid, sorted(family))

    def _family(self) -> set[int]:
        """The child and all that came of it, as far as they live."""
        living = list(_living())
        mark = f"{_MARK}={self.mark}".encode()
        family = {process.pid for process in living if mark in process.environment}
        if self.process.poll() is None:
            family.add(self.pid)
        # A program may have been started without its parent's environment.
        while more := {one.pid for one in living if one.parent in family} - family:
            family |= more
        return family

    def _read_log(self) -> None:
        with _pipe(self.process.stderr) as stderr:
            for line in iter(lambda: stderr.readline(4 * LONGEST_LOG_LINE), b""):
                self._log(line)

    def _log(self, line: bytes) -> None:
        # A bar draws over its line again and again: only its last state is worth keeping.
        drawn = line.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
        text = drawn[:LONGEST_LOG_LINE]
        self._new_lines.put(text)
        self._tail.append(text)
        self._tail_bytes += len(text.encode()) + 1
        while self._tail_bytes > LOG_TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft().encode()) + 1


class _Process(NamedTuple):
    pid: int
    parent: int
    environment: frozenset[bytes]


def _living() -> Iterator[_Process]:
    """What runs on this machine; the environment only of what belongs to this user."""
    for folder in _PROCESSES.glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            environment = _environment(folder)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if state != b"Z":
            yield _Process(int(folder.name), int(parent), environment)


def _environment(folder: Path) -> frozenset[bytes]:
    try:
        return frozenset((folder / "environ").read_bytes().split(b"\0"))
    except PermissionError:
        return frozenset()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        _LOG.debug("process %d is gone", pid)
    except PermissionError:
        _LOG.warning("process %d belongs to another user", pid)


def describe_exit(code: int | None) -> str:
    """An exit code in words, as a supervisor sees it: negative for a signal."""
    if code is None:
        return "still running"
    if code in _OUT_OF_MEMORY_CODES:
        return "killed by SIGKILL, probably out of memory"
    number = -code if code < 0 else code - 128
    if number in {known.value for known in signal.Signals}:
        return f"killed by {signal.Signals(number).name}"
    return f"exit code {code}"


def drain_until(child: Child, deadline: float) -> list[Message]:
    """The messages that come until the child has ended or the monotonic clock says `deadline`."""
    messages = []
    while not child.ended and time.monotonic() < deadline:
        message = child.receive(0.05)
        if message is not None:
            messages.append(message)
    return messages


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - spawn() opened all three
    return stream


def _parse(line: bytes) -> Message | None:
    """The message of a line; None for what is none, such as a library's own print."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
