"""Everything a specification may name, in readable tables; nothing is imported until it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from shortft_core import prompt_sets
from shortft_core.errors import UnknownNameError, UserError
from shortft_core.prompt_sets import PromptSetEntry
from shortft_core.spec import (
    AnyMethod,
    AnyReward,
    DraftK,
    JobSpec,
    Method,
    PromptSource,
    RewardTerm,
    Source,
)
from shortft_core.spec import rewards as terms


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Where one set of weights lives: a folder of the package, a hub repository, or an address."""

    bundled: str | None = None
    """Folder below `shortft_core/bundled`."""
    hub_id: str | None = None
    revision: str | None = None
    url: str | None = None
    files: tuple[str, ...] = ()
    """Files that are needed; empty for a whole pipeline or transformers folder."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Hashes of files that were seen; those never seen are recorded at their first download."""
    licence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """A text-to-image model that can be tuned."""

    weights: Weights
    guidance_scale: float
    summary: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reward:
    """A differentiable score of images under prompts."""

    spec: type[RewardTerm]
    target: str = ""
    summary: str
    weights: Mapping[str, Mapping[str, Weights]] = field(default_factory=dict)
    """Source name -> part -> weights; the first source is the default."""
    preset: Mapping[str, float] = field(default_factory=dict)
    """For a preset, in place of a target: names of the rewards it adds up -> weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodEntry:
    """A way to move the reward into the weights."""

    spec: type[Method]
    target: str
    summary: str


_SHAPES_LICENCE: Final = "Apache-2.0"

MODEL_FAMILIES: Final[Mapping[str, str]] = {
    "StableDiffusionPipeline": "shortft_core.models.stable_diffusion:load",
}
"""`_class_name` of a pipeline folder -> loader of its family."""

BASE_MODELS: Final[Mapping[str, BaseModel]] = {
    "shapes": BaseModel(
        weights=Weights(bundled="shapes-base", licence=_SHAPES_LICENCE),
        guidance_scale=3.0,
        summary="Bundled 6 M parameter model of colored shapes, 64 x 64, for laptops and tests",
    ),
    "sd15": BaseModel(
        weights=Weights(
            hub_id="stable-diffusion-v1-5/stable-diffusion-v1-5", licence="CreativeML Open RAIL-M"
        ),
        guidance_scale=7.5,
        summary="Stable Diffusion 1.5, 512 x 512, the model of the paper",
    ),
    "sd14": BaseModel(
        weights=Weights(hub_id="CompVis/stable-diffusion-v1-4", licence="CreativeML Open RAIL-M"),
        guidance_scale=7.5,
        summary="Stable Diffusion 1.4, 512 x 512, the model of DRaFT and DDPO",
    ),
}

_CLIP_L: Final = Weights(hub_id="openai/clip-vit-large-patch14", licence="MIT")
_SHAPES_PICK: Final = Weights(bundled="shapes-pick", licence=_SHAPES_LICENCE)

REWARDS: Final[Mapping[str, Reward]] = {
    "hps_v2": Reward(
        spec=terms.HPSv2,
        target="shortft_core.rewards.hps:build",
        summary="Human Preference Score v2.0 (the checkpoint of the paper's tables)",
        weights={
            "official": {
                "model": Weights(
                    hub_id="xswu/HPSv2", files=("HPS_v2_compressed.pt",), licence="Apache-2.0"
                )
            },
            "shapes": {"model": Weights(bundled="shapes-hps", licence=_SHAPES_LICENCE)},
        },
    ),
    "hps_v2_1": Reward(
        spec=terms.HPSv21,
        target="shortft_core.rewards.hps:build",
        summary="Human Preference Score v2.1; not comparable with v2.0",
        weights={
            "official": {
                "model": Weights(
                    hub_id="xswu/HPSv2", files=("HPS_v2.1_compressed.pt",), licence="Apache-2.0"
                )
            },
        },
    ),
    "pickscore": Reward(
        spec=terms.PickScore,
        target="shortft_core.rewards.clip:build_pickscore",
        summary="PickScore v1, preference of Pick-a-Pic users",
        weights={
            "official": {
                "model": Weights(hub_id="yuvalkirstain/PickScore_v1", licence="MIT (code)"),
            },
            "shapes": {"model": _SHAPES_PICK},
        },
    ),
    "clipscore": Reward(
        spec=terms.ClipScore,
        target="shortft_core.rewards.clip:build_clipscore",
        summary="Cosine of image and prompt under CLIP ViT-L/14",
        weights={"official": {"model": _CLIP_L}, "shapes": {"model": _SHAPES_PICK}},
    ),
    "aesthetic": Reward(
        spec=terms.Aesthetic,
        target="shortft_core.rewards.aesthetic:build",
        summary="LAION aesthetic predictor v2, ignores the prompt",
        weights={
            "official": {
                "head": Weights(
                    url="https://github.com/christophschuhmann/improved-aesthetic-predictor"
                    "/raw/6934dd81792f086e613a121dbce43082cb8be85e"
                    "/sac+logos+ava1-l14-linearMSE.pth",
                    files=("sac+logos+ava1-l14-linearMSE.pth",),
                    sha256={
                        "sac+logos+ava1-l14-linearMSE.pth": (
                            "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
                        )
                    },
                    licence="Apache-2.0",
                ),
                "clip": _CLIP_L,
            },
            "shapes": {
                "head": Weights(bundled="shapes-aesthetic", licence=_SHAPES_LICENCE),
                "clip": _SHAPES_PICK,
            },
        },
    ),
    "symmetry": Reward(
        spec=terms.Symmetry,
        target="shortft_core.rewards.symmetry:build",
        summary="Minus the distance between the image and its mirror image",
    ),
    "compressibility": Reward(
        spec=terms.Compressibility,
        target="shortft_core.rewards.jpeg:build_compressibility",
        summary="Minus the JPEG size in kB (differentiable estimate)",
    ),
    "incompressibility": Reward(
        spec=terms.Incompressibility,
        target="shortft_core.rewards.jpeg:build_incompressibility",
        summary="The JPEG size in kB (differentiable estimate)",
    ),
    "brightness": Reward(
        spec=terms.Brightness,
        target="shortft_core.rewards.photometric:build_brightness",
        summary="Mean luma in [0, 1]",
    ),
    "colorfulness": Reward(
        spec=terms.Colorfulness,
        target="shortft_core.rewards.photometric:build_colorfulness",
        summary="Hasler-Suesstrunk colorfulness",
    ),
    "combined": Reward(
        spec=terms.Combined,
        preset={"pickscore": 10.0, "hps_v2": 2.0, "aesthetic": 0.05},
        summary="10 PickScore + 2 HPS v2 + 0.05 Aesthetic, the paper's combined reward",
    ),
}

METHODS: Final[Mapping[str, MethodEntry]] = {
    "draft_k": MethodEntry(
        spec=DraftK,
        target="shortft_core.methods.draft_k:build",
        summary="DRaFT-K: reward gradient through the last K denoising steps",
    ),
}

PROMPT_SETS: Final[Mapping[str, PromptSetEntry]] = prompt_sets.PROMPT_SETS

DEFAULT_JUDGES: Final = ("clipscore", "pickscore", "hps_v2")
"""Held-out judges in order of preference; the first that is not optimised serves."""
ORACLE: Final = "oracle"
"""The held-out judge of the `shapes` world; never a reward."""
ORACLE_TARGET: Final = "shortft_core.oracle.reader:build"
DEFAULT_UPDATES: Final = 120
"""Length of a job that names neither updates nor seconds: minutes on `shapes`."""
DEFAULT_GUIDANCE_SCALE: Final = 7.5
"""For base models outside the table: what DRaFT and the SD 1.x pipelines use."""


_Entry = TypeVar("_Entry")


def find(table: Mapping[str, _Entry], name: str, field: str) -> _Entry:
    """The entry called `name`; raises UnknownNameError with the nearest known names."""
    if name not in table:
        raise UnknownNameError(field, name, table)
    return table[name]


def load(target: str) -> Callable[..., Any]:
    """The factory behind `module:function`, imported now."""
    module, _, function = target.partition(":")
    factory: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return factory


def source_names(reward: str) -> tuple[str, ...]:
    """Names that the reward's `source` may have, the default first; empty without weights.

    A preset takes those that all its rewards have.
    """
    entry = REWARDS[reward]
    if not entry.preset:
        return tuple(entry.weights)
    first, *others = (source_names(component) for component in entry.preset)
    return tuple(name for name in first if all(name in other for other in others))


def resolve(spec: JobSpec) -> JobSpec:
    """The job with every default filled in and every name known; resolving it again is the same.

    Raises UnknownNameError with the path of the field.
    """
    _check_prompts(spec.prompts, "prompts")
    prompts, evaluation_prompts = spec.prompts, spec.evaluation.prompts
    if evaluation_prompts is None:
        prompts, evaluation_prompts = _hold_out(prompts)
    _check_prompts(evaluation_prompts, "evaluation.prompts")
    held_out = _resolve_judges(spec)
    return spec.model_copy(
        update={
            "method": _resolve_method(spec.method, spec.base_model),
            "rewards": tuple(
                resolve_reward(term, spec.base_model, f"rewards.{index}")
                for index, term in enumerate(spec.rewards)
            ),
            "prompts": prompts,
            "evaluation": spec.evaluation.model_copy(
                update={"prompts": evaluation_prompts, "held_out": held_out}
            ),
        }
    )


def _resolve_judges(spec: JobSpec) -> tuple[str, ...]:
    """The held-out judges: known, each once, and none of them optimised."""
    optimised = {part for term in spec.rewards for part in (term.name, *REWARDS[term.name].preset)}
    judges = spec.evaluation.held_out
    if judges is None:
        judges = tuple(judge for judge in DEFAULT_JUDGES if judge not in optimised)[:1]
    for index, judge in enumerate(judges):
        field = f"evaluation.held_out.{index}"
        _check_name(judge, (*REWARDS, ORACLE), field)
        if judge in optimised or judge in judges[:index]:
            why = "is optimised itself" if judge in optimised else "is named twice"
            raise UserError(field, f"{judge} {why}", "Name each judge once, beside the rewards")
    if spec.guard.action != "none" and not judges:
        raise UserError(
            "guard.action", "there is no held-out judge to guard", "Name evaluation.held_out"
        )
    return judges


def _check_name(name: str | None, known: Iterable[str], field: str) -> None:
    if name is not None and name not in (names := tuple(known)):
        raise UnknownNameError(field, name, names)


def _check_prompts(source: PromptSource, field: str) -> None:
    _check_name(source.name, PROMPT_SETS, f"{field}.name")


def _hold_out(source: PromptSource) -> tuple[PromptSource, PromptSource]:
    """Prompts to tune on and to evaluate on: the authors' own held-out set, else a split."""
    if source.name is not None and (held_out := PROMPT_SETS[source.name].evaluation):
        return source, PromptSource(name=held_out)
    ours, other = ("eval", "train") if source.split == "eval" else ("train", "eval")
    return source.model_copy(update={"split": ours}), source.model_copy(update={"split": other})


