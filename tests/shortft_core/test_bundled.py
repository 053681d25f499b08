"""The bundled weights: complete, small, as the card says, and really trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from shortft_core import catalog, models, prompts
from shortft_core.generate import base_sampler
from shortft_core.oracle import reader
from shortft_core.oracle.reading import compare, total
from shortft_core.oracle.scene import parse
from shortft_core.spec import PromptSource, Source
from shortft_core.weights import BUNDLED

WEIGHTS = sorted(p for p in BUNDLED.rglob("*") if p.suffix in {".safetensors", ".pt", ".pth"})
CARDS = Path(__file__).parents[2] / "shapes" / "cards"


def test_weights_take_at_most_30_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS) <= 30e6


def test_every_bundled_entry_of_the_catalog_is_there() -> None:
    entries = [entry.weights for entry in catalog.BASE_MODELS.values()]
    for reward in catalog.REWARDS.values():
        entries += [part for parts in reward.weights.values() for part in parts.values()]
    folders = {entry.bundled for entry in entries if entry.bundled}
    assert folders == {"shapes-base", "shapes-pick", "shapes-hps", "shapes-aesthetic"}
    assert all((BUNDLED / folder).is_dir() for folder in folders)


def test_the_card_names_each_file_with_its_hash() -> None:
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    for path in WEIGHTS:
        name = path.relative_to(BUNDLED).as_posix()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert any(name in line and digest in line for line in card.splitlines()), name


def test_the_figures_belong_to_these_weights() -> None:
    figures = json.loads((CARDS / "base.json").read_text(encoding="utf-8"))
    model = models.load(Source(name="shapes"), device=torch.device("cpu"), dtype=torch.float32)
    assert figures["model_sha256"] == model.fingerprint
    assert figures["guidance_scale"] == model.guidance_scale


def test_the_folder_is_a_pipeline_of_diffusers_with_the_schedule_of_sd15() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        BUNDLED / "shapes-base", local_files_only=True
    )
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    config = pipeline.scheduler.config
    assert (config.beta_schedule, config.beta_start, config.beta_end) == (
        "scaled_linear",
        0.00085,
        0.012,
    )
    assert (config.steps_offset, config.set_alpha_to_one) == (1, False)
    assert config.prediction_type == "epsilon"
    assert len(pipeline.tokenizer) < 1000


def test_prompt_sets_share_nothing_and_keep_the_held_out_pairs_apart() -> None:
    sets = {
        name: prompts.load(PromptSource(name=name)).prompts
        for name in ("shapes-train", "shapes-eval")
    }
    assert not set(sets["shapes-train"]) & set(sets["shapes-eval"])
    scenes = [parse(prompt) for prompt in (*sets["shapes-train"], *sets["shapes-eval"])]
    assert all(scene is not None and not scene.is_held_out for scene in scenes)


@pytest.mark.timeout(300)
def test_samples_show_what_their_prompts_ask_for() -> None:
    """Far below the card's figures, so that only a broken model or chain fails."""
    wanted = [
        f"a {color} {kind} on a {background} background"
        for color, kind, background in (
            ("red", "circle", "white"),
            ("blue", "square", "yellow"),
            ("green", "heart", "black"),
            ("white", "ring", "purple"),
            ("yellow", "star", "blue"),
            ("black", "cross", "pink"),
        )
    ]
    model = models.load(Source(name="shapes"), device=torch.device("cpu"), dtype=torch.float32)
    images = base_sampler(model, steps=15, batch_size=6).images(wanted, range(6))
    scenes = [scene for prompt in wanted if (scene := parse(prompt))]
    readings = reader.read(reader.load_reader().eval(), images)
    agreement = total(compare(*pair) for pair in zip(readings, scenes, strict=True))
    assert agreement.asked["color"] == 6
    assert agreement.shown["color"] >= 4
    assert agreement.shown["shape"] >= 4
    assert agreement.shown["background"] >= 4
