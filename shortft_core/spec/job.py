"""The job specification: the same class for HTTP bodies, database rows, YAML files and trainers."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from shortft_core.spec.common import PromptSource, Source, Spec, identity
from shortft_core.spec.distil import DistilSpec
from shortft_core.spec.methods import AnyMethod
from shortft_core.spec.rewards import MOST_REWARDS, AnyReward


class Evaluation(Spec):
    """Pictures on fixed prompts and seeds, base beside tuned, judged by an unoptimised panel."""

    prompts: PromptSource | None = None
    """Held-out prompts; by default the evaluation split of the job's prompts."""
    every_updates: int = Field(default=30, ge=1, le=1_000_000)
    """Updates between evaluations; the base model and the finished one are always evaluated."""
    held_out: tuple[str, ...] | None = Field(default=None, max_length=MOST_REWARDS)
    """Judges that are not optimised: rewards of the catalog, or `oracle` for `shapes` captions.
    By default the first of `clipscore`, `pickscore`, `hps_v2` that measures nothing optimised, else
    `oracle` for captions of `shapes`; an empty list for none."""
    count: int = Field(default=16, ge=1, le=100_000)
    """Prompts taken from the front of the held-out prompts."""
    seeds: int = Field(default=1, ge=1, le=1_000)
    """Images per prompt."""


class Guard(Spec):
    """When the held-out panel falls, the target reward is being hacked rather than served."""

    max_heldout_drop: float = Field(default=0.5, gt=0)
    """Allowed fall of the held-out mean, in standard deviations of the base model's scores."""
    action: Literal["none", "pause", "stop"] = "none"
    """What happens then, beside the `job.alert` event: `pause` ends the run until it is started
    again, `stop` for good."""


class AlignSpec(Spec):
    """One alignment job: tunes a base model towards rewards."""

    kind: Literal["align"] = "align"
    """What is made: an adapter."""
    base_model: Source
    """The text-to-image model that is tuned."""
    method: AnyMethod
    """How the reward reaches the weights, and for how long."""
    rewards: tuple[AnyReward, ...] = Field(min_length=1, max_length=MOST_REWARDS)
    """What is maximised: the weighted sum of these."""
    prompts: PromptSource
    """What the model is asked for while it is tuned."""
    evaluation: Evaluation = Evaluation()
    guard: Guard = Guard()
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Every random number of the job follows from it."""
    max_runtime_seconds: int | None = Field(default=None, ge=1)
    """Wall time after which the run ends with an evaluation; `best` holds its best model."""
    name: str | None = Field(default=None, max_length=200)
    """What people call the job; kept with it, used for nothing."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """The caller's own labels; kept with the job, used for nothing."""

    @field_validator("rewards")
    @classmethod
    def _no_duplicates(cls, rewards: tuple[AnyReward, ...]) -> tuple[AnyReward, ...]:
        counts = Counter(reward.name for reward in rewards)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(twice)} is named twice: merge the weights")
        return rewards

    def sha256(self) -> str:
        """Identity of the specification: equal specs, equal hashes."""
        return identity(self)


def _kind(content: object) -> str:
    """A job that names no kind aligns a model."""
    kind = content.get("kind") if isinstance(content, dict) else getattr(content, "kind", None)
    return "align" if kind is None else str(kind)


JobSpec = Annotated[
    Annotated[AlignSpec, Tag("align")] | Annotated[DistilSpec, Tag("distil")],
    Discriminator(_kind),
]
"""Any job, chosen by `kind`."""
