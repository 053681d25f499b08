"""What workers do to rows, without any model: bytes under keys, then a commit on the lease."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from shortft_core.adapter_card import CARD_FILE, AdapterCard
from shortft_core.spec import Source
from store import generation_leases, object_keys, results
from store.generation_leases import NewImage
from store.models import Adapter, Generation
from store.objects import StoredObject
from store.results import NewAdapter
from tests.api.conftest import Api

CARD = AdapterCard(
    base_model=Source(name="shapes"),
    base_sha256="b" * 64,
    method="draft_k",
    guidance_scale=3.0,
    rewards=("symmetry",),
    spec_sha256="5" * 64,
    timesteps=(981, 961, 941),
    next_timesteps=(961, 941, 921),
    stacks=((1,), (1,), (1,)),
    rank=4,
    branches=("branch_1.safetensors",),
    sha256=("f" * 64,),
)


def png(width: int = 64, height: int = 64, shade: int = 128) -> bytes:
    """A picture."""
    file = io.BytesIO()
    Image.new("L", (width, height), shade).save(file, "PNG")
    return file.getvalue()


def adapter(api: Api, card: AdapterCard = CARD, **job: Any) -> Adapter:
    """The adapter of a job that has succeeded, with its card in the store."""
    api.submit(**job)
    claim = api.claim()
    prefix = f"{object_keys.artifacts_prefix(claim.job.id, claim.lease.token)}adapter/"
    api.service.objects.write(f"{prefix}{CARD_FILE}", card.model_dump_json().encode())
    new = NewAdapter(card=card.model_dump(mode="json"), artifact_kinds=(), prefix=prefix)

    def publish(session: Session) -> Adapter:
        done = results.succeed(session, claim.lease, [], new)
        return session.scalars(select(Adapter).where(Adapter.job_id == done.id)).one()

    return api.database.transact(publish)


def serve(
    api: Api,
    pictures: Sequence[bytes] = (),
    *,
    outcome: Mapping[str, Any] | None = None,
    base: bool = False,
) -> Generation:
    """Does the next generation as a worker would: these pictures for its prompts and seeds."""
    (claimed,) = api.taken(lambda session: generation_leases.claim_batch(session, "wrk_g", most=1))
    request = claimed.generation.request
    prefix = object_keys.generation_prefix(claimed.generation.id, claimed.lease.token)
    images = []
    for index, (prompt, seed) in enumerate(zip(request["prompts"], request["seeds"], strict=True)):
        for kind in ("base", "tuned") if base else ("tuned",):
            data = pictures[index % len(pictures)] if pictures else png(shade=index)
            key = f"{prefix}{index:02d}-{kind}.png"
            stored = StoredObject(key, api.service.objects.write(key, data), len(data))
            images.append(
                NewImage(
                    stored=stored,
                    prompt=prompt,
                    seed=seed,
                    width=64,
                    height=64,
                    kind="base" if kind == "base" else "tuned",
                    scores={"symmetry": -0.25},
                )
            )
    return api.database.transact(
        lambda session: generation_leases.succeed(session, claimed.lease, images, outcome)
    )
