from __future__ import annotations

from typing import Any, get_args

import pytest

from shortft_core import catalog, prompt_sets, schedule
from shortft_core.catalog import resolve, source_names
from shortft_core.errors import PlanError, UnknownNameError, UserError
from shortft_core.spec import AlignSpec, AnyReward, PromptSource, Source
from shortft_core.spec import rewards as terms


def job(**changes: Any) -> AlignSpec:
    content = {
        "base_model": {"name": "shapes"},
        "method": {"type": "draft_k"},
        "rewards": [{"name": "hps_v2"}],
        "prompts": {"name": "shapes-train"},
        **changes,
    }
    return AlignSpec.model_validate(content)


def unresolved(spec: AlignSpec) -> set[str]:
    """Fields that are None although something decides them."""
    found = {"evaluation.prompts"} if spec.evaluation.prompts is None else set()
    if spec.method.guidance_scale is None:
        found.add("method.guidance_scale")
    if spec.method.updates is None and spec.method.seconds is None:
        found.add("method.updates")
    for reward in spec.rewards:
        found |= {
            f"{reward.name}.{part}"
            for part in ("source", "clip")
            if part in type(reward).model_fields and getattr(reward, part) is None
        }
    return found


JOBS = {
    "defaults": job(),
    "everything": job(
        rewards=[{"name": name} for name, row in catalog.REWARDS.items() if row.differentiable]
    ),
    "hub": job(base_model={"id": "owner/name"}, prompts={"name": "drawbench"}),
    "folder": job(base_model={"path": "models/mine"}, prompts={"inline": ["a cat", "a dog"]}),
    "half": job(prompts={"name": "drawbench", "split": "eval"}),
    "seconds": job(method={"type": "draft_k", "seconds": 60, "guidance_scale": 2.0}),
}


@pytest.mark.parametrize("name", JOBS)
def test_resolving_leaves_nothing_open_and_is_idempotent(name: str) -> None:
    resolved = resolve(JOBS[name])
    assert unresolved(JOBS[name])
    assert unresolved(resolved) == set()
    assert resolve(resolved) == resolved
    assert AlignSpec.model_validate_json(resolved.model_dump_json()) == resolved


@pytest.mark.parametrize(
    ("base_model", "expected"),
    [
        ({"name": "shapes"}, 3.0),
        ({"name": "sd15"}, 7.5),
        ({"id": "CompVis/stable-diffusion-v1-4"}, 7.5),
        ({"id": "owner/name"}, catalog.DEFAULT_TUNING.guidance_scale),
    ],
)
def test_guidance_is_the_base_models_own(base_model: dict[str, str], expected: float) -> None:
    assert resolve(job(base_model=base_model)).method.guidance_scale == expected


@pytest.mark.parametrize(
    ("base_model", "expected"),
    [
        ({"name": "shapes"}, (16, 1e-3, 1)),
        # What DRaFT and ShortFT tune Stable Diffusion with: 16 images an update.
        ({"name": "sd15"}, (128, 1e-4, 4)),
        ({"path": "models/mine"}, (128, 1e-4, 4)),
    ],
)
def test_a_method_is_as_strong_as_its_base_model_takes(
    base_model: dict[str, str], expected: tuple[int, float, int]
) -> None:
    method = resolve(job(base_model=base_model)).method
    assert (method.rank, method.learning_rate, method.accumulation) == expected


TUNING = {"rank": 3, "learning_rate": 0.5, "accumulation": 7}
LEASHES = {"leash": 0.5, "reward_threshold": 0.9, "ema_decay": 0.9, "crop_margin": 0.1}


def test_what_the_user_gave_is_kept() -> None:
    given = job(
        method={"type": "draft_k", "updates": 7, "guidance_scale": 1.5, **TUNING, **LEASHES},
        rewards=[{"name": "aesthetic", "source": {"path": "head"}, "clip": {"path": "clip"}}],
        evaluation={"prompts": {"inline": ["a cat"]}, "held_out": ["pickscore", "oracle"]},
    )
    assert resolve(given) == given


