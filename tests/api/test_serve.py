"""The embedded service as real processes: killed in parts and as a whole, and started again."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from api.commands import keys_app
from api.embedded import child, house, settings
from api.embedded.child import Child, Program
from api.embedded.house import House, NotStartedError, free_port, open_house
from shortft_client import Client
from shortft_client.errors import NotAllowedError
from shortft_core.errors import UserError
from shortft_core.events import RunStarted, StepMetrics
from store.settings import StoreSettings
from tests.api.embedded_service import EmbeddedService, contract_job, embedded, processes_of
from tests.api.process import refusal
from tests.servers.processes import wait_until
from worker.settings import WorkerSettings

pytestmark = pytest.mark.timeout(400)
"""Four Python processes start several times over."""
PROGRAMS: Final = {
    "stubborn": """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
""",
    "chatter": """
import itertools, sys, time
for number in itertools.count():
    print(number, file=(sys.stdout, sys.stderr)[number % 2], flush=True)
    time.sleep(0.0005)
""",
}
"""Modules that a child may run: one that does not listen, and one that does not stop to talk."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedService]:
    """One service for the tests that leave it alive; `killed_in` ends it."""
    with embedded(tmp_path_factory.mktemp("embedded"), "--port", "0") as running:
        assert running.address
        yield running


@pytest.fixture(scope="module")
def secret(service: EmbeddedService) -> str:
    """What the first service has made."""
    return (service.folder / "secret_key").read_text()


@pytest.fixture(scope="module")
def killed_in(service: EmbeddedService, secret: str) -> str:
    """The job in whose midst the service was killed; none of its processes is left."""
    assert secret
    with Client(service.address) as client:
        job = client.jobs.create(contract_job(50, step_seconds="0.1", checkpoint_every="5"))
        for line in client.jobs.stream(job.id):
            if isinstance(line.event, StepMetrics) and line.event.update >= 7:
                break
    assert len(processes_of(service.folder)) >= 6
    service.end(signal.SIGKILL)
    wait_until(lambda: not processes_of(service.folder))
    return job.id


@pytest.fixture(scope="module")
def successor(service: EmbeddedService, killed_in: str) -> Iterator[EmbeddedService]:
    """The next service in the same folder, for the tests that come after that."""
    assert killed_in
    with embedded(service.folder, "--port", "0") as running:
        yield running
        assert running.end(signal.SIGINT) == 0
        assert running.said.count(": stopped (") == 4
        assert processes_of(running.folder) == {}


def test_it_is_ready_with_all_workers_and_its_own_secret(service: EmbeddedService) -> None:
    with Client(service.address) as client:
        assert client.ready()["status"] == "ok"
        assert sorted(worker.kind for worker in client.workers()) == [
            "default",
            "generate",
            "train",
        ]
    secret = service.folder / "secret_key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_text().strip()) == 64
    assert service.said.index("worker train: ready") < service.said.index("\nready: ")
    assert {path.name for path in (service.folder / "logs").iterdir()} == {
        "api.log",
        "worker-default.log",
        "worker-generate.log",
        "worker-train.log",
    }


def test_a_second_one_is_refused(
    service: EmbeddedService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = service.address.rpartition(":")[2]
    for options, cause in (
        (("--data-dir", str(service.folder)), f"a service runs in {service.folder} already"),
        (("--data-dir", str(tmp_path), "--port", port), f"127.0.0.1:{port} cannot be listened on"),
    ):
        assert cause in refusal(monkeypatch, capsys, "serve", *options)


def test_a_watcher_misses_nothing_when_http_is_killed(service: EmbeddedService) -> None:
    with Client(service.address) as client:
        job = client.jobs.create(contract_job(60, step_seconds="0.1"))
        seen = []
        for line in client.jobs.stream(job.id):
            seen.append(line)
            if len(seen) == 10:
                os.kill(service.pids("api")[0], signal.SIGKILL)
        stored = client.jobs.events(job.id)
    assert [line.seq for line in seen] == list(range(1, len(seen) + 1))
    assert [line.id for line in seen] == [line.id for line in stored]
    assert seen[-1].type == "job.succeeded"
    assert "api: ended (SIGKILL), starts again in 1 s" in service.said
    assert len(service.pids("api")) == 2
    assert service.said.count("\napi: ready") == 2


def test_a_worker_that_dies_is_started_again(service: EmbeddedService) -> None:
    (first,) = service.pids("worker default")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: service.said.count("worker default: ready") == 2)
    first_again, second = service.pids("worker default")
    assert first_again == first
    with Client(service.address) as client:
        kinds = {worker.id: worker for worker in client.workers() if worker.kind == "default"}
    assert second in {(worker.model_extra or {})["pid"] for worker in kinds.values()}


def test_no_orphan_outlives_a_killed_parent_and_the_next_start_goes_on(
    secret: str, killed_in: str, successor: EmbeddedService
) -> None:
    with Client(successor.address) as client:
        lines = list(client.jobs.stream(killed_in))
        done = client.jobs.retrieve(killed_in)
    assert (done.status, done.progress.updates_completed) == ("succeeded", 50)
    events = [line.event for line in lines]
    starts = [event.first_update for event in events if isinstance(event, RunStarted)]
    assert starts[0] == 1
    assert starts[-1] > 7
    updates = [event.update for event in events if isinstance(event, StepMetrics)]
    assert updates == sorted(updates)
    assert set(updates) == set(range(1, 51))
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    assert (successor.folder / "secret_key").read_text() == secret


