"""The whole compose file on real servers: from nothing to a picture, and an orderly end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from signal import SIGTERM
from typing import Final

import httpx2
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy import URL

from tests.docker.deployment import Deployment
from tests.servers.postgresql import administrate
from tests.servers.processes import free_port, wait_until

WORKERS: Final = ("worker-train", "worker-generate", "worker-default")
_numbers: Final = count()


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Of the API and of Redis."""
    return free_port(), free_port()


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, postgresql_server: URL, ports: tuple[int, int]
) -> Iterator[Deployment]:
    """Secrets and Redis, as `docker compose up` makes them first; the last test stops all."""
    name = f"compose_{next(_numbers)}"
    administrate(postgresql_server, f"CREATE DATABASE {name}")
    api, redis = ports
    here = {"8000": str(api), "redis-cli ping": f"redis-cli -p {redis} ping"}
    made = Deployment(tmp_path_factory.mktemp("compose") / "root", here)
    database = postgresql_server.set(drivername="postgresql+psycopg", database=name)
    try:
        made.run(
            "init",
            f"--database-url={database.render_as_string()}",
            f"--redis-url=redis://127.0.0.1:{redis}/0",
        )
        made.start("redis", "--port", str(redis), "--bind", "127.0.0.1")
        yield made
    finally:
        made.kill()
        administrate(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


def _first_key(printed: str) -> str:
    (line,) = [line for line in printed.splitlines() if "shown only here" in line]
    return line.split()[-1]


def test_redis_wants_the_password_and_keeps_what_it_is_told(
    deployment: Deployment, ports: tuple[int, int]
) -> None:
    deployment.wait_until_healthy("redis")
    with Redis(port=ports[1]) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    url = (deployment.root / "run/shortft/shared/redis_url").read_text().strip()
    with Redis.from_url(url) as client:
        kept = client.config_get("*")
    assert kept["appendonly"] == "yes"
    assert kept["appendfsync"] == "everysec"
    assert kept["maxmemory-policy"] == "noeviction"
    assert kept["dir"] == f"{deployment.root}/data"


def _kinds(client: httpx2.Client) -> list[str]:
    return sorted(worker["kind"] for worker in client.get("/workers").json()["data"])


@pytest.mark.timeout(400)
def test_from_nothing_to_a_picture(deployment: Deployment, ports: tuple[int, int]) -> None:
    key = _first_key(deployment.run("migrate"))
    assert (deployment.root / "run/shortft/admin/key").read_text().strip() == key
    for name in ("api", *WORKERS):
        deployment.start(name)
    for name in ("redis", "api"):
        deployment.wait_until_healthy(name)

    address = f"http://127.0.0.1:{ports[0]}"
    with httpx2.Client(base_url=address, timeout=90.0) as client:
        assert client.get("/models").status_code == 401
        client.headers["Authorization"] = f"Bearer {key}"
        assert "shapes" in client.get("/models").text
        # A worker's own check is a process that imports the models of the rows: it is asked once.
        wait_until(lambda: _kinds(client) == ["default", "generate", "train"], seconds=120.0)
        for name in WORKERS:
            deployment.wait_until_healthy(name)
        asked = {"prompt": "a red star on a blue background", "base_model": "shapes", "seed": 1}
        few = {"num_inference_steps": 5}
        made = client.post("/generate", json=asked | few, headers={"Prefer": "wait=60"})
        assert made.status_code in {200, 202}, made.text
        path = f"/generations/{made.json()['id']}"
        wait_until(lambda: client.get(path).json()["status"] == "succeeded", seconds=120.0)
        (image,) = client.get(path).json()["images"]
        assert client.get(image["url"]).content.startswith(b"\x89PNG")

    assert deployment.stop(*WORKERS) == dict.fromkeys(WORKERS, 0)
    assert deployment.stop("api")["api"] in {0, -SIGTERM}  # of the signal, after shutting down
    assert "Application shutdown complete" in deployment.log("api").read_text()
    assert deployment.stop("redis") == {"redis": 0}
