"""The methods a job may name: one class per method, chosen by `type`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from shortft_core.spec.common import Source, Spec


class Method(Spec):
    """What every method needs: chain, adapter, length, optimizer, and leashes on the reward."""

    steps: int = Field(default=50, ge=1, le=999)
    """Length of the DDIM chain; an adapter serves only the grid it was trained on."""
    guidance_scale: float | None = Field(default=None, ge=1.0)
    """Classifier-free guidance; by default the base model's own."""
    rank: int | None = Field(default=None, ge=1, le=1_024)
    """LoRA rank, 16 on `shapes` and 128 on others by default; alpha equals it, so the scale is
    always 1."""
    init_adapter: Source | None = None
    """A LoRA file that is merged into the base model first: tuning starts on top of it."""
    updates: int | None = Field(default=None, ge=1, le=1_000_000)
    """Optimizer updates; give this or `seconds`."""
    seconds: float | None = Field(default=None, gt=0)
    """Training time; three calibration updates turn it into `updates` once."""
    batch_size: int = Field(default=4, ge=1, le=4_096)
    """Images in memory at once, on each device."""
    accumulation: int | None = Field(default=None, ge=1, le=4_096)
    """Batches per update, 1 on `shapes` and 4 on others by default."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the frozen weights: by default bf16 on CUDA, and fp32 elsewhere and beside
    `merged_rollouts`. Branches, their optimizer and the chain's arithmetic stay in fp32."""
    gradient_checkpointing: bool = False
    """Recompute each attached denoiser call in the backward pass: memory of one call, a third
    more work."""
    merged_rollouts: bool = False
    """Run the calls without gradient on merged weights, merged anew for every update: faster, equal
    within rounding; for base weights in fp32, because half precision would round small branches
    away."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak of AdamW, 1e-3 on `shapes` and 1e-4 on others by default."""
    warmup_updates: int = Field(default=0, ge=0, le=1_000_000)
    """Linear warm-up of the learning rate."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """AdamW's decoupled decay of the branch weights."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient norm at which each branch is clipped."""
    checkpoint_every: int = Field(default=50, ge=1, le=1_000_000)
    """Updates between checkpoints."""
    preset: Literal["paper", "safe"] = "paper"
    """What the four leashes below are unless they are given: `paper` has none of them; `safe` has
    leash 0.1, threshold `auto`, EMA 0.995 and a crop of 1/64."""
    leash: float | None = Field(default=None, ge=0)
    """DRaFT+: weight of the mean squared distance of the attached noise predictions from the base
    model's; costs one base call each, attached where the latents are."""
    reward_threshold: float | Literal["auto", "off"] | None = None
    """Loss relu(threshold - r) per image, in raw units of the weighted sum; `auto` is two standard
    deviations above the base model's mean on the held-out panel."""
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    """Decay of the averaged branches, 0 for none; the average is what is evaluated, published, and
    frozen at a stage change."""
    crop_margin: float | None = Field(default=None, ge=0, lt=0.5)
    """Share of each side that a random crop leaves out before the reward sees the image
    (LongAlign: 8 of 512 pixels, against blocky artefacts); 0 beside `symmetry`, whose axis it would
    move."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.updates is not None and self.seconds is not None:
            raise ValueError("give updates or seconds, not both")
        return self

    @model_validator(mode="after")
    def _merged_in_full_precision(self) -> Self:
        if self.merged_rollouts and self.precision == "bf16":
            raise ValueError(
                "merged_rollouts needs precision fp32: bf16 rounds small branches away"
            )
        return self


_SHARED_BRANCH: Final = {"stacking": "cumulative", "detach_lower_branches": False}
_WITHOUT_EFFECT: Final[Mapping[str, Mapping[str, object]]] = {
    "no_progressive": {"stage_switch": "shares", "prefix_pool": 0},
    "no_tlora": _SHARED_BRANCH,
    "no_tlora_all_steps": {**_SHARED_BRANCH, "scope": "last_step"},
}
"""Ablation -> fields that mean nothing beside it, and the value that says nothing."""


class ShortFT(Method):
    """ShortFT (Guo et al., ICCV 2025): reward gradient through a chain shortened by jumps."""

    type: Literal["shortft"] = "shortft"
    segments: int = Field(default=4, ge=1)
    """k of the paper: segments of the chain, branches of the adapter, stages of the training."""
    shortcut: Source | None = None
    """The trajectory-preserving few-step model; by default the base model's own in the catalog."""
    shortcut_guidance: float | None = Field(default=None, ge=1.0)
    """Guidance of the jumps themselves; by default the shortcut's (1: one conditional call)."""
    stage_shares: tuple[float, ...] | None = Field(default=None, max_length=999)
    """Share of the updates that each stage gets; 55/20/15/10 % for four segments, because stage 1
    alone is cheaper than sampling one image, and halving shares for other numbers."""
    stage_switch: Literal["shares", "plateau"] = "shares"
    """Change the stage by shares, or earlier when the reward has stopped rising."""
    first_segment_grad_steps: int = Field(default=1, ge=1, le=999)
    """Steps at the end of segment 1 that carry gradient in stage 1: 1 gives the paper's 7 attached
    evaluations, 2 its 8, all of the segment's the gradient its figure draws."""
    scope: Literal["last_step", "segment"] = "last_step"
    """Where branch i >= 2 acts: on the last step of its segment (the paper), or on all of it."""
    stacking: Literal["cumulative", "independent"] = "cumulative"
    """What acts in segment i: branches 1..i (the paper), or branch i alone."""
    detach_lower_branches: bool = False
    """Whether branch j < i learns nothing from segment i; the paper detaches nothing."""
    ablation: Literal["none", "no_tlora", "no_tlora_all_steps", "no_progressive", "naive_jump"] = (
        "none"
    )
    """The paper's ablations: one LoRA shared by the same steps or by all of them, stage 1 only, and
    one DDIM step of the base model in place of the shortcut."""
    prefix_pool: int = Field(default=0, ge=0)
    """From stage 2 on, reuse the latents before the gradient starts for this many images (they are
    constant for a prompt and seed); 0 samples every image anew."""

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.segments > self.steps:
            raise ValueError(f"segments cannot exceed steps ({self.steps})")
        shares = self.stage_shares
        if shares is not None and len(shares) != self.segments:
            raise ValueError(f"stage_shares needs one share per segment ({self.segments})")
        if shares is not None and min(shares) <= 0:
            raise ValueError("stage_shares must all be positive")
        if shares is not None and not math.isclose(math.fsum(shares), 1.0, abs_tol=1e-6):
            raise ValueError(f"stage_shares sum to {math.fsum(shares):g}, not to 1")
        return self

    @model_validator(mode="after")
    def _naive_jump_needs_nothing(self) -> Self:
        given = self.shortcut is not None or self.shortcut_guidance is not None
        if self.ablation == "naive_jump" and given:
            raise ValueError(
                "naive_jump takes a step of the base model: drop shortcut and shortcut_guidance"
            )
        return self

    @model_validator(mode="after")
    def _ablation_ignores_nothing(self) -> Self:
        ignored = _WITHOUT_EFFECT.get(self.ablation, {})
        given = [name for name, without in ignored.items() if getattr(self, name) != without]
        if given:
            raise ValueError(f"{', '.join(given)} means nothing beside {self.ablation}: drop it")
        return self

    @model_validator(mode="after")
    def _pool_fits(self) -> Self:
        if self.prefix_pool % self.batch_size:
            raise ValueError(f"prefix_pool must be a multiple of batch_size ({self.batch_size})")
        shared = self.ablation in {"no_tlora", "no_tlora_all_steps"}
        if self.prefix_pool and (shared or self.scope == "segment"):
            raise ValueError(
                "prefix_pool needs prefixes that do not change: drop it beside scope segment and "
                "the no_tlora ablations, whose trained branch acts before the gradient starts"
            )
        return self


