"""The real application on real rows, and the steps that most tests begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import pytest
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api import key_watch
from api.app import create_app
from api.service import Service
from api.settings import ApiSettings
from shortft_core.events import StepMetrics
from store import api_keys, events, leases
from store.api_keys import NewApiKey, Scope
from store.engine import Database
from store.leases import Claim
from store.settings import StoreSettings
from tests.servers.processes import wait_until

SPEC: Final[dict[str, Any]] = {
    "base_model": {"name": "shapes"},
    "method": {"type": "draft_k", "updates": 3},
    "rewards": [{"name": "symmetry"}],
    "prompts": {"name": "shapes-train"},
    "name": "mirror",
    "metadata": {"team": "a"},
}
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
ALL_SCOPES: Final = frozenset(Scope)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Api:
    """The running application, and a client on this machine."""

    app: FastAPI
    client: TestClient

    @property
    def service(self) -> Service:
        """What the application works with."""
        found: Service = self.app.state.service
        return found

    @property
    def database(self) -> Database:
        """Its rows."""
        return self.service.database

    def submit(self, **changes: Any) -> dict[str, Any]:
        """A queued job, as it was answered."""
        answer = self.client.post("/jobs", json=SPEC | changes)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def claim(self) -> Claim:
        """The next job in the hands of a worker, which has to be there."""
        return self.taken(lambda session: leases.claim(session, "wrk_a", ["default"]))

    def taken(self, claim: Callable[[Session], _T | None]) -> _T:
        """What a worker claims; one that finds nothing looks again.

        A claim passes over a row that the application's sweeper is just looking at.
        """
        found: list[_T] = []

        def look() -> bool:
            claimed = self.database.transact(claim)
            if claimed:
                found.append(claimed)
            return bool(found)

        wait_until(look, 10.0)
        return found[0]

    def key(self, *scopes: Scope, project: str = "default") -> dict[str, str]:
        """Headers with a new key; all scopes if none is named."""
        new = NewApiKey(name="test", scopes=frozenset(scopes) or ALL_SCOPES, project=project)
        _, key = self.database.transact(
            lambda session: api_keys.issue(session, self.service.secret, new)
        )
        return {"Authorization": f"Bearer {key}"}

    def types(self, job_id: str) -> list[str]:
        """A job's history by types, checked for gaps."""
        with self.database.read() as session:
            rows = events.after(session, job_id)
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        return [row.type for row in rows]


def step(update: int, loss: float, *, seconds: float = 0.5) -> StepMetrics:
    """One update, as a trainer reports it."""
    return StepMetrics(
        created_at=START + timedelta(seconds=update),
        update=update,
        loss=loss,
        reward=-loss,
        terms={"symmetry": -loss},
        grad_norms={1: 1.0},
        learning_rate=1e-3,
        seconds=seconds,
        evaluations_with_gradient=1,
        evaluations_without_gradient=49,
        images_seen=4 * update,
        peak_memory_bytes=7,
    )


def problem(answer: Response, status: int, code: str) -> dict[str, Any]:
    """The content of a refusal, after checking what all refusals share."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"/problems/{code}"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert "SELECT" not in answer.text
    return body


Opened = Callable[..., Api]


@pytest.fixture
def open_api(stack: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Starts the application with these settings; a client of another host has another `host`.

    That there are keys now is seen at once, not within a second.
    """
    monkeypatch.setattr(key_watch, "ASK_EVERY_SECONDS", 0.0)
    with ExitStack() as started:

        def start(*, host: str = "127.0.0.1", **settings: Any) -> Api:
            app = create_app(ApiSettings(**settings), stack)
            client = TestClient(app, base_url="http://localhost", client=(host, 50_000))
            return Api(app, started.enter_context(client))

        yield start


@pytest.fixture
def api(open_api: Opened) -> Api:
    """The application with its defaults."""
    return open_api()
