"""Generations as callers see them: without keys of the object store."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from api.schemas.generations import Failure, GenerationAnswer, ImageAnswer
from api.service import Service
from api.urls import Urls
from store.models import Generation, Image


def answer(
    generation: Generation,
    service: Service,
    urls: Urls,
    *,
    warnings: Sequence[str] = (),
    with_bytes: bool = False,
) -> GenerationAnswer:
    """The generation, with the bytes of its images if asked; ArtifactError if those are gone.

    The generation has its images loaded.
    """
    outcome = generation.outcome or {}
    path = f"/generations/{generation.id}"
    return GenerationAnswer(
        id=generation.id,
        kind=cast('Literal["generate", "score"]', generation.kind),
        status=generation.status,
        request=_shown(generation.request),
        images=_images(generation.images, service, urls, with_bytes=with_bytes),
        warnings=list(dict.fromkeys((*warnings, *outcome.get("warnings", ())))),
        timings=dict(outcome.get("timings", {})),
        error=_error(generation),
        created_at=generation.created_at,
        started_at=generation.started_at,
        finished_at=generation.finished_at,
        urls={
            "self": urls.of(path),
            "cancel": urls.of(f"{path}/cancel"),
        },
    )


def _images(
    images: Sequence[Image], service: Service, urls: Urls, *, with_bytes: bool
) -> list[ImageAnswer]:
    seen: Counter[str] = Counter()
    answers = []
    for image in images:
        data = service.objects.read(image.object_key, sha256=image.sha256) if with_bytes else None
        answers.append(_image(image, seen[image.kind], urls, data))
        seen[image.kind] += 1
    return answers


def _image(image: Image, pair_index: int, urls: Urls, data: bytes | None) -> ImageAnswer:
    return ImageAnswer(
        id=image.id,
        pair_index=pair_index,
        kind=cast('Literal["base", "tuned"]', image.kind),
        prompt=image.prompt,
        seed=image.seed,
        width=image.width,
        height=image.height,
        media_type=image.media_type,
        scores=image.scores,
        sha256=image.sha256,
        size_bytes=image.size_bytes,
        url=urls.of(f"/images/{image.id}"),
        b64_json=None if data is None else base64.b64encode(data).decode(),
    )


def _error(generation: Generation) -> Failure | None:
    if generation.error_code is None or generation.finished_at is None:
        return None
    return Failure(code=generation.error_code, message=generation.error_message or "")


def _shown(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request without what names objects."""
    hidden = {"prefix", "key"}
    return {
        name: [
            {key: value for key, value in item.items() if key not in hidden}
            if isinstance(item, Mapping)
            else item
            for item in content
        ]
        if isinstance(content, list)
        else content
        for name, content in request.items()
    }
