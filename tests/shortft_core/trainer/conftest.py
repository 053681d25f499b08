"""ShortFT jobs on the tiny model, in folders that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shortft_core import methods, rewards
from shortft_core.artifacts import LocalStore
from shortft_core.checkpoint import Checkpoints, Manifest
from shortft_core.evaluate import Evaluator, Panel
from shortft_core.events import Event, PhaseStarted, StepMetrics
from shortft_core.generate import Sampler
from shortft_core.lora_files import write_kohya
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.spec import AlignSpec
from shortft_core.spec.read import parse_spec
from shortft_core.trainer import Trainer
from tests.shortft_core.conftest import fresh_copy

PROMPTS = ("a red circle", "a blue star", "a red star")


class Run:
    """One process's life of a job: from a fresh model and whatever its folder holds."""

    def __init__(self, spec: AlignSpec, model: StableDiffusion, folder: Path) -> None:
        self.events: list[Event] = []
        self.stop_after: int | None = None
        reward = rewards.build(spec.rewards, device=model.device, dtype=torch.float32)
        self.method = methods.build(spec.method, model=model, reward=reward, seed=spec.seed)
        store = LocalStore(folder)
        evaluator = Evaluator(
            panel=Panel(prompts=PROMPTS[:1], seeds=(1,), reward=reward, held_out={}),
            tuned=Sampler(
                model=self.method.model,
                # Its last step is enough: how a panel is sampled is shown elsewhere.
                plan=self.method.inference_plan[-1:],
                guidance_scale=2.0,
                bank=self.method.bank,
            ),
            guard=spec.guard,
            store=store,
            emit=self.events.append,
        )
        self.trainer = Trainer(
            spec=spec,
            method=self.method,
            prompts=PROMPTS,
            evaluator=evaluator,
            checkpoints=Checkpoints(store, spec.sha256(), model.fingerprint),
            emit=self.events.append,
            should_stop=lambda: self.trainer.state.update >= (self.stop_after or 10**9),
        )

    def go(self, stop_after: int | None = None) -> Manifest:
        self.stop_after = stop_after
        return self.trainer.run()

    def of(self, kind: type[Any]) -> Iterator[Any]:
        return (event for event in self.events if isinstance(event, kind))

    def stages(self) -> list[tuple[int, int | None]]:
        """(update, stage) of every update."""
        return [(step.update, step.stage) for step in self.of(StepMetrics)]

    def entered(self) -> list[int | None]:
        return [event.stage for event in self.of(PhaseStarted)]

    def weights(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.trainer._parameters()]

    def constant_reward(self, value: float) -> None:
        self.method.objective.reward.parts = ((Constant(value), 1.0),)


class Constant:
    """A reward that says the same of every image, with a gradient of zero."""

    name = "brightness"

    def __init__(self, value: float) -> None:
        self.value = value

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        return images.mean(dim=(1, 2, 3)) * 0 + self.value


@pytest.fixture(scope="session")
def few_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    generator = torch.Generator().manual_seed(7)
    down, up = torch.randn(2, 8, generator=generator), torch.randn(8, 2, generator=generator)
    path = tmp_path_factory.mktemp("few-step") / "few-step.safetensors"
    write_kohya(path, {layer: (down, up)}, dtype=torch.float32, header={})
    return path


@pytest.fixture
def job(few_step: Path) -> Callable[..., AlignSpec]:
    """Eight steps in four segments and two updates for each of the four stages."""

    def make(**method: Any) -> AlignSpec:
        options = {
            "type": "shortft",
            "shortcut": {"path": str(few_step)},
            "steps": 8,
            "guidance_scale": 2.0,
            "accumulation": 1,
            "rank": 2,
            "batch_size": 1,
            "updates": 8,
            "stage_shares": [0.25, 0.25, 0.25, 0.25],
            "learning_rate": 0.01,
            "checkpoint_every": 100,
        }
        return parse_spec(
            {
                "base_model": {"path": "tiny"},
                "method": {k: v for k, v in (options | method).items() if v is not None},
                "rewards": [{"name": "brightness"}],
                "prompts": {"inline": list(PROMPTS)},
                "evaluation": {"every_updates": 1000},
            }
        )

    return make


@pytest.fixture
def start(tiny: StableDiffusion, tmp_path: Path) -> Callable[..., Run]:
    return lambda spec, folder="run": Run(spec, fresh_copy(tiny), tmp_path / folder)
