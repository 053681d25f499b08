"""Trains some jobs as one process of however many were launched; run by test_parallel.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from shortft_core import methods, models, rewards
from shortft_core.artifacts import LocalStore
from shortft_core.checkpoint import Checkpoints
from shortft_core.evaluate import Evaluator, Panel
from shortft_core.events import Event, StepMetrics
from shortft_core.generate import Sampler
from shortft_core.spec import AlignSpec, Source
from shortft_core.trainer import Trainer

CPU = torch.device("cpu")


def train(spec: AlignSpec, folder: Path, out: Path) -> None:
    """Trains in float64 and writes the branches, and the metrics of every update."""
    model = models.load(Source(path=str(folder)), device=CPU, dtype=torch.float32)
    for part in (model.denoiser, model.vae, model.text_encoder):  # type: ignore[attr-defined]
        part.double()
    reward = rewards.build(spec.rewards, device=CPU, dtype=torch.float32)
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


if __name__ == "__main__":
    jobs, model_folder, results = map(Path, sys.argv[1:])
    for name, content in json.loads(jobs.read_text()).items():
        (results / name).mkdir(parents=True, exist_ok=True)
        train(AlignSpec.model_validate(content), model_folder, results / name)
