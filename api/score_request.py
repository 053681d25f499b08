"""Pictures to score: uploaded ones are stored first, generated ones are named by their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from fastapi import Request

from api import pictures
from api.bodies import Form, Upload, parse, read_body
from api.generation_request import refuse_path
from api.idempotent import IdempotencyKey, Keyed, keyed_by
from api.schemas.generations import ScoreOptions, ScoreRequest
from api.service import Service
from shortft_core import catalog
from shortft_core.errors import UnknownNameError, UserError
from shortft_core.spec import AnyReward, Source
from shortft_core.spec.generation import MOST_IMAGES, ScoredImage
from shortft_core.spec.rewards import PresetTerm, PretrainedTerm, reward_term
from store import generations, object_keys

FIELDS: Final[dict[str, Any]] = {
    "images": {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_IMAGES,
        "items": {"type": "string", "format": "binary"},
        "description": "PNG, JPEG or WebP files.",
    },
    "prompt": {"type": "string", "description": "What all pictures should show."},
    "prompts": {
        "type": "array",
        "items": {"type": "string"},
        "description": "One per picture, instead of `prompt`.",
    },
    "source": {"type": "string", "description": "Name of the reward's weights."},
}
"""The form of an upload."""
Picture = tuple[Upload, pictures.PictureFacts]


@dataclass(frozen=True, slots=True)
class Asked:
    """A score request of either form, checked as far as that needs no rows."""

    image_ids: tuple[str, ...]
    """Generated pictures; empty for an upload."""
    uploads: tuple[Picture, ...]
    prompts: tuple[str, ...] | None
    """One per picture; None: each one's own."""
    source: Source | None
    keyed: Keyed | None

    @classmethod
    async def read(cls, request: Request, idempotency_key: IdempotencyKey = None) -> Self:
        """What the body asks for; raises UserError or ProblemError for what cannot be."""
        body = await read_body(request, most_files=MOST_IMAGES)
        content = body.content() if isinstance(body, Form) else body
        keyed = None if idempotency_key is None else keyed_by(request, idempotency_key, content)
        image_ids: tuple[str, ...] = ()
        uploads: tuple[Picture, ...] = ()
        if isinstance(body, Form):
            asked, uploads = _from_form(body)
        else:
            named = parse(ScoreRequest, body)
            asked, image_ids = named, named.image_ids
        prompts = _prompts(asked, len(uploads) or len(image_ids))
        refuse_path(asked.source, "source")
        return cls(image_ids, uploads, prompts, asked.source, keyed)

    def uploaded(self, generation_id: str) -> tuple[ScoredImage, ...]:
        """The uploads under the keys that they will have; nothing is stored yet."""
        prompts = self.prompts or ("",) * len(self.uploads)
        return tuple(
            ScoredImage(
                key=f"{object_keys.upload_prefix(generation_id)}{index:02d}."
                f"{pictures.SUFFIXES[facts.media_type]}",
                sha256=hashlib.sha256(upload.data).hexdigest(),
                prompt=prompt,
            )
            for index, ((upload, facts), prompt) in enumerate(
                zip(self.uploads, prompts, strict=True)
            )
        )

    def store(self, service: Service, images: Sequence[ScoredImage]) -> None:
        """Stores the uploads; what no row names in the end is collected as rubbish."""
        for (upload, _), image in zip(self.uploads, images, strict=True):
            service.objects.write(image.key, upload.data)

    def find(self, service: Service, project: str) -> tuple[ScoredImage, ...]:
        """The generated pictures that are named; raises NotFoundError."""
        with service.database.read() as session:
            images = [generations.image(session, image_id, project) for image_id in self.image_ids]
        prompts = self.prompts or tuple(image.prompt for image in images)
        return tuple(
            ScoredImage(key=image.object_key, sha256=image.sha256, prompt=prompt)
            for image, prompt in zip(images, prompts, strict=True)
        )


def score_term(name: str, source: Source | None) -> AnyReward:
    """The resolved reward; raises UnknownNameError for one that is not in the catalog."""
    if name not in catalog.REWARDS:
        raise UnknownNameError("name", name, catalog.REWARDS)
    has_weights = issubclass(catalog.REWARDS[name].spec, PretrainedTerm | PresetTerm)
    if source is not None and not has_weights:
        raise UserError("source", f"{name} has no weights", "Leave it out")
    if source is not None and source.id and issubclass(catalog.REWARDS[name].spec, PresetTerm):
        raise UserError("source", "one id cannot hold several rewards", "Give a name")
    term = reward_term(name, source)
    default = Source(name=catalog.source_names(name)[0]) if has_weights else Source(name="shapes")
    return catalog.resolve_reward(term, default, "reward")


def _from_form(form: Form) -> tuple[ScoreOptions, tuple[Picture, ...]]:
    unknown = sorted({*form.texts, *form.files} - set(FIELDS))
    if unknown:
        raise UserError(unknown[0], "there is no such field", f"Use {', '.join(FIELDS)}")
    uploads = form.files.get("images", ())
    if not uploads:
        raise UserError("images", "there is no file in this field", "Send at least one picture")
    facts = tuple(
        (upload, pictures.inspect(upload.data, f"images.{index}"))
        for index, upload in enumerate(uploads)
    )
    content: dict[str, Any] = {}
    for name in ("prompt", "source"):
        if name in form.texts:
            content[name] = form.texts[name][-1]
    if "prompts" in form.texts:
        content["prompts"] = list(form.texts["prompts"])
    return parse(ScoreOptions, content), facts


def _prompts(asked: ScoreOptions, count: int) -> tuple[str, ...] | None:
    if asked.prompt is not None and asked.prompts is not None:
        raise UserError("prompts", "it cannot stand beside prompt", "Give one of them")
    if asked.prompts is not None and len(asked.prompts) != count:
        raise UserError("prompts", f"there are {count} pictures", "Give one prompt for each")
    return asked.prompts or ((asked.prompt,) * count if asked.prompt is not None else None)
