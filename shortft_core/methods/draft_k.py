"""DRaFT-K (Clark et al., ICLR 2024): back-propagation through the last K denoising steps."""

from __future__ import annotations

from shortft_core.adapters import AdapterBank
from shortft_core.denoise import denoise
from shortft_core.methods import Batch, Outcome
from shortft_core.methods.objective import reward_outcome
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import Evaluation, draft_k_plan
from shortft_core.spec import DraftK


class DraftKMethod:
    """One branch on every step; the first T - K steps run without a graph."""

    def __init__(
        self, spec: DraftK, *, model: DiffusionModel, reward: Composite, seed: int
    ) -> None:
        if spec.guidance_scale is None:
            raise ValueError("guidance_scale is unresolved: pass the spec through catalog.resolve")
        self.guidance_scale = spec.guidance_scale
        self.model, self.reward = model, reward
        self.bank = AdapterBank(model.denoiser, branches=1, rank=spec.rank, seed=seed)
        self.bank.train_only((1,))
        self.inference_plan = draft_k_plan(
            spec.steps,
            spec.gradient_steps,
            train_timesteps=model.train_timesteps,
            offset=model.steps_offset,
        )

    def training_plan(self) -> tuple[Evaluation, ...]:
        """All T steps with branch 1; gradient on the last K."""
        return self.inference_plan

    def trained_branches(self) -> tuple[int, ...]:
        """The only branch."""
        return (1,)

    def loss(self, batch: Batch) -> Outcome:
        """-mean r(x0(theta), c), differentiated through the last K steps, VAE and reward."""
        latents = denoise(
            self.training_plan(),
            batch.prompts,
            batch.seeds,
            model=self.model,
            bank=self.bank,
            guidance_scale=self.guidance_scale,
        )
        return reward_outcome(latents, batch.prompts, model=self.model, reward=self.reward)


def build(spec: DraftK, *, model: DiffusionModel, reward: Composite, seed: int) -> DraftKMethod:
    """The method of `type: draft_k`."""
    return DraftKMethod(spec, model=model, reward=reward, seed=seed)
