"""Trains some jobs as one process of however many there are; run by test_parallel.py."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

from shortft_core import methods, rewards
from shortft_core.artifacts import LocalStore
from shortft_core.checkpoint import Checkpoints
from shortft_core.evaluate import Evaluator, Panel
from shortft_core.events import Event, StepMetrics
from shortft_core.generate import Sampler
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.spec import AlignSpec
from shortft_core.trainer import Trainer
from tests.shortft_core.conftest import fresh_copy


def train_all(jobs: Mapping[str, AlignSpec], model: StableDiffusion, out: Path) -> None:
    """Trains each job into a folder of its name."""
    for name, spec in jobs.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        train(spec, fresh_copy(model), out / name)


def train(spec: AlignSpec, model: StableDiffusion, out: Path) -> None:
    """Trains in float64 and writes the branches, and the metrics of every update."""
    for part in (model.denoiser, model.vae, model.text_encoder):
        part.double()
    reward = rewards.build(spec.rewards, device=model.device, dtype=torch.float32)
    method = methods.build(spec.method, model=model, reward=reward, seed=spec.seed)
    for branch in range(1, method.bank.branches + 1):
        for weight in method.bank.parameters(branch):
            weight.data = weight.data.double()
    events: list[Event] = []
    sampler = Sampler(model=model, plan=method.inference_plan, guidance_scale=2.0, bank=method.bank)
    trainer = Trainer(
        spec=spec,
        method=method,
        prompts=spec.prompts.inline or (),
        evaluator=Evaluator(
            panel=Panel(prompts=("a star",), seeds=(1,), reward=reward, held_out={}),
            tuned=sampler,
            guard=spec.guard,
            store=LocalStore(out / "run"),
            emit=events.append,
        ),
        checkpoints=Checkpoints(LocalStore(out / "run"), spec.sha256(), model.fingerprint),
        emit=events.append,
    )
    trainer.run()
    rank = trainer.accelerator.process_index
    weights = {str(i): w.detach() for i, w in enumerate(trainer._parameters())}
    save_file(weights, out / f"{rank}.safetensors")
    steps = [event.model_dump(mode="json") for event in events if isinstance(event, StepMetrics)]
    (out / f"{rank}.json").write_text(json.dumps(steps))


def join(rank: int, processes: int, meeting_point: Path) -> None:
    """Makes this forked process one of several, as a launcher does by its environment."""
    # What accelerate knows of the process that this one was forked from.
    AcceleratorState._reset_state(reset_partial_state=True)
    for scope in ("", "LOCAL_"):
        place = {f"{scope}RANK": f"{rank}", f"{scope}WORLD_SIZE": f"{processes}"}
        os.environ |= place  # noqa: TID251 - for accelerate, which is told in no other way
    # They meet in a file: no port that another process may take first.
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=processes
    )