def test_seconds_leave_the_updates_to_calibration() -> None:
    method = resolve(JOBS["seconds"]).method
    assert (method.seconds, method.updates) == (60, None)


def test_weights_are_those_made_for_the_base_model() -> None:
    def source(reward: str, base_model: str) -> Source | None:
        (term,) = resolve(job(rewards=[{"name": reward}], base_model={"name": base_model})).rewards
        assert isinstance(term, terms.PretrainedTerm | terms.Combined)
        return term.source

    assert source("hps_v2", "shapes") == Source(name="shapes")
    assert source("combined", "shapes") == Source(name="shapes")
    assert source("hps_v2", "sd15") == Source(name="official")
    assert source("hps_v2_1", "shapes") == Source(name="official")


@pytest.mark.parametrize(
    ("source", "clip"),
    [({"name": "shapes"}, "shapes"), ({"path": "head"}, "official"), (None, "shapes")],
)
def test_an_aesthetic_head_comes_with_its_clip(source: dict[str, str] | None, clip: str) -> None:
    (term,) = resolve(job(rewards=[{"name": "aesthetic", "source": source}])).rewards
    assert isinstance(term, terms.Aesthetic)
    assert term.clip == Source(name=clip)


def test_a_preset_takes_the_sources_that_all_its_rewards_have() -> None:
    assert source_names("hps_v2") == ("official", "shapes")
    assert source_names("hps_v2_1") == ("official",)
    assert source_names("combined") == ("official", "shapes")
    assert source_names("symmetry") == ()


@pytest.mark.parametrize(
    ("prompts", "training", "evaluation"),
    [
        ({"name": "shapes-train"}, {"name": "shapes-train"}, {"name": "shapes-eval"}),
        (
            {"name": "drawbench"},
            {"name": "drawbench", "split": "train"},
            {"name": "drawbench", "split": "eval"},
        ),
        (
            {"path": "a.csv", "column": "text", "split": "eval"},
            {"path": "a.csv", "column": "text", "split": "eval"},
            {"path": "a.csv", "column": "text", "split": "train"},
        ),
    ],
)
def test_evaluation_prompts_are_never_trained_on(
    prompts: dict[str, str], training: dict[str, str], evaluation: dict[str, str]
) -> None:
    resolved = resolve(job(prompts=prompts))
    assert resolved.prompts == PromptSource.model_validate(training)
    assert resolved.evaluation.prompts == PromptSource.model_validate(evaluation)


