"""Resolved requests to the generate workers: what the service stores, and a worker carries out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shortft_core.spec.common import Source, Spec, identity
from shortft_core.spec.rewards import AnyReward

MOST_IMAGES = 16
"""Of one request, before the base model's pictures beside them."""


class ServedAdapter(Spec):
    """A stored adapter folder and how strongly it acts."""

    id: str
    """The adapter, or the job and checkpoint, as the caller named it."""
    prefix: str
    """Key prefix of its folder in the object store; `shortft.json` lies right below it."""
    card_sha256: str
    """Hash of `shortft.json`, which holds the hashes of all other files."""
    scale: float = 1.0
    """0 is the base model, 1 the tuned one."""


class GenerationSpec(Spec):
    """Images to make: one per prompt and seed, nothing left open that the answer depends on."""

    kind: Literal["generate"] = "generate"
    base_model: Source
    """The model that is served; that of the adapters where there are any."""
    adapters: tuple[ServedAdapter, ...] = ()
    """All on one chain; their stacks are summed."""
    prompts: tuple[str, ...] = Field(min_length=1, max_length=MOST_IMAGES)
    """One per image."""
    negative_prompt: str | None = None
    """What the unconditional half of guidance sees; None for the empty prompt."""
    seeds: tuple[int, ...]
    """One per image."""
    steps: int = Field(ge=1, le=1000)
    """Length of the chain; that of the adapters where there are any."""
    guidance_scale: float | None = None
    """None for the model's own."""
    height: int | None = None
    """Pixels; None for what the model was trained for."""
    width: int | None = None
    compare_base: bool = False
    """Whether the base model's picture of the same prompt and seed comes with each."""
    score_with: tuple[AnyReward, ...] = ()
    """Rewards, resolved, that score every picture."""
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_quality: int | None = Field(default=None, ge=1, le=100)
    """Of jpeg and webp; None for the library's own."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """The caller's own labels; kept with the request, used for nothing."""

    @model_validator(mode="after")
    def _one_seed_per_prompt(self) -> Self:
        if len(self.seeds) != len(self.prompts):
            raise ValueError("give one seed per prompt")
        return self

    def batch_key(self) -> str:
        """Equal for requests whose images may be made in one batch."""
        shared = {
            "kind", "base_model", "adapters", "negative_prompt", "steps", "guidance_scale",
            "height", "width",
        }  # fmt: skip
        return identity(self, shared)


class ScoredImage(Spec):
    """A stored picture and what it should show."""

    key: str
    """Where it lies in the object store."""
    sha256: str
    prompt: str


class ScoreSpec(Spec):
    """Pictures to score under rewards, outside of any job."""

    kind: Literal["score"] = "score"
    rewards: tuple[AnyReward, ...] = Field(min_length=1)
    """Resolved."""
    images: tuple[ScoredImage, ...] = Field(min_length=1, max_length=MOST_IMAGES)

    def batch_key(self) -> str:
        """Equal for requests that the same reward models answer."""
        return identity(self, {"kind", "rewards"})


AnyGeneration = Annotated[GenerationSpec | ScoreSpec, Field(discriminator="kind")]
"""Content of a generation's `request`."""