class DraftK(Method):
    """DRaFT-K (Clark et al., ICLR 2024): reward gradient through the last K denoising steps."""

    type: Literal["draft_k"] = "draft_k"
    gradient_steps: int = Field(default=1, ge=1, le=999)
    """K of the paper: attached steps at the end of the chain; K = steps is full DRaFT."""

    @model_validator(mode="after")
    def _k_within_chain(self) -> Self:
        if self.gradient_steps > self.steps:
            raise ValueError(f"gradient_steps cannot exceed steps ({self.steps})")
        return self


class DraftLV(Method):
    """DRaFT-LV (Clark et al., ICLR 2024): DRaFT-1 averaged over noised copies of the last step."""

    type: Literal["draft_lv"] = "draft_lv"
    noised_copies: int = Field(default=2, ge=0)
    """n of the paper: copies noised back to the last timestep, each with its own reward gradient;
    the loss is the mean over all n + 1, so that clipping means the same as for DRaFT-1."""


class ReFL(Method):
    """ReFL (Xu et al., NeurIPS 2023): gradient of the x0 predicted at one late random step."""

    type: Literal["refl"] = "refl"
    training_steps: int = Field(default=40, ge=1, le=999)
    """Length of the ancestral chain it trains on; the tuned model serves `steps`."""
    first_mid_step: int = Field(default=30, ge=0)
    """Earliest index of the attached step; the authors draw it from 30 to 39."""
    last_mid_step: int = Field(default=39, ge=0)
    """Latest index of the attached step."""
    training_guidance_scale: float = Field(default=1.0, ge=1.0)
    """The authors train without guidance, though the tuned model is sampled with it."""

    @model_validator(mode="after")
    def _mid_within_chain(self) -> Self:
        if not self.first_mid_step <= self.last_mid_step < self.training_steps:
            raise ValueError(
                "first_mid_step <= last_mid_step < training_steps must hold "
                f"({self.first_mid_step}, {self.last_mid_step}, {self.training_steps})"
            )
        return self


