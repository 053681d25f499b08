"""Which chain the adapters of a request serve; they decide steps and grid, the caller the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from shortft_core.adapter_card import AdapterCard
from shortft_core.errors import ArtifactError, UserError
from shortft_core.spec import Source
from shortft_core.spec.generation import ServedAdapter
from store.adapter_references import AdapterReference
from store.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class ChosenAdapter:
    """A stored adapter and its card."""

    served: ServedAdapter
    base_model: Source
    card: AdapterCard


def read_adapter(objects: ObjectStore, found: AdapterReference, scale: float) -> ChosenAdapter:
    """The adapter with its card; raises ArtifactError if its folder is gone or torn."""
    data = objects.read(found.card_key)
    try:
        card = AdapterCard.model_validate_json(data)
    except ValidationError as error:
        raise ArtifactError(f"{found.card_key} is not an adapter card: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    served = ServedAdapter(id=found.id, prefix=found.prefix, card_sha256=digest, scale=scale)
    return ChosenAdapter(served, found.base_model, card)


def refuse_mixture(chosen: Sequence[ChosenAdapter]) -> None:
    """Raises UserError unless all adapters belong to one model and one chain."""
    first = chosen[0]
    for index, other in enumerate(chosen[1:], start=1):
        # Of one adapter there are several names.
        if other.served.prefix in {earlier.served.prefix for earlier in chosen[:index]}:
            raise UserError(
                f"adapters.{index}.id", "it is named twice", "Name it once, with the sum of scales"
            )
        differing = _difference(first.card, other.card)
        if differing is not None:
            raise UserError(
                f"adapters.{index}.id",
                f"its {differing} is another than that of {first.served.id}",
                "Combine adapters of one base model and one chain only",
            )


def check_steps(chosen: Sequence[ChosenAdapter], steps: int | None) -> int:
    """Steps of the adapters' chain; raises UserError if the caller asks for others."""
    fixed = len(chosen[0].card.timesteps)
    if steps not in {None, fixed}:
        raise UserError(
            "num_inference_steps",
            f"{chosen[0].served.id} serves a chain of {fixed} steps and no other",
            f"Leave it out, or give {fixed}",
        )
    return fixed


def guidance_warnings(chosen: Sequence[ChosenAdapter], guidance_scale: float) -> tuple[str, ...]:
    """One sentence for each adapter that was trained at another guidance."""
    return tuple(
        f"{adapter.served.id} was trained at guidance {adapter.card.guidance_scale:g}, "
        f"not {guidance_scale:g}"
        for adapter in chosen
        if adapter.card.guidance_scale != guidance_scale
    )


def _difference(card: AdapterCard, other: AdapterCard) -> str | None:
    """What two adapters cannot share a chain for; None where they can."""
    if other.base_sha256 != card.base_sha256:
        return "base model"
    if (other.few_step_sha256, other.init_adapter_sha256) != (
        card.few_step_sha256,
        card.init_adapter_sha256,
    ):
        return "foundation"
    if (other.timesteps, other.next_timesteps) != (card.timesteps, card.next_timesteps):
        return "chain"
    ours, theirs = card.noise_schedule, other.noise_schedule
    agree = ours is None or theirs is None or ours.agrees_with(theirs)
    return None if agree else "noise schedule"
