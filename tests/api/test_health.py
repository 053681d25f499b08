from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy

from shortft_core.events import RunStarted, StepMetrics
from store import events, leases, workers
from store.api_keys import Scope
from store.engine import Database
from store.models import Worker
from store.settings import StoreSettings
from store.workers import NewWorker
from tests.api.conftest import SPEC, Api, Opened, problem
from tests.api.works import adapter, serve
from tests.servers.redis import RedisServer

SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


def hire(database: Database, *, seconds_ago: float = 0.0) -> Worker:
    """A worker that was last heard of so long ago."""
    new = NewWorker(kind="generate", host="h", pid=1, slots=2, device="cpu", version="0.1.0")
    row = database.transact(lambda session: workers.register(session, new))
    heard = datetime.now(tz=UTC) - timedelta(seconds=seconds_ago)
    with database.write() as session:
        session.execute(
            sqlalchemy.update(Worker).where(Worker.id == row.id).values(heartbeat_at=heard)
        )
    return row


def test_ready(api: Api) -> None:
    answer = api.client.get("/readyz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok", body
    assert {name: check["required"] for name, check in body["checks"].items()} == {
        "database": True, "migrations": True, "storage": True, "broker": False
    }  # fmt: skip
    assert api.service.objects.list("probes/") == ()
    assert api.client.get("/healthz").json() == {"status": "ok"}
    assert api.client.get("/version").json()["version"] == api.app.version


def test_health_asks_for_no_key(api: Api) -> None:
    api.key()
    for path in ("/healthz", "/readyz", "/version", "/docs"):
        assert api.client.get(path).status_code == 200, path
    for path in ("/queue", "/workers", "/metrics"):
        problem(api.client.get(path), 401, "unauthenticated")


@SQLITE
def test_health_is_told_without_a_body(api: Api) -> None:
    for path in ("/healthz", "/readyz", "/v1/readyz"):
        answer = api.client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    refused = api.client.put("/healthz")
    problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET, HEAD"


@SQLITE
def test_readiness_needs_no_lock_and_is_found_out_once(api: Api) -> None:
    with api.database.write() as session:
        session.execute(sqlalchemy.text("SELECT 1"))
        assert api.client.get("/readyz").json()["status"] == "ok"
    writes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(api.service.objects), "write", lambda *_: writes.append(1))
        assert {api.client.get("/readyz").status_code for _ in range(3)} == {200}
    assert writes == []


@SQLITE
def test_tables_of_another_version_are_not_ready(api: Api) -> None:
    with api.database.write() as session:
        session.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '0'"))
    answer = api.client.get("/readyz")
    assert (answer.status_code, api.client.head("/readyz").status_code) == (503, 503)
    checks = answer.json()["checks"]
    assert {name: check["status"] for name, check in checks.items()} == {
        "database": "ok", "migrations": "failed", "storage": "ok", "broker": "ok"
    }  # fmt: skip
    assert api.client.get("/healthz").status_code == 200


@SQLITE
def test_storage_that_cannot_be_written_is_not_ready(api: Api, stack: StoreSettings) -> None:
    folder = Path(stack.data_dir) / "objects"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("a file where the folder was")
    answer = api.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["storage"]["detail"] == "it cannot be written"
    assert str(folder) not in answer.text


@pytest.mark.parametrize("stack", ["postgresql"], indirect=True)
def test_a_broker_that_is_away_only_degrades(api: Api, redis_server: RedisServer) -> None:
    redis_server.kill()
    try:
        answer = api.client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json()["status"] == "degraded"
        assert answer.json()["checks"]["broker"]["status"] == "failed"
        accepted = api.client.post("/generate", json={"prompt": "a"})
        assert accepted.status_code == 202
    finally:
        redis_server.start()


def test_a_slash_behind_a_path_leads_nowhere(api: Api) -> None:
    for method, path in (("POST", "/jobs/"), ("GET", "/v1/jobs/"), ("POST", "/generate/")):
        answer = api.client.request(method, path, json=SPEC, follow_redirects=False)
        problem(answer, 404, "not_found")
        assert "location" not in answer.headers
    assert api.client.get("/jobs").json()["data"] == []


def test_a_held_job_says_what_it_is_computed_on(api: Api) -> None:
    job_id, worker = api.submit()["id"], hire(api.database)
    api.taken(lambda session: leases.claim(session, worker.id, ["default"]))
    held = api.client.get(f"/jobs/{job_id}").json()["worker"]
    assert (held["id"], held["gpu"]) == (worker.id, "cpu")


