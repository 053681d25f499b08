"""The two ways to run the service, on servers of their own that keep what they are told."""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

from pydantic import SecretStr

from migrations.run import upgrade
from store.engine import open_database
from store.settings import StoreSettings
from tests.servers.postgresql import running_server
from tests.servers.processes import ends_with_parent
from tests.servers.redis import RedisServer
from worker.settings import child_environment

Kind = Literal["sqlite", "postgresql"]
KINDS: Final[tuple[Kind, ...]] = ("sqlite", "postgresql")


@contextmanager
def stack(kind: Kind) -> Iterator[StoreSettings]:
    """Settings of a migrated database without rows, and of a broker; both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="shortft-load-") as name, ExitStack() as stack:
        folder = Path(name)
        # PostgreSQL may run as another user, who has to reach its folder.
        folder.chmod(0o755)
        (folder / "data").mkdir()
        settings = StoreSettings(
            data_dir=folder / "data", secret_key=SecretStr(secrets.token_hex(32))
        )
        if kind == "postgresql":
            (folder / "postgresql").mkdir()
            url = stack.enter_context(running_server(folder / "postgresql", is_durable=True))
            redis = RedisServer(folder / "redis", is_durable=True)
            redis.start()
            stack.callback(redis.kill)
            addresses = {
                "database_url": SecretStr(url.render_as_string(hide_password=False)),
                "redis_url": SecretStr(redis.url),
            }
            settings = settings.model_copy(update=addresses)
        database = open_database(settings.database_address())
        upgrade(database.engine)
        database.close()
        yield settings


def environment(settings: StoreSettings, extra: Mapping[str, object]) -> dict[str, str]:
    """What a process of the service is started with."""
    secret = settings.secret_key
    given = {
        "DATA_DIR": settings.data_dir,
        "DATABASE_URL": settings.database_url and settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url and settings.redis_url.get_secret_value(),
        "SECRET_KEY": secret and secret.get_secret_value(),
        **extra,
    }
    return child_environment(
        {f"SHORTFT_{name}": str(value) for name, value in given.items() if value is not None}
    )


@contextmanager
def process(
    module: str, arguments: Sequence[str], env: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m module`, ended in order when the block ends, and killed if it will not."""
    command = [*ends_with_parent("KILL"), sys.executable, "-m", module, *arguments]
    with log.open("wb") as stream:
        started = subprocess.Popen(  # noqa: S603 - this project's own commands
            command, env=dict(env), stdout=stream, stderr=stream
        )
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(timeout=30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