# The last one of this service: with the first key its door closes for the tests above.
def test_a_key_made_for_the_folder_closes_the_door_for_all_without_one(
    successor: EmbeddedService,
) -> None:
    folder = ("--data-dir", str(successor.folder))
    with Client(successor.address) as stranger:
        assert next(stranger.jobs.list(), None) is not None
        command = [sys.executable, "-m", "shortft_core.cli", "keys", "create", "--name", "first"]
        made = subprocess.run([*command, *folder], capture_output=True, text=True, check=True)
        with Client(successor.address, api_key=made.stdout.strip()) as owner:
            wait_until(lambda: _is_refused(stranger))
            assert next(owner.jobs.list(), None) is not None
            (key,) = owner.api_keys.list()
            assert key.id in CliRunner().invoke(keys_app, ["list", *folder]).stdout
            assert CliRunner().invoke(keys_app, ["revoke", key.id, *folder]).exit_code == 0
            wait_until(lambda: _is_refused(owner))


def _is_refused(client: Client) -> bool:
    try:
        next(client.jobs.list(), None)
    except NotAllowedError:
        return True
    return False


def _child(name: str, module: str, folder: Path, said: list[str], stop_seconds: int = 30) -> Child:
    """A child in a folder of its own; it is ready once it has written a line."""
    for program, text in PROGRAMS.items():
        (folder / f"{program}.py").write_text(text)
    log = folder / f"{name}.log"
    return Child(
        Program(name=name, module=module, arguments=(), is_ready=lambda _: log.stat().st_size > 0),
        {"PYTHONPATH": os.pathsep.join((str(Path.cwd()), str(folder)))},
        log,
        said.append,
        stop_seconds=stop_seconds,
    )


def test_a_program_that_cannot_live_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_FIRST_WAIT_SECONDS", 0.01)
    said: list[str] = []
    poem = _child("poem", "shortft_core.errors", tmp_path, said)

    def hopeless() -> bool:
        poem.look()
        return poem.is_hopeless

    wait_until(hopeless)
    assert [line.partition(" (")[0] for line in said] == ["poem: starting", "poem: ended"] * 3
    assert said[1].endswith("ended (code 0), starts again in 0.01 s")
    assert said[5].endswith("starts again in 0.04 s")


def test_the_house_ends_with_the_last_words_of_what_cannot_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_FIRST_WAIT_SECONDS", 0.01)
    # How often a program is tried is told by the test above; every try here imports a program.
    monkeypatch.setattr(child, "_HOPELESS", 1)
    monkeypatch.setattr(house, "KINDS", ("default",))
    monkeypatch.setenv("SHORTFT_REDIS_URL_FILE", str(tmp_path / "absent"))
    with (
        open_house(StoreSettings(data_dir=tmp_path), "127.0.0.1", 0) as opened,
        pytest.raises(NotStartedError, match="REDIS_URL_FILE"),
    ):
        opened.live(lambda: False, lambda _: None)
    assert processes_of(tmp_path) == {}


def test_a_worker_has_twice_its_grace_and_some_more(monkeypatch: pytest.MonkeyPatch) -> None:
    default = WorkerSettings.model_fields["grace_seconds"].default
    assert settings.embedded_settings().stop_seconds > 2 * default
    monkeypatch.setenv("SHORTFT_GRACE_SECONDS", "600.5")
    assert settings.embedded_settings().stop_seconds > 2 * 600.5
    monkeypatch.setenv("SHORTFT_GRACE_SECONDS", "inf")
    with pytest.raises(UserError, match="SHORTFT_GRACE_SECONDS"):
        settings.embedded_settings()


def test_the_house_waits_as_long_as_its_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    stubborn = _child("stubborn", "stubborn", tmp_path, said)
    monkeypatch.setattr(settings, "_REST_SECONDS", 0)
    monkeypatch.setenv("SHORTFT_GRACE_SECONDS", "0.4")
    monkeypatch.setattr(House, "_children", lambda *_: [stubborn])
    with open_house(StoreSettings(data_dir=tmp_path), "127.0.0.1", 0) as opened:
        began = time.monotonic()
        opened.live(lambda: stubborn.is_ready, said.append)
    assert said[-2:] == ["stopping", "stubborn: stopped (SIGKILL)"]
    assert 1 <= time.monotonic() - began < 45


def test_a_child_without_a_parent_has_the_same_time(tmp_path: Path) -> None:
    stubborn = _child("stubborn", "stubborn", tmp_path, [], stop_seconds=1)
    stubborn.look()
    wait_until(lambda: stubborn.log.stat().st_size > 0)
    process = stubborn._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == -signal.SIGALRM


def test_a_log_stays_bounded_while_its_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_LARGEST_LOG_BYTES", 500)
    chatter = _child("chatter", "chatter", tmp_path, [])
    old = chatter.log.with_suffix(".old")
    chatter.look()
    wait_until(lambda: old.exists() and chatter.log.exists() and chatter.log.stat().st_size > 100)
    chatter.terminate()
    chatter.finish(time.monotonic() + 30)
    numbers = [int(line) for line in (old.read_text() + chatter.log.read_text()).split()]
    # None is lost at the switch, of either stream.
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert old.stat().st_size > 500


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port: 127\.0\.0\.1:{port} cannot be"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", 0) > 0
