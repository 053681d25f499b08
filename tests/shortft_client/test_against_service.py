"""The client against the real server: its requests are understood, answers have their shape."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import delete

from shortft_client import Client, ServiceError
from shortft_client.errors import ConflictError, NotThereError, RejectedError
from store import events, leases, logs
from store.engine import Database, open_database
from store.models.base import Base
from store.settings import StoreSettings
from tests.api.conftest import SPEC, step
from tests.api.process import Server, serving

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def rows(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> StoreSettings:
    """Where the server of these tests keeps its rows."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copyfile(sqlite_template, folder / "shortft.db")
    return StoreSettings(data_dir=folder, secret_key=SecretStr("0123456789abcdef" * 4))


@pytest.fixture(scope="module")
def server(rows: StoreSettings) -> Iterator[Server]:
    """One server for all: it starts slowly."""
    with serving(rows) as running:
        yield running


@pytest.fixture
def client(server: Server, database: Database) -> Iterator[Client]:
    """A client of that server, which has forgotten the tests before."""
    with database.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))
    with Client(server.url) as made:
        yield made


@pytest.fixture
def database(rows: StoreSettings) -> Iterator[Database]:
    """The rows of that server."""
    opened = open_database(rows.database_address())
    yield opened
    opened.close()


def test_the_life_of_a_job(client: Client) -> None:
    checked = client.jobs.validate(SPEC)
    assert checked.valid
    assert checked.estimate is not None
    made = client.jobs.create(SPEC, priority=2)
    assert (made.status, made.name, made.priority, made.progress.updates_total) == (
        "queued",
        "mirror",
        2,
        3,
    )
    assert made.allowed_actions == ("cancel", "pause")
    assert client.jobs.update(made.id, metadata={"team": "b"}, priority=5).priority == 5
    assert [one.id for one in client.jobs.list(status="queued", metadata={"team": "b"})] == [
        made.id
    ]
    assert list(client.jobs.list(status=["running", "paused"])) == []
    assert client.jobs.pause(made.id).status == "paused"
    assert client.jobs.resume(made.id).status == "queued"
    assert client.jobs.cancel(made.id).status == "cancelled"
    with pytest.raises(ConflictError) as refused:
        client.jobs.pause(made.id)
    assert refused.value.code == "invalid_state"
    assert refused.value.problem["allowed_actions"] == ["retry", "rerun", "delete"]
    again = client.jobs.rerun(made.id)
    assert again.id != made.id
    assert client.jobs.wait(made.id, timeout_seconds=1).status == "cancelled"
    client.jobs.delete(made.id)
    with pytest.raises(NotThereError):
        client.jobs.retrieve(made.id)


def test_all_mistakes_come_at_once(client: Client) -> None:
    with pytest.raises(RejectedError) as refused:
        client.jobs.create({**SPEC, "seed": "x", "rewards": [{"name": "symetry"}]})
    pointers = {mistake["pointer"] for mistake in refused.value.mistakes}
    assert {"/seed", "/rewards/0/name"} <= pointers
    assert refused.value.request_id is not None


def test_pages_are_walked_to_their_end(client: Client) -> None:
    made = [client.jobs.create(SPEC).id for _ in range(5)]
    assert [one.id for one in client.jobs.list(limit=2)] == made[::-1]
    assert [one.id for one in client.jobs.list(limit=2, order="asc")] == made


def test_lists_are_narrowed_by_method_too(client: Client) -> None:
    made = client.jobs.create(SPEC)
    assert made.method is not None
    assert [one.id for one in client.jobs.list(method=made.method)] == [made.id]
    assert list(client.jobs.list(method="another")) == []


