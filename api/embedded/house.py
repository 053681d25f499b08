"""The embedded service: its folder, and the four processes that live in it."""

from __future__ import annotations

import fcntl
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import httpx2
from sqlalchemy.exc import SQLAlchemyError

from api.embedded.child import Child, Program
from api.embedded.settings import embedded_settings, environment
from migrations.run import upgrade
from shortft_core.errors import ShortFTError, UserError
from store import workers
from store.engine import Database, open_database
from store.server_secret import secret_file
from store.settings import StoreSettings

KINDS: Final = ("train", "generate", "default")
_LOOK_SECONDS: Final = 0.2
_ANSWER_SECONDS: Final = 5.0


class NotStartedError(ShortFTError):
    """A process of the service ends whenever it is started."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(name, words)
        self.name = name
        self.words = words

    def __str__(self) -> str:
        return f"{self.name} cannot be started; it said:\n{self.words}"


class House:
    """The service in one folder, as long as the block that opened it runs."""

    def __init__(self, store: StoreSettings, host: str, port: int) -> None:
        self._stop_seconds = embedded_settings().stop_seconds
        self._database = open_database(store.database_address())
        self._host, self._port = host, port
        self._http = httpx2.Client(timeout=_ANSWER_SECONDS, trust_env=False)
        self._store = store

    @property
    def address(self) -> str:
        """Where the service answers; an address that means every network is reached locally."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def close(self) -> None:
        """Ends the connections of this process."""
        self._http.close()
        self._database.close()

    def live(self, should_stop: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Keeps all processes alive until `should_stop`, then stops them, within bounded time.

        Raises NotStartedError for one that cannot live.
        """
        children = self._children(say)
        announced = False
        try:
            while not should_stop():
                for child in children:
                    child.look()
                    if child.is_hopeless:
                        raise NotStartedError(child.program.name, child.last_words())
                if not announced and all(child.is_ready for child in children):
                    announced = True
                    say(f"ready: {self.address}, its page: {self.address}/docs")
                time.sleep(_LOOK_SECONDS)
        finally:
            say("stopping")
            deadline = time.monotonic() + self._stop_seconds
            for child in children:
                child.terminate()
            for child in children:
                child.finish(deadline)

    def _children(self, say: Callable[[str], None]) -> list[Child]:
        logs = self._store.data_dir.absolute() / "logs"
        logs.mkdir(exist_ok=True)
        env = self._environment()
        api = Program(name="api", module="api", arguments=(), is_ready=self._api_answers)
        programs = [api, *map(self._worker, KINDS)]
        return [
            Child(
                program,
                env,
                logs / f"{program.name.replace(' ', '-')}.log",
                say,
                stop_seconds=self._stop_seconds,
            )
            for program in programs
        ]

    def _worker(self, kind: str) -> Program:
        registered = partial(_is_registered, self._database, kind)
        return Program(
            name=f"worker {kind}", module="worker", arguments=(kind,), is_ready=registered
        )

    def _environment(self) -> dict[str, str]:
        folder = self._store.data_dir.absolute()
        fixed = {
            "SHORTFT_DATA_DIR": str(folder),
            "SHORTFT_HOST": self._host,
            "SHORTFT_PORT": str(self._port),
        }
        if self._store.secret_key is None and self._store.secret_key_file is None:
            fixed["SHORTFT_SECRET_KEY_FILE"] = str(secret_file(folder))
        return environment(fixed, defaults={"SHORTFT_WORK_DIR": str(folder / "work")})

    def _api_answers(self, _pid: int) -> bool:
        with suppress(httpx2.TransportError):
            return self._http.get(f"{self.address}/readyz").is_success
        return False


@contextmanager
def open_house(store: StoreSettings, host: str, port: int) -> Iterator[House]:
    """The service in its folder, which belongs to this process alone; port 0 is any free one.

    Raises UserError if the folder or the port is taken, or a setting is wrong. What is missing is
    made: the folder, the tables and the secret.
    """
    folder = store.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "serve.lock"):
        database = open_database(store.database_address())
        upgrade(database.engine)
        database.close()
        house = House(store, host, free_port(host, port))
        try:
            yield house
        finally:
            house.close()


def free_port(host: str, port: int) -> int:
    """The port, or any free one for 0; raises UserError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            problem = f"{host}:{port} cannot be listened on ({error.strerror})"
            raise UserError("port", problem, "Choose another, or 0 for any free one") from error
        found: int = listener.getsockname()[1]
        return found


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Holds a lock that the system opens when this process ends; raises UserError if it is held."""
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = f"a service runs in {lock.parent} already"
            raise UserError("data_dir", problem, "Stop it, or choose another folder") from error
        yield


def _is_registered(database: Database, kind: str, pid: int) -> bool:
    wanted = (kind, socket.gethostname(), pid)
    # A database that is away for a moment is no reason to end what runs.
    with suppress(SQLAlchemyError), database.read() as session:
        return wanted in {(found.kind, found.host, found.pid) for found in workers.alive(session)}
    return False
