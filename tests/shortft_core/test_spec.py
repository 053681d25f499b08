from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from shortft_core.errors import UnknownNameError, UserError
from shortft_core.spec import AlignSpec, DraftK, JobSpec, PromptSource, ShortFT, Source, Spec
from shortft_core.spec import rewards as terms
from shortft_core.spec.read import parse_spec, read_spec


def job(**changes: Any) -> dict[str, Any]:
    """A small job as a user writes it, with top-level fields replaced."""
    return {
        "base_model": {"name": "shapes"},
        "method": {"type": "draft_k"},
        "rewards": [{"name": "hps_v2", "source": {"name": "shapes"}}, {"name": "symmetry"}],
        "prompts": {"name": "shapes-train"},
        **changes,
    }


def all_specs(kind: type[Spec]) -> set[type[Spec]]:
    return {kind}.union(*(all_specs(child) for child in kind.__subclasses__()))


def test_a_job_survives_json() -> None:
    spec = AlignSpec.model_validate(job())
    assert AlignSpec.model_validate_json(spec.model_dump_json()) == spec
    assert isinstance(spec.rewards[0], terms.HPSv2)
    assert isinstance(spec.rewards[1], terms.Symmetry)


def test_specifications_are_frozen_and_closed() -> None:
    spec = AlignSpec.model_validate(job())
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 1  # type: ignore[misc]
    for kind in all_specs(Spec):
        assert kind.model_config["frozen"], kind
        assert kind.model_config["extra"] == "forbid", kind


def test_an_unknown_field_is_named_with_its_path() -> None:
    with pytest.raises(ValidationError) as caught:
        AlignSpec.model_validate(job(method={"type": "draft_k", "learning_rte": 1e-3}))
    (error,) = caught.value.errors()
    assert error["type"] == "extra_forbidden"
    assert error["loc"][-1] == "learning_rte"


def test_every_reward_has_its_own_fields() -> None:
    with pytest.raises(ValidationError, match=r"antialias"):
        AlignSpec.model_validate(job(rewards=[{"name": "symmetry", "antialias": False}]))


@pytest.mark.parametrize(
    "source",
    [{}, {"name": "a", "path": "b"}, {"name": "a", "id": "o/n"}, {"name": "a", "revision": "main"}],
)
def test_a_source_is_exactly_one_place(source: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"exactly one|belongs to id"):
        Source.model_validate(source)