class AlignProp(Method):
    """AlignProp (Prabhudesai et al., 2023): full chain, randomly truncated noise predictions."""

    type: Literal["alignprop"] = "alignprop"
    gradient_checkpointing: bool = True
    """The authors checkpoint every denoiser call: about 25 of 50 are attached."""
    cut: Literal["per_step", "per_batch", "fixed"] = "per_step"
    """Draw the cut anew at each step (the published code: step i keeps its gradient with
    probability (i + 1) / (T + 1)), once per batch (the prose), or keep it at `cut_step`."""
    cut_step: int | None = Field(default=None, ge=0)
    """Steps before the first attached one under `fixed`; by default all but the last."""

    @model_validator(mode="after")
    def _cut_within_chain(self) -> Self:
        if self.cut_step is not None and self.cut != "fixed":
            raise ValueError("cut_step belongs to cut: fixed")
        if self.cut_step is not None and self.cut_step >= self.steps:
            raise ValueError(f"cut_step must lie below steps ({self.steps})")
        return self


class DRTune(Method):
    """DRTune (Wu et al., ECCV 2024): K equally spaced steps, denoiser inputs held constant."""

    type: Literal["drtune"] = "drtune"
    trained_steps: int = Field(default=5, ge=1, le=999)
    """K of the paper: steps whose noise prediction is attached, from a random start."""
    early_stop: int = Field(default=0, ge=0)
    """m of the paper: the chain ends in one jump to x0 at a step drawn from the last m; 0 for the
    whole chain. Trained steps after the stop are not made; at least the first always is."""

    @model_validator(mode="after")
    def _k_within_chain(self) -> Self:
        if self.trained_steps > self.steps:
            raise ValueError(f"trained_steps cannot exceed steps ({self.steps})")
        # The lowest number that the first trained step can have: a stop before it trains nothing.
        latest = 1 + (self.trained_steps - 1) * (self.steps // self.trained_steps)
        if self.early_stop > latest:
            raise ValueError(
                f"early_stop cannot exceed {latest} with {self.trained_steps} trained_steps of "
                f"{self.steps}: some draws would train nothing"
            )
        return self


class Direct(Method):
    """Direct tuning of the few-step model itself (ShortFT's Table 2): full gradient, k calls."""

    type: Literal["direct"] = "direct"
    segments: int = Field(default=4, ge=1)
    """Calls of the few-step model, all attached, without guidance."""
    few_step: Source | None = None
    """The few-step model; by default the base model's own in the catalog."""


AnyMethod = Annotated[
    ShortFT | DraftK | DraftLV | ReFL | AlignProp | DRTune | Direct,
    Field(discriminator="type"),
]
