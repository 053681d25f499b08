"""The rewards a job may name: one class per reward, chosen by `name`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter, field_validator

from shortft_core.spec.common import Source, Spec

MOST_REWARDS: Final = 32
"""Of one job, and of one panel of judges; the catalog has fewer."""


class RewardTerm(Spec):
    """One term of the weighted sum that a job maximises."""

    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Factor of the raw score (cosines, kilobytes, ...), before summing."""


class PretrainedTerm(RewardTerm):
    """A reward with weights of its own."""

    source: Source | None = None
    """Weights to use; by default the official ones of the catalog."""
    exact_preprocessing: bool = False
    """Resize exactly as PIL does on uint8 (slower); always on when scores are reported."""


class HPSv2(PretrainedTerm):
    """HPS v2.0: cosine of an open_clip ViT-H-14 fine-tuned on human preferences."""

    name: Literal["hps_v2"] = "hps_v2"
    antialias: bool = True
    """Official resize of today; published v2.1 tables were likely made without."""


class HPSv21(PretrainedTerm):
    """HPS v2.1: same architecture and preprocessing, other weights; not comparable with v2.0."""

    name: Literal["hps_v2_1"] = "hps_v2_1"
    antialias: bool = True
    """Official resize of today; published v2.1 tables were likely made without."""


class PickScore(PretrainedTerm):
    """PickScore v1: cosine of a CLIP trained on Pick-a-Pic preferences."""

    name: Literal["pickscore"] = "pickscore"


class ClipScore(PretrainedTerm):
    """CLIPScore: cosine of image and prompt under OpenAI's CLIP ViT-L/14."""

    name: Literal["clipscore"] = "clipscore"


class Aesthetic(PretrainedTerm):
    """LAION aesthetic predictor v2 on CLIP ViT-L/14 embeddings; ignores the prompt."""

    name: Literal["aesthetic"] = "aesthetic"
    target: float | None = None
    """Maximise -|score - target| instead: a simple guard against reward hacking."""
    clip: Source | None = None
    """The CLIP that embeds the image; by default the catalog's partner of `source`."""


class Symmetry(RewardTerm):
    """Minus the mean distance between the image and its mirror image."""

    name: Literal["symmetry"] = "symmetry"
    metric: Literal["rgb_l2", "l1"] = "rgb_l2"
    """Per-pixel Euclidean distance of RGB in [-1, 1], or the mean absolute difference."""
    axis: Literal["horizontal", "vertical"] = "horizontal"
    """Mirror left-right or top-bottom."""


class Compressibility(RewardTerm):
    """Minus the estimated JPEG size in kB at quality 95 (differentiable DCT bit proxy)."""

    name: Literal["compressibility"] = "compressibility"
    quality: int = Field(default=95, ge=1, le=100)
    """PIL's JPEG quality; the estimate's level is calibrated at 95, its order holds elsewhere."""


class Incompressibility(RewardTerm):
    """The estimated JPEG size in kB at quality 95 (differentiable DCT bit proxy)."""

    name: Literal["incompressibility"] = "incompressibility"
    quality: int = Field(default=95, ge=1, le=100)
    """PIL's JPEG quality; the estimate's level is calibrated at 95, its order holds elsewhere."""


class JpegFileSize(RewardTerm):
    """Minus the size of PIL's own JPEG in kB (DDPO); not differentiable."""

    name: Literal["jpeg_size"] = "jpeg_size"
    quality: int = Field(default=95, ge=1, le=100)
    """PIL's JPEG quality."""


class Brightness(RewardTerm):
    """Mean Rec. 601 luma in [0, 1]."""

    name: Literal["brightness"] = "brightness"


class Colorfulness(RewardTerm):
    """Hasler-Suesstrunk colorfulness of the image scaled to [0, 1]."""

    name: Literal["colorfulness"] = "colorfulness"


class PresetTerm(RewardTerm):
    """A weighted sum of rewards under one name."""

    source: Source | None = None
    """Weights of all its terms, by catalog name (for example `shapes`)."""

    @field_validator("source")
    @classmethod
    def _by_name(cls, source: Source | None) -> Source | None:
        if source is not None and source.name is None:
            raise ValueError("one id or path cannot hold several rewards: name them one by one")
        return source


class Combined(PresetTerm):
    """Preset of the paper: 10 PickScore + 2 HPS v2 + 0.05 Aesthetic in raw units."""

    name: Literal["combined"] = "combined"


class Preference(PresetTerm):
    """Preset of the paper's regularizer: HPS v2 + 10 PickScore in raw units (1:10)."""

    name: Literal["preference"] = "preference"


AnyReward = Annotated[
    HPSv2
    | HPSv21
    | PickScore
    | ClipScore
    | Aesthetic
    | Symmetry
    | Compressibility
    | Incompressibility
    | JpegFileSize
    | Brightness
    | Colorfulness
    | Combined
    | Preference,
    Field(discriminator="name"),
]

_TERM: Final[TypeAdapter[AnyReward]] = TypeAdapter(AnyReward)


def reward_term(name: str, source: Source | None = None) -> AnyReward:
    """The term of a reward by its name, with its defaults; `source` where it has weights.

    Raises pydantic's ValidationError for an unknown name or a source it cannot have.
    """
    given = {} if source is None else {"source": source}
    return _TERM.validate_python({"name": name, **given})
