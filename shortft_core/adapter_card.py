"""`shortft.json` and `README.md` of an adapter folder: what it is, and the one chain it serves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from shortft_core import catalog
from shortft_core.errors import ArtifactError, UserError
from shortft_core.schedule import Evaluation
from shortft_core.spec import Source, Spec

CARD_FILE: Final = "shortft.json"


class NoiseSchedule(Spec):
    """What a chain takes from the scheduler of its base model."""

    prediction_type: Literal["epsilon"] = "epsilon"
    train_timesteps: int
    """Noise levels of the training."""
    steps_offset: int
    """Timestep of the last step of a leading grid."""
    alphas_cumprod: tuple[float, ...]
    """Signal level at each timestep of the chain: what the beta schedule comes to."""

    def agrees_with(self, other: NoiseSchedule) -> bool:
        """Equal, up to the last digits of another machine's arithmetic."""
        near = all(
            math.isclose(ours, theirs, rel_tol=1e-9)
            for ours, theirs in zip(self.alphas_cumprod, other.alphas_cumprod, strict=False)
        )
        exact = {"prediction_type", "train_timesteps", "steps_offset"}
        same = self.model_dump(include=exact) == other.model_dump(include=exact)
        return near and same and len(self.alphas_cumprod) == len(other.alphas_cumprod)


class Origin(Spec):
    """What an adapter was made from."""

    base_model: Source
    """The model that was tuned; a hub id with its revision where the job named one."""
    base_sha256: str
    """Fingerprint of its denoiser, before anything was merged into it."""
    method: str
    """`type` of the method."""
    guidance_scale: float
    """Classifier-free guidance of the chain."""
    rewards: tuple[str, ...]
    """Names of the rewards that were optimised."""
    reward_weights: tuple[float, ...] = ()
    """Weight of each."""
    spec_sha256: str
    """Hash of the resolved job specification."""
    noise_schedule: NoiseSchedule | None = None
    """The schedule it was trained on."""
    segments: int | None = None
    """Segments of the chain, or calls of the few-step model."""
    shortcut: Source | None = None
    """What stood for parts of the chain during training; not needed to serve the adapter."""
    shortcut_sha256: str | None = None
    """Hash of the shortcut's file."""
    few_step: Source | None = None
    """The few-step model that was tuned, merged again before the branches are attached."""
    few_step_sha256: str | None = None
    """Hash of its file."""
    init_adapter: Source | None = None
    """A LoRA that was merged into the base first, and is again before the branches are attached."""
    init_adapter_sha256: str | None = None
    """Hash of its file."""


class AdapterCard(Origin):
    """`shortft.json`: the origin, the grid and the stacks that the branch files belong to."""

    version: Literal[1] = 1
    timesteps: tuple[int, ...]
    """The grid, first step first; no other grid is served."""
    next_timesteps: tuple[int, ...]
    stacks: tuple[tuple[int, ...], ...]
    """Branches that act at each timestep."""
    rank: int
    branches: tuple[str, ...]
    """File of each branch."""
    sha256: tuple[str, ...]
    """Hash of each file."""

    @property
    def plan(self) -> tuple[Evaluation, ...]:
        """The chain this adapter serves."""
        rows = zip(self.timesteps, self.next_timesteps, self.stacks, strict=True)
        return tuple(Evaluation(t, s, branches=stack) for t, s, stack in rows)


def read_card(folder: Path) -> AdapterCard:
    """The card of an adapter folder; UserError if there is none."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise UserError(
            "adapter", f"{folder} holds no {CARD_FILE}", "Give the folder of an adapter"
        )
    try:
        return AdapterCard.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ArtifactError(f"{path} is not an adapter card: {error}") from error


_README: Final = """# Adapter of {base}

Made by `{method}` for {rewards} at guidance {guidance_scale:g}. It serves one chain of \
{steps} DDIM steps and no other: {branches} LoRA branch(es) of rank {rank}, and at each step the \
sum of the branches that `shortft.json` names.

- `shortft generate "a prompt" --model {base} --adapter .` runs it, with merged weights.
- `branch_*.safetensors` are LoRA files with kohya keys; image tools and diffusers read them.
- `peft/branch_*` are the same branches for `peft.PeftModel.from_pretrained`.
{snippet}"""

_SNIPPET: Final = """
In diffusers, switch the branches by timestep:

```python
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

folder = "."
stacks = {stacks}  # timestep -> branches; the others run the base model

pipeline = StableDiffusionPipeline.from_pretrained({pipeline!r})
pipeline.scheduler = DDIMScheduler.from_config(
    pipeline.scheduler.config,
    timestep_spacing="leading",
    steps_offset={steps_offset},
    clip_sample=False,
    set_alpha_to_one=False,
)
for name in {names}:
    pipeline.load_lora_weights(folder, weight_name=name + ".safetensors", adapter_name=name)


def use_stack_of(timestep):
    active = stacks.get(int(timestep), [])
    if active:
        pipeline.enable_lora()
        pipeline.set_adapters(active)
    else:
        pipeline.disable_lora()


def switch(pipeline, index, timestep, inputs):
    # Runs after step `index`, so it sets what the next step needs.
    timesteps = pipeline.scheduler.timesteps
    if index + 1 < len(timesteps):
        use_stack_of(timesteps[index + 1])
    return inputs


use_stack_of({first})  # the first step comes before any callback
images = pipeline(
    "a prompt",
    num_inference_steps={steps},
    guidance_scale={guidance_scale},
    callback_on_step_end=switch,
    generator=torch.Generator().manual_seed(0),
    output_type="pt",
).images
```
"""

_NO_SNIPPET: Final = """
The branches sit on a model that was merged from {merged} first, which only `shortft` does.
"""


def readme(card: AdapterCard) -> str:
    """The README of an adapter folder; its snippet runs as it stands."""
    merged = card.few_step or card.init_adapter
    snippet = _NO_SNIPPET.format(merged=merged) if merged is not None else _snippet(card)
    return _README.format(
        base=card.base_model,
        method=card.method,
        rewards=", ".join(card.rewards),
        guidance_scale=card.guidance_scale,
        steps=len(card.timesteps),
        branches=len(card.branches),
        rank=card.rank,
        snippet=snippet,
    )


def _snippet(card: AdapterCard) -> str:
    names = [Path(name).stem for name in card.branches]
    rows = zip(card.timesteps, card.stacks, strict=True)
    return _SNIPPET.format(
        stacks={t: [names[branch - 1] for branch in stack] for t, stack in rows if stack},
        pipeline=_pipeline(card.base_model),
        steps_offset=card.noise_schedule.steps_offset if card.noise_schedule else 1,
        names=names,
        first=card.timesteps[0],
        steps=len(card.timesteps),
        guidance_scale=card.guidance_scale,
    )


def _pipeline(source: Source) -> str:
    """What `from_pretrained` calls a base model: a hub id or a folder."""
    weights = catalog.BASE_MODELS[source.name].weights if source.name else None
    if weights is not None:
        return weights.hub_id or f"shortft_core/bundled/{weights.bundled}"
    return source.id or source.path or ""