def _resolve_method(method: AnyMethod, base_model: Source) -> AnyMethod:
    _check_name(base_model.name, BASE_MODELS, "base_model.name")
    defaults: dict[str, object] = {}
    if method.guidance_scale is None:
        defaults["guidance_scale"] = guidance_scale(base_model)
    if method.updates is None and method.seconds is None:
        defaults["updates"] = DEFAULT_UPDATES
    return method.model_copy(update=defaults)


def guidance_scale(source: Source) -> float:
    """The guidance that a base model is sampled and tuned with unless a job says otherwise."""
    for name, entry in BASE_MODELS.items():
        if name == source.name or (source.id is not None and source.id == entry.weights.hub_id):
            return entry.guidance_scale
    return DEFAULT_GUIDANCE_SCALE


def resolve_reward(term: AnyReward, base_model: Source, field: str) -> AnyReward:
    """The term with its weights named: those made for the base model if there are any.

    Raises UnknownNameError with the path of the field.
    """
    if not isinstance(term, terms.PretrainedTerm | terms.Combined):
        return term
    known = source_names(term.name)
    own = base_model.name if base_model.name in known else known[0]
    source = term.source or Source(name=own)
    _check_name(source.name, known, f"{field}.source.name")
    defaults = {"source": source}
    if isinstance(term, terms.Aesthetic):
        defaults["clip"] = term.clip or Source(name=source.name or known[0])
        _check_name(defaults["clip"].name, known, f"{field}.clip.name")
    return term.model_copy(update=defaults)
