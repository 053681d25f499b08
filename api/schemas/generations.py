"""Generations and the scoring of pictures: what is asked, and what is answered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from api.schemas.common import Answer, names_row
from api.schemas.jobs import Metadata
from shortft_core.spec import AnyReward, Source, Spec
from shortft_core.spec.generation import MOST_IMAGES
from store.states import GenerationStatus

MOST_SEED: Final = 2**63 - 1 - MOST_IMAGES
"""The last picture's seed still fits into a column."""
_MOST_CHARACTERS: Final = 4000
_MOST_ADAPTERS: Final = 8
GenerationId = Annotated[str, names_row("generation")]
ImageId = Annotated[str, names_row("image")]
OutputFormat = Literal["png", "jpeg", "webp"]


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL character")
    return text


def _by_name(given: object) -> object:
    return {"name": given} if isinstance(given, str) else given


Prompt = Annotated[
    str, Field(min_length=1, max_length=_MOST_CHARACTERS), AfterValidator(_without_nul)
]
SourceOrName = Annotated[Source, BeforeValidator(_by_name, json_schema_input_type=Source | str)]
"""A source, or a name of the catalog for short."""
RewardOrName = Annotated[
    AnyReward, BeforeValidator(_by_name, json_schema_input_type=AnyReward | str)
]
"""A reward with its parameters, or its name for short."""
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Side = Annotated[int, Field(ge=64, le=1024, multiple_of=8)]


class AdapterChoice(Spec):
    """An adapter to generate with, and how strongly it acts."""

    id: str = Field(
        pattern=r"^(adp_[0-9a-z]{26}|job_[0-9a-z]{26}(@(best|[0-9]{1,9}))?)$",
        examples=["adp_01jd3kq8v7f0a9x2m4n6p8r0st"],
    )
    """An adapter, the result of a job, or a job's checkpoint: `adp_…`, `job_…`, `job_…@best`,
    `job_…@<update>`."""
    scale: float = Field(default=1.0, ge=-4.0, le=4.0)
    """0 is the base model, 1 the tuned one."""


class GenerationRequest(Spec):
    """Images to make; whatever is left out is resolved, and stated in the answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "a red circle and a blue square",
                    "base_model": "shapes",
                    "num_images": 2,
                    "seed": 7,
                    "score_with": ["symmetry"],
                }
            ]
        }
    )

    prompt: Prompt | None = None
    """What the images show; give this or `prompts`."""
    prompts: tuple[Prompt, ...] | None = Field(default=None, min_length=1, max_length=MOST_IMAGES)
    """Several at once."""
    negative_prompt: Prompt | None = None
    """What guidance leads away from."""
    base_model: SourceOrName | None = None
    """By default that of the adapters, or `shapes` without any."""
    adapters: tuple[AdapterChoice, ...] = Field(default=(), max_length=_MOST_ADAPTERS)
    """All on one base model and one chain; they are summed."""
    num_images: int = Field(default=1, ge=1, le=MOST_IMAGES)
    """Of each prompt; a request makes at most 16 in all."""
    seed: Seed | None = None
    """Of the first image; each further one adds one. Drawn at random by default."""
    seeds: tuple[Seed, ...] | None = Field(default=None, min_length=1, max_length=MOST_IMAGES)
    """One per image, instead of `seed`."""
    num_inference_steps: int | None = Field(default=None, ge=1, le=999)
    """50 by default; an adapter serves its own chain only."""
    guidance_scale: float | None = Field(default=None, ge=1.0, le=50.0)
    """Classifier-free guidance; that of the adapter or of the base model by default."""
    width: Side | None = None
    """Pixels; by default what the model was trained for."""
    height: Side | None = None
    """Pixels; by default what the model was trained for."""
    scheduler: Literal["ddim"] = "ddim"
    compare_base: bool = False
    """Whether the base model's image of the same prompt and seed comes with each."""
    score_with: tuple[RewardOrName, ...] = Field(default=(), max_length=8)
    """Rewards that score every image."""
    output_format: OutputFormat | None = None
    """`png` by default."""
    output_quality: int | None = Field(default=None, ge=1, le=100)
    """Of jpeg and webp."""
    response_format: Literal["url", "b64_json"] = "url"
    """Whether the answer to this request holds addresses only, or the bytes too once it is done."""
    metadata: Metadata = Field(default_factory=dict)
    """The caller's own labels; kept with the request, used for nothing."""

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if (self.prompt is None) == (self.prompts is None):
            raise ValueError("give exactly one of prompt, prompts")
        if self.seed is not None and self.seeds is not None:
            raise ValueError("give seed or seeds, not both")
        if self.images > MOST_IMAGES:
            raise ValueError(f"{self.images} images are asked for, more than {MOST_IMAGES}")
        if self.seeds is not None and len(self.seeds) != self.images:
            raise ValueError(f"give one seed for each of the {self.images} images")
        if self.compare_base and not self.adapters:
            raise ValueError("compare_base needs adapters to compare with")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts, however they were given."""
        return self.prompts or (self.prompt or "",)

    @property
    def images(self) -> int:
        """How many images are asked for, without the base model's."""
        return len(self.texts) * self.num_images


class ScoreOptions(Spec):
    """How pictures are scored, wherever they come from."""

    prompt: Prompt | None = None
    """What all pictures should show; by default each one's own prompt."""
    prompts: tuple[Prompt, ...] | None = Field(default=None, min_length=1, max_length=MOST_IMAGES)
    """One per picture."""
    source: SourceOrName | None = None
    """Weights of the reward; its official ones by default."""


class ScoreRequest(ScoreOptions):
    """Pictures of earlier generations to score; uploads come as multipart fields instead."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"image_ids": ["img_01jd3kq8v7f0a9x2m4n6p8r0st"], "prompt": "a red circle"}
            ]
        }
    )

    image_ids: tuple[ImageId, ...] = Field(min_length=1, max_length=MOST_IMAGES)


class ImageAnswer(Answer):
    """One picture of an answer; a tuned one and its base picture have the same `pair_index`."""

    object: Literal["image"] = "image"
    id: str
    pair_index: int
    """Place of prompt and seed in the request, from 0."""
    kind: Literal["base", "tuned"]
    """`base`: made by the base model for comparison."""
    prompt: str
    seed: int | None
    """None for a picture that was uploaded."""
    width: int
    height: int
    media_type: str
    scores: dict[str, float]
    """Reward -> score in its raw units."""
    sha256: str
    size_bytes: int
    url: str
    """Where its bytes are; needs the same API key."""
    b64_json: str | None
    """The bytes in base64, where the request asks for them."""


class Failure(Answer):
    """Why something failed."""

    code: str
    message: str


class GenerationAnswer(Answer):
    """A request for images or scores: where it stands, and what it yielded."""

    object: Literal["generation"] = "generation"
    id: str
    kind: Literal["generate", "score"]
    status: GenerationStatus
    """Open enumeration: `queued`, `running`, `succeeded`, `failed`, `cancelled`."""
    request: dict[str, Any]
    """The request with every default filled in, seeds included."""
    images: list[ImageAnswer]
    """In the order of the request; empty until it has succeeded."""
    warnings: list[str]
    timings: dict[str, float]
    """Seconds of each part of the work, where the worker reported them."""
    error: Failure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    urls: dict[str, str]
    """`self` and `cancel`."""
