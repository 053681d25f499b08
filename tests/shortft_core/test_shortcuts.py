"""Shortcuts: a merged, frozen copy; refused for another base, grid, segments or guidance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shortft_core import catalog, models, shortcuts
from shortft_core.adapters import AdapterBank
from shortft_core.artifacts import file_sha256
from shortft_core.catalog import SHORTCUTS
from shortft_core.errors import (
    ArtifactError,
    MissingWeightsError,
    UnknownNameError,
    UserError,
    WeightsError,
)
from shortft_core.lora_files import write_kohya
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.schedule import ddim_grid, few_step_plan, jumps, plan, refuse_untrained_jumps
from shortft_core.shortcut_card import JumpError, Report, ShortcutCard
from shortft_core.spec import Source

LoadTiny = Callable[..., StableDiffusion]
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def write(path: Path, *, strength: float = 1.0) -> Path:
    generator = torch.Generator().manual_seed(7)
    down, up = torch.randn(2, 8, generator=generator), torch.randn(8, 2, generator=generator)
    write_kohya(path, {LAYER: (down, up * strength)}, dtype=torch.float32, header={})
    return path


def distilled(folder: Path, model: StableDiffusion, **changes: object) -> Source:
    """A folder such as `shortft distil` writes, for 8 steps in 4 segments at guidance 3."""
    folder.mkdir(exist_ok=True)
    path = write(folder / "shortcut.safetensors")
    chain = plan(8, 4, 1)
    error = JumpError(
        timestep=1, next_timestep=0, rmse=1.0, guided_naive_rmse=2.0, unguided_naive_rmse=3.0
    )
    facts: dict[str, object] = {
        "kind": "shortcut",
        "base_model": Source(name="shapes"),
        "base_sha256": model.fingerprint,
        "steps": 8,
        "segments": 4,
        "timesteps": ddim_grid(8),
        "steps_offset": 1,
        "guidance_scale": 3.0,
        "jumps": jumps(chain),
        "rank": 2,
        "file": path.name,
        "sha256": file_sha256(path),
        "report": Report(
            trajectories=1, jumps=(error,), image_rmse=0.1, naive_image_rmse=0.2, rewards={}
        ),
        "spec_sha256": "0" * 64,
    }
    card = ShortcutCard.model_validate({**facts, **changes})
    (folder / "shortcut.json").write_text(card.model_dump_json())
    return Source(path=str(folder))


def predict(model: StableDiffusion) -> Tensor:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return model.predict_noise(latents, 501, model.encode_prompts(["a"]), 1.0)


def test_a_shortcut_is_a_frozen_merged_copy(load_tiny: LoadTiny, tmp_path: Path) -> None:
    model = load_tiny()
    state = copy.deepcopy(model.denoiser.state_dict())
    source = Source(path=str(write(tmp_path / "a.safetensors")))
    shortcut = shortcuts.load(source, model, segments=4, guidance_scale=7.5)
    other = shortcut.model.denoiser
    assert not any(weight.requires_grad for weight in other.parameters())
    assert not other.training
    theirs = other.state_dict()
    changed = [key for key in state if not torch.equal(state[key], theirs[key])]
    assert changed == [f"{LAYER}.weight"]
    assert all(torch.equal(state[key], value) for key, value in model.denoiser.state_dict().items())
    assert (shortcut.guidance_scale, shortcut.jumps) == (1.0, None)
    assert shortcut.borders == (750, 500, 250)
    assert shortcut.model.fingerprint != model.fingerprint


def test_training_leaves_the_shortcut_alone(load_tiny: LoadTiny, tmp_path: Path) -> None:
    model = load_tiny()
    shortcut = shortcuts.load(
        Source(path=str(write(tmp_path / "a.safetensors"))), model, segments=4, guidance_scale=7.5
    )
    assert isinstance(shortcut.model, StableDiffusion)
    before = predict(shortcut.model)
    bank = AdapterBank(model.denoiser, branches=1, rank=2)
    torch.nn.init.ones_(bank.parameters(1)[1])
    with bank.stack((1,)):
        assert torch.equal(predict(shortcut.model), before)
        assert not torch.equal(predict(model), before)


def test_a_bank_has_to_come_after_its_shortcut(load_tiny: LoadTiny, tmp_path: Path) -> None:
    model = load_tiny()
    AdapterBank(model.denoiser, branches=1, rank=2)
    source = Source(path=str(write(tmp_path / "a.safetensors")))
    with pytest.raises(ArtifactError, match="load its shortcut before it"):
        shortcuts.load(source, model, segments=4, guidance_scale=7.5)


def test_a_naive_jump_is_the_base_itself(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    shortcut = shortcuts.naive(model, 7.5)
    assert shortcut.model is model
    assert (shortcut.guidance_scale, shortcut.borders, shortcut.jumps) == (7.5, (), None)


def test_a_distilled_folder_brings_its_jumps(load_tiny: LoadTiny, tmp_path: Path) -> None:
    model = load_tiny()
    source = distilled(tmp_path / "k4", model)
    for path in (source.path, f"{source.path}/shortcut.safetensors", f"{source.path}/../k4"):
        either = Source(path=path)
        shortcut = shortcuts.load(either, model, segments=4, guidance_scale=3.0)
        assert shortcut.jumps == jumps(plan(8, 4, 1))
        assert shortcut.guidance_scale == 1.0
        assert shortcut.spacing == "segments"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"base_sha256": "f" * 64}, "another base model"),
        ({"segments": 3}, "distilled for 3 segments, not 4"),
        ({"guidance_scale": 7.5}, r"stands for guidance 7\.5, not 3"),
        ({"timesteps": ddim_grid(8, offset=0)}, "another grid"),
        ({"kind": "few_step"}, "it is a few_step, not a shortcut"),
    ],
)
def test_a_shortcut_for_something_else_is_refused(
    load_tiny: LoadTiny, tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    model = load_tiny()
    source = distilled(tmp_path / "k4", model, **changes)
    with pytest.raises(UserError, match=problem) as caught:
        shortcuts.load(source, model, segments=4, guidance_scale=3.0)
    assert caught.value.field == "method.shortcut"


def test_a_changed_file_is_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    model = load_tiny()
    source = distilled(tmp_path / "k4", model)
    write(tmp_path / "k4" / "shortcut.safetensors", strength=2.0)
    with pytest.raises(ArtifactError, match="changed after it was distilled"):
        shortcuts.load(source, model, segments=4, guidance_scale=3.0)


def test_what_does_not_exist_is_named(load_tiny: LoadTiny, tmp_path: Path) -> None:
    model = load_tiny()
    with pytest.raises(UnknownNameError, match="hyper-sd15"):
        shortcuts.load(Source(name="hyper-sd51"), model, segments=4, guidance_scale=7.5)
    with pytest.raises(MissingWeightsError, match="does not exist"):
        shortcuts.load(Source(path=str(tmp_path / "none")), model, segments=4, guidance_scale=7.5)
    with pytest.raises(WeightsError, match="should hold one checkpoint"):
        shortcuts.load(Source(path=str(tmp_path)), model, segments=4, guidance_scale=7.5)
    with pytest.raises(MissingWeightsError, match="pytorch_lora_weights"):
        shortcuts.load(Source(id="owner/name"), model, segments=4, guidance_scale=7.5)


def test_a_few_step_model_is_merged_for_tuning(load_tiny: LoadTiny, tmp_path: Path) -> None:
    model = load_tiny()
    source = distilled(tmp_path / "k4", model, kind="few_step")
    found = shortcuts.few_step(source, model, 4)
    assert (found.spacing, found.guidance_scale) == ("segments", 1.0)
    assert AdapterBank(found.model.denoiser, branches=1, rank=2).rank == 2
    foreign = shortcuts.few_step(Source(path=str(write(tmp_path / "a.safetensors"))), model, 4)
    chain = few_step_plan(4, spacing=foreign.spacing)
    assert [e.timestep for e in chain] == [999, 749, 499, 249]


def test_a_lora_of_any_origin_is_merged_first(load_tiny: LoadTiny, tmp_path: Path) -> None:
    model = load_tiny()
    path = write(tmp_path / "style.safetensors")
    merged, sha256 = shortcuts.with_lora(Source(path=str(path)), model)
    assert sha256 == file_sha256(path)
    assert isinstance(merged, StableDiffusion)
    assert not torch.equal(predict(merged), predict(model))
    with pytest.raises(UserError, match="the catalog holds no LoRA of this kind"):
        shortcuts.with_lora(Source(name="hyper-sd15"), model)


def test_a_distilled_shortcut_serves_a_base_with_a_lora_merged_into_it(tmp_path: Path) -> None:
    base = models.load(Source(name="shapes"), device=torch.device("cpu"), dtype=torch.float32)
    name, linear = next(
        (name, module)
        for name, module in base.denoiser.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith("to_q")
    )
    pair = torch.ones(2, linear.in_features), torch.ones(linear.out_features, 2)
    path = tmp_path / "style.safetensors"
    write_kohya(path, {name: pair}, dtype=torch.float32, header={})
    merged, _ = shortcuts.with_lora(Source(path=str(path)), base)
    assert merged.fingerprint != merged.base_fingerprint == base.fingerprint
    shortcut = shortcuts.load(
        Source(name="shapes-shortcut"), merged, segments=4, guidance_scale=3.0
    )
    assert shortcut.jumps == ((741, 501), (481, 261), (241, 1))


@pytest.mark.parametrize("name", SHORTCUTS)
def test_every_row_is_complete(name: str) -> None:
    entry = SHORTCUTS[name]
    assert entry.files
    assert all(weights.files for weights in entry.files.values())
    assert set(entry.base_models) <= catalog.BASE_MODELS.keys()
    assert entry.licence
    # A few-step model is called without guidance, so it has to have absorbed its own.
    assert entry.absorbs_guidance or entry.use == "shortcut"
    if entry.jumps == "targeted":
        assert entry.guidance_range is not None


def test_default_shortcuts_of_base_models_exist_and_fit() -> None:
    for name, base in catalog.BASE_MODELS.items():
        for use, default in (("shortcut", base.shortcut), ("few_step", base.few_step)):
            if default is not None:
                assert SHORTCUTS[default].use in {use, "both"}
                assert name in SHORTCUTS[default].base_models


def test_the_papers_jumps_lie_inside_the_parts_of_its_shortcut() -> None:
    entry = SHORTCUTS["hyper-sd15"]
    assert catalog.shortcut_borders(entry, 4) == (750, 500, 250)
    plan(50, 4, 1, shortcut_borders=catalog.shortcut_borders(entry, 4))
    assert catalog.shortcut_borders(SHORTCUTS["tcd-sd15"], 4) == ()


@pytest.mark.parametrize(
    ("name", "segments", "guidance_scale", "problem"),
    [
        ("hyper-sd15", 3, 7.5, r"no file for 3 segments\. Use 2, 4, 8 segments.*shortft distil"),
        ("hyper-sd15-cfg", 8, 4.0, r"guidance 5 to 8, not 4\. .*shortft distil"),
        ("shapes-shortcut", 4, 7.5, r"guidance 3, not 7\.5"),
        ("shapes-fewstep", 4, 3.0, "as a few-step model, not as a shortcut"),
    ],
)
def test_jobs_that_a_row_cannot_serve_are_refused_before_loading(
    name: str, segments: int, guidance_scale: float, problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        catalog.check_shortcut(SHORTCUTS[name], segments, guidance_scale, "method.shortcut")


def test_a_shortcut_of_another_base_model_is_refused_by_name() -> None:
    entry = SHORTCUTS["hyper-sd15"]
    catalog.check_shortcut(entry, 4, 7.5, "method.shortcut", base_model="sd15")
    with pytest.raises(UserError, match="it belongs to sd15, not to shapes"):
        catalog.check_shortcut(entry, 4, 7.5, "method.shortcut", base_model="shapes")


@given(
    low=st.floats(1, 10), width=st.floats(0, 5), guidance_scale=st.floats(1, 20, allow_nan=False)
)
def test_guidance_is_accepted_exactly_inside_the_range(
    low: float, width: float, guidance_scale: float
) -> None:
    entry = replace(SHORTCUTS["hyper-sd15"], guidance_range=(low, low + width))
    inside = low <= guidance_scale <= low + width
    with nullcontext() if inside else pytest.raises(UserError, match="stands for guidance"):
        catalog.check_shortcut(entry, 4, guidance_scale, "method.shortcut")


BUNDLED = [
    (name, segments)
    for name, entry in SHORTCUTS.items()
    for segments, weights in entry.files.items()
    if weights.bundled
]


@pytest.mark.parametrize(("name", "segments"), BUNDLED)
def test_bundled_files_serve_their_base_model(name: str, segments: int) -> None:
    """The real files: their jumps are exactly those of the chain that a job runs."""
    model = models.load(Source(name="shapes"), device=torch.device("cpu"), dtype=torch.float32)
    if SHORTCUTS[name].use == "few_step":
        found = shortcuts.few_step(Source(name=name), model, segments)
        chain = few_step_plan(segments, spacing=found.spacing)
        assert found.jumps == tuple((e.timestep, e.next_timestep) for e in chain)
    else:
        found = shortcuts.load(Source(name=name), model, segments=segments, guidance_scale=3.0)
        refuse_untrained_jumps(jumps(plan(50, segments, 1)), found.jumps or ())
    weights = list(zip(model.denoiser.parameters(), found.model.denoiser.parameters(), strict=True))
    assert sum(not torch.equal(ours, theirs) for ours, theirs in weights) > 100