@pytest.mark.parametrize(
    ("changes", "field", "near"),
    [
        ({"base_model": {"name": "sd16"}}, "base_model.name", "sd15"),
        ({"prompts": {"name": "shapes-trian"}}, "prompts.name", "shapes-train"),
        (
            {"evaluation": {"prompts": {"name": "drawbnch"}}},
            "evaluation.prompts.name",
            "drawbench",
        ),
        (
            {"evaluation": {"held_out": ["oracle", "clipscor"]}},
            "evaluation.held_out.1",
            "clipscore",
        ),
        ({"evaluation": {"held_out": ["oracel"]}}, "evaluation.held_out.0", "oracle"),
        (
            {"rewards": [{"name": "symmetry"}, {"name": "hps_v2", "source": {"name": "shape"}}]},
            "rewards.1.source.name",
            "shapes",
        ),
        (
            {"rewards": [{"name": "hps_v2_1", "source": {"name": "shapes"}}]},
            "rewards.0.source.name",
            "official",
        ),
        (
            {"rewards": [{"name": "combined", "source": {"name": "offical"}}]},
            "rewards.0.source.name",
            "official",
        ),
        (
            {"rewards": [{"name": "aesthetic", "clip": {"name": "oficial"}}]},
            "rewards.0.clip.name",
            "official",
        ),
    ],
)
def test_an_unknown_name_is_reported_with_its_path(
    changes: dict[str, Any], field: str, near: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve(job(**changes))
    assert caught.value.field == field
    assert near in caught.value.remedy


def test_the_tables_name_exactly_what_a_specification_may() -> None:
    union, _ = get_args(AnyReward)
    by_name = {kind.model_fields["name"].default: kind for kind in get_args(union)}
    assert {name: entry.spec for name, entry in catalog.REWARDS.items()} == by_name
    for name, method in catalog.METHODS.items():
        assert method.spec.model_fields["type"].default == name
    assert catalog.PROMPT_SETS is prompt_sets.PROMPT_SETS


def test_every_reward_has_a_factory_or_is_a_sum_of_those_that_have() -> None:
    for name, entry in catalog.REWARDS.items():
        assert bool(entry.target) != bool(entry.preset), name
        assert set(entry.preset) <= set(catalog.REWARDS), name


def test_every_target_is_a_factory() -> None:
    rewards = {entry.target for entry in catalog.REWARDS.values() if entry.target}
    methods = {entry.target for entry in catalog.METHODS.values()}
    for target in (*rewards, *methods, catalog.ORACLE_TARGET):
        assert callable(catalog.load(target)), target


def test_find_gives_the_entry_or_the_nearest_names() -> None:
    assert catalog.find(catalog.METHODS, "draft_k", "method.type").target.endswith(":build")
    with pytest.raises(UnknownNameError, match="Did you mean draft_k"):
        catalog.find(catalog.METHODS, "draftk", "method.type")


def test_the_longest_chain_of_a_specification_is_that_of_the_schedule() -> None:
    (bound,) = (m.le for m in type(job().method).model_fields["steps"].metadata if hasattr(m, "le"))
    assert bound == schedule.longest_chain()


@pytest.mark.parametrize(
    ("method", "field", "problem"),
    [
        ({"segments": 5}, "method.shortcut", "no file for 5 segments"),
        ({"guidance_scale": 7.5}, "method.shortcut", "stands for guidance 3, not 7.5"),
        ({"updates": 3}, "method.updates", "3 updates cannot be shared by 4 stages"),
        ({"first_segment_grad_steps": 13}, "method.first_segment_grad_steps", "13 of the 12 steps"),
        ({"shortcut": {"name": "shapes-shortct"}}, "method.shortcut.name", "unknown name"),
        ({"shortcut": {"name": "hyper-sd15"}}, "method.shortcut", "belongs to sd15"),
    ],
)
def test_a_chain_that_its_shortcut_cannot_serve_is_refused(
    method: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        resolve(job(method={"type": "shortft"} | method))
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ({"steps": 30, "segments": 4}, "30 steps in 4 segments need the shortcut 727 -> 496"),
        ({"steps": 28, "segments": 4}, "crosses the border 500"),
        ({"segments": 8, "shortcut": {"name": "hyper-sd15-cfg"}, "guidance_scale": 3.0}, "5 to 8"),
    ],
)
def test_a_shortcut_of_parts_is_held_to_them(method: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        resolve(job(base_model={"name": "sd15"}, method={"type": "shortft"} | method))


def test_every_stage_needs_an_update_unless_there_is_only_one() -> None:
    few = {"type": "shortft", "updates": 3}
    assert resolve(job(method=few | {"ablation": "no_progressive"})).method.updates == 3
    with pytest.raises(PlanError, match="Use at least 4 updates"):
        resolve(job(method=few | {"ablation": "no_tlora"}))


def test_a_base_model_without_a_shortcut_says_what_to_do() -> None:
    with pytest.raises(UserError, match="distil one with `shortft distil`") as caught:
        resolve(job(base_model={"path": "models/mine"}, method={"type": "shortft"}))
    assert caught.value.field == "method.shortcut"


@pytest.mark.parametrize("method", catalog.METHODS)
def test_a_reward_without_gradient_is_refused_where_it_is_back_propagated(method: str) -> None:
    assert catalog.METHODS[method].needs_gradient
    spec = job(method={"type": method}, rewards=[{"name": "symmetry"}, {"name": "jpeg_size"}])
    with pytest.raises(UserError, match=f"{method} back-propagates it") as caught:
        resolve(spec)
    assert caught.value.field == "rewards.1.name"