def test_what_a_job_says_is_read(client: Client, database: Database) -> None:
    job = client.jobs.create(SPEC)
    claimed = database.transact(lambda session: leases.claim(session, "wrk_a", ["default"]))
    assert claimed is not None
    lease = claimed.lease
    database.transact(lambda session: logs.append(session, lease, ["one", "two", "three"]))
    database.transact(lambda session: events.append(session, lease, [step(1, 0.5), step(2, 0.25)]))
    found = client.jobs.events(job.id, after=1)
    assert [event.seq for event in found] == list(range(2, len(found) + 2))
    assert [line.text for line in client.jobs.logs(job.id, tail=2)] == ["two", "three"]
    assert [line.number for line in client.jobs.logs(job.id, after=1)] == [2, 3]
    assert [point[:2] for point in client.jobs.metrics(job.id)["series"]["loss"]] == [
        [1, 0.5],
        [2, 0.25],
    ]
    assert list(client.jobs.samples(job.id)) == []
    assert client.jobs.checkpoints(job.id) == []
    assert client.jobs.artifacts(job.id) == []
    with pytest.raises(ServiceError):
        client.jobs.sample_content(job.id, "smp_" + "0" * 26)


def test_catalogs_and_the_service_itself_are_read(client: Client) -> None:
    assert "shapes" in {model.name for model in client.models()}
    assert "symmetry" in {reward.name for reward in client.rewards.list()}
    assert "shortft" in {method.name for method in client.methods()}
    assert list(client.adapters.list()) == []
    assert list(client.generations.list()) == []
    assert list(client.workers()) == []
    assert client.queue()["object"] == "queue"
    assert client.ready()["status"] == "ok"
    assert "version" in client.version()
    with pytest.raises(NotThereError):
        client.images.read("img_" + "0" * 26)


def test_prompt_sets_are_stored_and_forgotten(client: Client, tmp_path: Path) -> None:
    (tmp_path / "animals.txt").write_text("a cat\na dog\na cow\n")
    typed = client.prompt_sets.create("two", ["a", "b"])
    loaded = client.prompt_sets.upload(tmp_path / "animals.txt")
    assert loaded.id is not None
    assert (loaded.name, (loaded.model_extra or {})["count"]) == ("animals", 3)
    assert {typed.id, loaded.id} <= {one.id for one in client.prompt_sets.list()}
    assert client.prompt_sets.retrieve(loaded.id).name == "animals"
    part = client.prompt_sets.prompts(loaded.id, offset=1, limit=1)
    assert ([(one.index, one.text) for one in part.data], part.total) == ([(1, "a dog")], 3)
    assert part.has_more
    client.prompt_sets.delete(loaded.id)
    assert loaded.id not in {one.id for one in client.prompt_sets.list()}


def test_generations_wait_are_cancelled_and_scores_are_asked_for(
    client: Client, tmp_path: Path
) -> None:
    from PIL import Image

    labels = {"team": "vision"}
    asked = client.generations.create(prompt="a", seed=1, base_model="shapes", metadata=labels)
    assert (asked.status, asked.request["seeds"]) == ("queued", [1])
    assert asked.request["metadata"] == labels
    assert client.generations.cancel(asked.id).status == "cancelled"
    ended = client.generations.wait(asked.id, timeout_seconds=1)
    assert ended.is_finished
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    scored = client.rewards.score(
        "symmetry", [tmp_path / "black.png"], prompts=["night"], wait_seconds=0
    )
    assert (scored.kind, scored.status) == ("score", "queued")
    with pytest.raises(NotThereError):
        client.rewards.score_images("symmetry", ["img_" + "0" * 26], wait_seconds=0)


# The last one: a server that has seen a key asks for one ever after.
def test_keys_are_made_listed_and_ended(server: Server, client: Client) -> None:
    made = client.api_keys.create("laptop", ["admin"], expires_in_days=1)
    assert made.key not in repr(made)
    with Client(server.url, api_key=made.key) as owner:
        other = owner.api_keys.create("ci", ["jobs:read"])
        owner.api_keys.revoke(other.id)
        listed = list(owner.api_keys.list())
    assert [(key.name, key.scopes, key.revoked_at is None) for key in listed] == [
        ("ci", ("jobs:read",), False),
        ("laptop", ("admin",), True),
    ]
    assert other.expires_at is None
    assert made.expires_at is not None
