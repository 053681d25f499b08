"""Pictures to score: uploaded ones are stored first, generated ones are named by their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

from fastapi import Request

from api import pictures
from api.bodies import Form, Upload, parse, read_body
from api.generation_request import refuse_path
from api.idempotent import IdempotencyKey, Keyed, keyed_by
from api.mistakes import first_of_each_field, raised, refusal
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
    mistakes: tuple[UserError, ...] = ()
    """What is wrong with it, but for its reward."""

    @classmethod
    async def read(cls, request: Request, idempotency_key: IdempotencyKey = None) -> Self:
        """What the body asks for; raises the framework's error for one of another form."""
        body = await read_body(request, most_files=MOST_IMAGES)
        content = body.content() if isinstance(body, Form) else body
        keyed = None if idempotency_key is None else keyed_by(request, idempotency_key, content)
        image_ids: tuple[str, ...] = ()
        uploads: tuple[Picture, ...] = ()
        found: list[UserError] = []
        if isinstance(body, Form):
            asked, count = parse(ScoreOptions, _options(body)), len(body.files.get("images", ()))
            uploads, found = _pictures(body)
        else:
            asked = named = parse(ScoreRequest, body)
            image_ids, count = named.image_ids, len(named.image_ids)
        found += _prompt_mistakes(asked, count)
        found += raised(partial(refuse_path, asked.source, "source"))
        prompts = asked.prompts or ((asked.prompt,) * count if asked.prompt is not None else None)
        return cls(image_ids, uploads, prompts, asked.source, keyed, tuple(found))

    def reward(self, name: str) -> AnyReward:
        """The resolved reward; raises ProblemError 422 with all mistakes of the request."""
        found = list(self.mistakes)
        if self.source is None or self.source.path is None:
            found += raised(partial(score_term, name, self.source))
        if found:
            raise refusal(first_of_each_field(found))
        return score_term(name, self.source)

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
    if source is not None and source.name is not None:
        catalog.find(dict.fromkeys(catalog.source_names(name)), source.name, "source.name")
    term = reward_term(name, source)
    default = Source(name=catalog.source_names(name)[0]) if has_weights else Source(name="shapes")
    return catalog.resolve_reward(term, default, "reward")


def _options(form: Form) -> dict[str, Any]:
    """What a form says beside its files, as JSON would."""
    content: dict[str, Any] = {
        name: form.texts[name][-1] for name in ("prompt", "source") if name in form.texts
    }
    if "prompts" in form.texts:
        content["prompts"] = list(form.texts["prompts"])
    return content


def _pictures(form: Form) -> tuple[tuple[Picture, ...], list[UserError]]:
    """The files of a form that are pictures, and what is wrong with the others and its fields."""
    unknown = sorted({*form.texts, *form.files} - set(FIELDS))
    known = f"Use {', '.join(FIELDS)}"
    found = [UserError(name, "there is no such field", known) for name in unknown]
    uploads = form.files.get("images", ())
    if not uploads:
        problem = "there is no file in this field"
        found.append(UserError("images", problem, "Send at least one picture"))
    seen: list[Picture] = []
    for index, upload in enumerate(uploads):
        try:
            seen.append((upload, pictures.inspect(upload.data, f"images.{index}")))
        except UserError as error:
            found.append(error)
    return tuple(seen), found


def _prompt_mistakes(asked: ScoreOptions, count: int) -> Iterator[UserError]:
    if asked.prompt is not None and asked.prompts is not None:
        yield UserError("prompts", "it cannot stand beside prompt", "Give one of them")
    elif asked.prompts is not None and len(asked.prompts) != count:
        yield UserError("prompts", f"there are {count} pictures", "Give one prompt for each")
