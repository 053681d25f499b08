"""Requests for pictures and for scores of pictures."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from shortft_client.answers import Generation
from shortft_client.call import (
    Call,
    Pages,
    delete,
    get,
    get_bytes,
    given,
    new_key,
    path,
    post,
    reader,
)

MOST_HELD_SECONDS = 60
"""How long the service holds a request at most; a longer wait polls."""


class GenerationFields(TypedDict, total=False):
    """What `POST /generate` may say; what is left out is resolved by the service."""

    prompt: str
    prompts: Sequence[str]
    negative_prompt: str
    base_model: str | Mapping[str, Any]
    adapters: Sequence[Mapping[str, Any]]
    num_images: int
    seed: int
    seeds: Sequence[int]
    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int
    compare_base: bool
    score_with: Sequence[str | Mapping[str, Any]]
    output_format: str
    output_quality: int
    metadata: Mapping[str, str]


def generate(*, wait_seconds: float = 0.0, **fields: Unpack[GenerationFields]) -> Call[Generation]:
    """Asks for images; the answer comes when they are made, or after `wait_seconds` without."""
    seconds = _held(wait_seconds)
    return Call(
        method="POST",
        path="/generate",
        body=dict(fields),
        headers={**new_key(), **_prefer(seconds)},
        held_seconds=seconds,
        read=reader(Generation),
    )


def score_files(
    reward: str,
    pictures: Sequence[Path],
    *,
    prompts: Sequence[str],
    source: str | None = None,
    wait_seconds: float = 30.0,
) -> Call[Generation]:
    """Asks for the scores of picture files under one prompt, or one each."""
    seconds = _held(wait_seconds)
    return Call(
        method="POST",
        path=path("rewards", reward, "score"),
        form=given({**_words(prompts), "source": source}),
        files=tuple(_upload(picture) for picture in pictures),
        headers={**new_key(), **_prefer(seconds)},
        held_seconds=seconds,
        read=reader(Generation),
    )


def score_images(
    reward: str,
    image_ids: Sequence[str],
    *,
    prompts: Sequence[str] = (),
    source: str | None = None,
    wait_seconds: float = 30.0,
) -> Call[Generation]:
    """Asks for the scores of made pictures: under their own prompts, under one, or one each."""
    seconds = _held(wait_seconds)
    body = {"image_ids": list(image_ids), "source": source}
    return Call(
        method="POST",
        path=path("rewards", reward, "score"),
        body=given({**body, **(_words(prompts) if prompts else {})}),
        headers={**new_key(), **_prefer(seconds)},
        held_seconds=seconds,
        read=reader(Generation),
    )


def retrieve(generation_id: str) -> Call[Generation]:
    """One generation."""
    return get(path("generations", generation_id), Generation)


def every(**query: str | int) -> Pages[Generation]:
    """The generations of the project, the newest first."""
    return Pages(path="/generations", item=Generation.model_validate, query=query)


def cancel(generation_id: str) -> Call[Generation]:
    """Ends a generation that is not finished."""
    return post(path("generations", generation_id, "cancel"), Generation)


def remove(generation_id: str) -> Call[None]:
    """Forgets a finished generation, with its pictures."""
    return delete(path("generations", generation_id))


def image(image_id: str) -> Call[bytes]:
    """The bytes of one picture."""
    return get_bytes(path("images", image_id))


def _words(prompts: Sequence[str]) -> Mapping[str, Any]:
    return {"prompt": prompts[0]} if len(prompts) == 1 else {"prompts": list(prompts)}


def _held(wait_seconds: float) -> int:
    return min(MOST_HELD_SECONDS, max(0, int(wait_seconds)))


def _prefer(seconds: int) -> Mapping[str, str]:
    return {"Prefer": f"wait={seconds}" if seconds else "respond-async"}


def _upload(picture: Path) -> tuple[str, tuple[str, bytes, str]]:
    media_type = mimetypes.guess_type(picture.name)[0] or "application/octet-stream"
    return "images", (picture.name, picture.read_bytes(), media_type)