def test_queue_and_workers(api: Api) -> None:
    living, lost = hire(api.database), hire(api.database, seconds_ago=100)
    api.submit()
    api.client.post("/generate", json={"prompt": "a"})
    queue = api.client.get("/queue").json()
    assert (queue["jobs"]["queued"], queue["jobs"]["running"]) == (1, 0)
    assert queue["waiting"] == {"default": 1}
    assert queue["generations"]["queued"] == 1
    assert queue["workers"] == {"generate": {"workers": 1, "busy": 0, "slots": 2}}
    found = {item["id"]: item for item in api.client.get("/workers").json()["data"]}
    assert (found[living.id]["state"], found[lost.id]["state"]) == ("ready", "lost")
    assert 100 <= found[lost.id]["heartbeat_age_seconds"] < 200


def samples(text: str) -> dict[str, float]:
    """Each line of Prometheus's text format."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_figures(api: Api) -> None:
    adapter(api)
    api.submit()
    api.client.post("/generate", json={"prompt": "a"})
    serve(api)
    worker = hire(api.database, seconds_ago=60)
    answer = api.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.text)
    assert found['shortft_jobs{status="queued"}'] == 1
    assert found['shortft_jobs{status="failed"}'] == 0
    assert found['shortft_jobs_finished_total{error_code="",status="succeeded"}'] == 1
    assert found['shortft_queue_depth{queue="train",resource_class="default"}'] == 1
    assert found['shortft_queue_depth{queue="generate",resource_class="default"}'] == 0
    assert found["shortft_job_duration_seconds_count"] == 1
    assert found['shortft_job_duration_seconds_bucket{le="+Inf"}'] == 1
    assert found["shortft_queue_wait_seconds_count"] == 1
    assert found['shortft_generations_total{status="succeeded"}'] == 1
    assert found['shortft_generation_seconds_bucket{le="120.0"}'] == 1
    assert found["shortft_sse_connections"] == 0
    labels = f'{{kind="generate",state="ready",worker="{worker.id}"}}'
    assert found[f"shortft_worker_up{labels}"] == 0
    assert "shortft_doorbell_failures_total" in found


def test_figures_of_a_running_job(api: Api) -> None:
    job = api.submit()
    claim = api.claim()
    step = StepMetrics(
        update=1,
        loss=0.5,
        reward=-0.25,
        terms={"symmetry": -0.25},
        grad_norms={1: 1.0},
        learning_rate=1e-3,
        seconds=1.5,
        evaluations_with_gradient=1,
        evaluations_without_gradient=2,
        images_seen=4,
    )
    api.database.transact(
        lambda session: leases.start(
            session, claim.lease, RunStarted(updates=3, spec_sha256="5" * 64)
        )
    )
    api.database.transact(lambda session: events.append(session, claim.lease, [step]))
    found = samples(api.client.get("/metrics").text)
    assert found[f'shortft_train_step_seconds{{job="{job["id"]}"}}'] == 1.5
    assert found[f'shortft_reward{{job="{job["id"]}",name="symmetry"}}'] == -0.25
    for project, is_told in (("default", True), ("other", False)):
        told = api.client.get("/metrics", headers=api.key(Scope.ADMIN, project=project)).text
        assert (job["id"] in told) is is_told
        assert 'shortft_jobs{status="running"} 1.0' in told


def test_figures_name_jobs_so_they_need_a_key_once_there_is_one(api: Api) -> None:
    admin, reader = api.key(Scope.ADMIN), api.key(Scope.JOBS_READ, Scope.JOBS_WRITE)
    problem(api.client.get("/metrics"), 401, "unauthenticated")
    answer = api.client.get("/metrics", headers=reader)
    assert "scope admin" in problem(answer, 403, "forbidden")["detail"]
    assert api.client.get("/metrics", headers=admin).status_code == 200
    shown = {"X-API-Key": admin["Authorization"].split()[1]}
    assert api.client.get("/v1/metrics", headers=shown).status_code == 200


@SQLITE
def test_figures_without_keys_are_for_this_machine(open_api: Opened) -> None:
    problem(open_api(host="192.0.2.7").client.get("/metrics"), 401, "unauthenticated")
    evil = {"Host": "evil.example"}
    problem(open_api().client.get("/metrics", headers=evil), 403, "untrusted_host")


@SQLITE
def test_figures_behind_a_token(open_api: Opened) -> None:
    shown = "t0ken"
    api = open_api(metrics_token=shown)
    problem(api.client.get("/metrics"), 401, "unauthenticated")
    wrong = {b"Authorization": "Bearer ünknown".encode("latin-1")}
    problem(
        api.client.get("/metrics", headers=wrong),
        401,
        "unauthenticated",
    )
    key = api.key(Scope.ADMIN)
    for headers in ({"Authorization": f"Bearer {shown}"}, key):
        assert api.client.get("/metrics", headers=headers).status_code == 200
    problem(api.client.get("/metrics", headers={"X-API-Key": shown}), 401, "unauthenticated")
    problem(
        api.client.get("/jobs", headers={"Authorization": f"Bearer {shown}"}),
        401,
        "unauthenticated",
    )
