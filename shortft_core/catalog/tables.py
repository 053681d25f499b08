"""Everything a specification may name, one row each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shortft_core import prompt_sets
from shortft_core.catalog.entries import BaseModel, MethodEntry, Reward, Tuning, Weights
from shortft_core.prompt_sets import PromptSetEntry
from shortft_core.spec import methods
from shortft_core.spec import rewards as terms

_SHAPES_LICENCE: Final = "Apache-2.0"

MODEL_FAMILIES: Final[Mapping[str, str]] = {
    "StableDiffusionPipeline": "shortft_core.models.stable_diffusion:load",
}
"""`_class_name` of a pipeline folder -> loader of its family."""

BASE_MODELS: Final[Mapping[str, BaseModel]] = {
    "shapes": BaseModel(
        weights=Weights(bundled="shapes-base", licence=_SHAPES_LICENCE),
        tuning=Tuning(guidance_scale=3.0, rank=16, learning_rate=1e-3, accumulation=1),
        summary="Bundled 6 M parameter model of colored shapes, 64 x 64, for laptops and tests",
        shortcut="shapes-shortcut",
        few_step="shapes-fewstep",
    ),
    "sd15": BaseModel(
        weights=Weights(
            hub_id="stable-diffusion-v1-5/stable-diffusion-v1-5", licence="CreativeML Open RAIL-M"
        ),
        summary="Stable Diffusion 1.5, 512 x 512, the model of the paper",
        shortcut="hyper-sd15",
        few_step="hyper-sd15",
    ),
    "sd14": BaseModel(
        weights=Weights(hub_id="CompVis/stable-diffusion-v1-4", licence="CreativeML Open RAIL-M"),
        summary="Stable Diffusion 1.4, 512 x 512, the model of DRaFT and DDPO",
    ),
}

_CLIP_L: Final = Weights(hub_id="openai/clip-vit-large-patch14", licence="MIT")
_SHAPES_PICK: Final = Weights(bundled="shapes-pick", licence=_SHAPES_LICENCE)
_JPEG_SIZE: Final = "JPEG size"

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
        quantity=_JPEG_SIZE,
        summary="Minus the JPEG size in kB (differentiable estimate)",
    ),
    "incompressibility": Reward(
        spec=terms.Incompressibility,
        target="shortft_core.rewards.jpeg:build_incompressibility",
        quantity=_JPEG_SIZE,
        summary="The JPEG size in kB (differentiable estimate)",
    ),
    "jpeg_size": Reward(
        spec=terms.JpegFileSize,
        target="shortft_core.rewards.jpeg:build_jpeg_size",
        quantity=_JPEG_SIZE,
        summary="Minus the JPEG size in kB of the file itself, as DDPO has it",
        differentiable=False,
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
    "preference": Reward(
        spec=terms.Preference,
        preset={"hps_v2": 1.0, "pickscore": 10.0},
        summary="HPS v2 + 10 PickScore, the paper's regularizer beside other rewards",
    ),
}

METHODS: Final[Mapping[str, MethodEntry]] = {
    "shortft": MethodEntry(
        spec=methods.ShortFT,
        target="shortft_core.methods.shortft:build",
        summary="ShortFT: reward gradient through a chain shortened by a few-step model",
    ),
    "draft_k": MethodEntry(
        spec=methods.DraftK,
        target="shortft_core.methods.draft_k:build",
        summary="DRaFT-K: reward gradient through the last K denoising steps",
    ),
    "draft_lv": MethodEntry(
        spec=methods.DraftLV,
        target="shortft_core.methods.draft_lv:build",
        summary="DRaFT-LV: DRaFT-1 averaged over noised copies of the last step",
    ),
    "refl": MethodEntry(
        spec=methods.ReFL,
        target="shortft_core.methods.refl:build",
        summary="ReFL: gradient of the x0 predicted at one late random step",
    ),
    "alignprop": MethodEntry(
        spec=methods.AlignProp,
        target="shortft_core.methods.alignprop:build",
        summary="AlignProp: full chain, randomly truncated noise predictions, checkpointed",
    ),
    "drtune": MethodEntry(
        spec=methods.DRTune,
        target="shortft_core.methods.drtune:build",
        summary="DRTune: K equally spaced steps, denoiser inputs held constant",
    ),
    "direct": MethodEntry(
        spec=methods.Direct,
        target="shortft_core.methods.direct:build",
        summary="Direct tuning of a few-step model, all of its calls attached",
    ),
}

PROMPT_SETS: Final[Mapping[str, PromptSetEntry]] = prompt_sets.PROMPT_SETS

DEFAULT_JUDGES: Final = ("clipscore", "pickscore", "hps_v2")
"""Held-out judges in order of preference; the first that measures nothing optimised serves."""
ORACLE: Final = "oracle"
"""The held-out judge of the `shapes` world; never a reward."""
ORACLE_BASE_MODEL: Final = "shapes"
"""The base model of its world, where it serves when every default judge measures a reward."""
ORACLE_CAPTIONS: Final = "shortft_core.oracle.scene:parse"
"""What reads the captions it can judge, without torch; None for any other text."""
ORACLE_TARGET: Final = "shortft_core.oracle.reader:build"
DEFAULT_UPDATES: Final = 120
"""Length of a job that names neither updates nor seconds: minutes on `shapes`."""
DEFAULT_TUNING: Final = Tuning()
"""For base models outside the table."""
PRESETS: Final[Mapping[str, Mapping[str, float | str]]] = {
    "paper": {"leash": 0.0, "reward_threshold": "off", "ema_decay": 0.0, "crop_margin": 0.0},
    "safe": {"leash": 0.1, "reward_threshold": "auto", "ema_decay": 0.995, "crop_margin": 1 / 64},
}
"""What `method.preset` stands for, field by field."""
