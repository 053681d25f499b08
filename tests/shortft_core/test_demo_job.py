"""The job of `make demo` is fair: its evaluation prompts are new, and no pair is held out."""

from __future__ import annotations

from importlib.resources import as_file, files

import torch

from shortft_core import catalog
from shortft_core.device import choose_dtype
from shortft_core.oracle.scene import parse
from shortft_core.spec import AlignSpec
from shortft_core.spec.read import read_spec


def demo() -> AlignSpec:
    """As `make demo` submits it, resolved."""
    with as_file(files("shortft_core") / "bundled" / "demo.yaml") as path:
        spec = read_spec(path)
    assert isinstance(spec, AlignSpec)
    return catalog.resolve(spec)


def test_the_demo_job_runs_on_a_gpu_too() -> None:
    """Merged rollouts take fp32 weights, which `auto` chooses for them there."""
    method = demo().method
    assert method.merged_rollouts
    on_gpu = choose_dtype(torch.device("cuda"), method.precision, merged=method.merged_rollouts)
    assert on_gpu is torch.float32
    assert choose_dtype(torch.device("cuda"), method.precision) is torch.bfloat16


def test_the_demo_job_resolves_on_prompts_of_the_world_it_was_not_tuned_on() -> None:
    spec = demo()
    assert spec.evaluation.prompts is not None
    tuned, held_out = spec.prompts.inline or (), spec.evaluation.prompts.inline or ()
    assert tuned
    assert held_out
    assert not set(tuned) & set(held_out)
    scenes = [parse(prompt) for prompt in (*tuned, *held_out)]
    assert all(scene is not None and not scene.is_held_out for scene in scenes)
    assert len(held_out) == spec.evaluation.count
