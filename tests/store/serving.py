"""The steps that most tests of generations begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from store import api_keys, generation_leases, generations
from store.api_keys import NewApiKey
from store.generation_leases import ClaimedGeneration, NewImage
from store.generations import NewGeneration
from store.models import Generation
from store.objects import StoredObject

if TYPE_CHECKING:
    from tests.store.conftest import Bench

IMAGE = NewImage(
    stored=StoredObject("images/a.png", "0" * 64, 9),
    prompt="a star",
    seed=7,
    width=64,
    height=64,
    scores={"oracle": 1.0},
)


def create(bench: Bench, batch_key: str = "a", **fields: Any) -> Generation:
    new = NewGeneration(request={"prompt": "a star"}, batch_key=batch_key, **fields)
    return bench.database.transact(lambda session: generations.create(session, new))


def claim(bench: Bench, most: int = 8) -> tuple[ClaimedGeneration, ...]:
    return bench.database.transact(
        lambda session: generation_leases.claim_batch(session, "wrk_a", most=most)
    )


def get(bench: Bench, generation_id: str) -> Generation:
    with bench.database.read() as session:
        return generations.get(session, generation_id, "default")


def issued_key(bench: Bench) -> str:
    new = NewApiKey(name="a", scopes=frozenset())
    row, _ = bench.database.transact(lambda session: api_keys.issue(session, b"x" * 32, new))
    return row.id
