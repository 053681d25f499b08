"""The job of `make demo` is fair: its evaluation prompts are new, and no pair is held out."""

from __future__ import annotations

from importlib.resources import as_file, files

from shortft_core import catalog
from shortft_core.oracle.scene import parse
from shortft_core.spec.read import read_spec


def test_the_demo_job_resolves_on_prompts_of_the_world_it_was_not_tuned_on() -> None:
    with as_file(files("shortft_core") / "bundled" / "demo.yaml") as path:
        spec = catalog.resolve(read_spec(path))
    assert spec.evaluation.prompts is not None
    tuned, held_out = spec.prompts.inline or (), spec.evaluation.prompts.inline or ()
    assert tuned
    assert held_out
    assert not set(tuned) & set(held_out)
    scenes = [parse(prompt) for prompt in (*tuned, *held_out)]
    assert all(scene is not None and not scene.is_held_out for scene in scenes)
    assert len(held_out) == spec.evaluation.count