@pytest.mark.parametrize("hub_id", ["../..", "./model", "owner", "a/b/c", "/etc", "o/", "o/n\n"])
def test_a_hub_id_is_no_path(hub_id: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        Source(id=hub_id)


def test_a_source_reads_as_its_place() -> None:
    assert str(Source(name="shapes")) == "shapes"
    assert str(Source(path="models/mine")) == "models/mine"
    assert str(Source(id="owner/name.v1")) == "owner/name.v1@main"
    assert str(Source(id="owner/name", revision="abc")) == "owner/name@abc"


@pytest.mark.parametrize("source", [{}, {"name": "a", "inline": ["b"]}, {"id": "a", "path": "b"}])
def test_a_prompt_source_is_exactly_one_place(source: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        PromptSource.model_validate(source)


def test_a_reward_is_named_once() -> None:
    with pytest.raises(ValidationError, match="symmetry is named twice: merge the weights"):
        AlignSpec.model_validate(job(rewards=[{"name": "symmetry"}, {"name": "symmetry"}]))
    with pytest.raises(ValidationError, match="at least 1"):
        AlignSpec.model_validate(job(rewards=[]))


def test_a_length_is_updates_or_seconds() -> None:
    with pytest.raises(ValidationError, match="not both"):
        DraftK(updates=10, seconds=60)
    assert DraftK(seconds=60).updates is None


def test_draft_k_attaches_at_most_the_whole_chain() -> None:
    assert DraftK(steps=5, gradient_steps=5).gradient_steps == 5
    with pytest.raises(ValidationError, match=r"cannot exceed steps \(5\)"):
        DraftK(steps=5, gradient_steps=6)


@pytest.mark.parametrize("steps", [0, 1000])
def test_a_chain_outside_the_noise_levels_is_refused(steps: int) -> None:
    with pytest.raises(ValidationError, match="steps"):
        DraftK(steps=steps)


@pytest.mark.parametrize("field", ["learning_rate", "guidance_scale", "seconds", "max_grad_norm"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_are_finite(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        DraftK.model_validate({field: value})


def test_no_preset_takes_one_checkpoint_for_three_rewards() -> None:
    with pytest.raises(ValidationError, match="name them one by one"):
        terms.Combined(source=Source(path="weights"))


def test_equal_jobs_have_equal_hashes() -> None:
    one = AlignSpec.model_validate(job(metadata={"a": "1", "b": "2"}))
    other = AlignSpec.model_validate(job(metadata={"b": "2", "a": "1"}, seed=0))
    assert one == other
    assert one.sha256() == other.sha256()
    assert one.sha256() != one.model_copy(update={"seed": 1}).sha256()


def test_every_field_of_a_method_says_why() -> None:
    for kind in all_specs(Spec):
        for name, field in kind.model_fields.items():
            if kind.__module__ == "shortft_core.spec.methods" and name != "type":
                assert field.description, f"{kind.__name__}.{name}"


def test_a_file_gives_the_same_job_as_the_content(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(AlignSpec.model_validate(job()).model_dump_json(), encoding="utf-8")
    assert read_spec(path) == parse_spec(job())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"- a\n- b\n", "holds no mapping"),
        (b"a: [1\n", "is not YAML"),
        (b"name: \xff\n", "is not YAML"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_job_is_refused(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=problem):
        read_spec(path)


def test_a_misspelt_reward_gets_the_nearest_known() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean symmetry") as caught:
        parse_spec(job(rewards=[{"name": "symetry"}]))
    assert caught.value.field == "rewards.0.name"


def test_the_first_mistake_is_named_and_the_others_counted() -> None:
    with pytest.raises(UserError, match="1 more mistake") as caught:
        parse_spec(job(seed=-1, method={"type": "draft_k", "steps": 0}))
    assert caught.value.field == "method.steps"


@pytest.mark.parametrize(
    ("ablation", "options"),
    [
        ("no_progressive", {"prefix_pool": 8}),
        ("no_progressive", {"stage_switch": "plateau"}),
        ("no_tlora", {"stacking": "independent"}),
        ("no_tlora", {"detach_lower_branches": True}),
        ("no_tlora_all_steps", {"scope": "segment"}),
    ],
)
def test_what_an_ablation_would_ignore_is_refused(ablation: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"means nothing beside {ablation}"):
        ShortFT.model_validate({"ablation": ablation, **options})


def test_merged_rollouts_in_half_precision_are_refused() -> None:
    with pytest.raises(ValidationError, match="needs precision fp32"):
        ShortFT(merged_rollouts=True, precision="bf16")


@pytest.mark.parametrize("options", [{"shortcut": {"name": "a"}}, {"shortcut_guidance": 2.0}])
def test_a_naive_jump_has_no_shortcut(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="drop shortcut and shortcut_guidance"):
        ShortFT(ablation="naive_jump", **options)


REVISIONS: list[tuple[str, bool]] = [
    ("main", True), ("a" * 40, True), ("v1.5", True), ("refs/pr/7", True), ("feature/x-y_z", True),
    ("..", False), ("../../etc", False), ("a/../b", False), ("a..b", False), ("/etc", False),
    ("a//b", False), ("a/", False), ("", False), ("a b", False), ("a\0", False), ("a\n", False),
    ("x" * 201, False),
]  # fmt: skip


def test_a_revision_is_no_path() -> None:
    for revision, is_one in REVISIONS:
        content = {"id": "owner/name", "revision": revision}
        if is_one:
            assert Source.model_validate(content).revision == revision
        else:
            with pytest.raises(ValidationError, match="revision"):
                Source.model_validate(content)
    for field in ("name", "id"):
        with pytest.raises(ValidationError, match="at most 200 characters"):
            Source.model_validate({field: f"a/{'b' * 199}"})


def test_lists_have_a_longest_length() -> None:
    term = {"name": "symmetry"}
    with pytest.raises(ValidationError, match="symmetry is named twice"):
        AlignSpec.model_validate(job(rewards=[term] * 32))
    for changes in (
        {"rewards": [term] * 33},
        {"evaluation": {"held_out": ["hps_v2"] * 33}},
        {"method": {"type": "shortft", "stage_shares": [0.001] * 1_000}},
        {"kind": "distil", "method": None, "evaluation": {"rewards": [term] * 33}},
    ):
        content = job(**changes)
        if content.get("kind") == "distil":
            content = {key: content[key] for key in ("kind", "base_model", "prompts", "evaluation")}
        with pytest.raises(ValidationError, match=r"at most (32|999) items"):
            TypeAdapter(JobSpec).validate_python(content)
