"""Why a cell cannot run yet."""

from __future__ import annotations

from benchmarks.alignment.budget import Calibration
from benchmarks.alignment.cells import BASE_MODEL, VARIANTS, Cell, Folders
from benchmarks.alignment.sweep import chosen_rate
from shortft_core import catalog
from shortft_core.errors import MissingWeightsError
from shortft_core.spec import Direct, ShortFT
from shortft_core.weights import locate


def obstacle(cell: Cell, folders: Folders) -> str | None:
    """What is missing before the cell can run; None if nothing is."""
    if missing := missing_weights(cell.variant):
        return missing
    if cell.is_untuned:
        return None
    if not Calibration.read(folders.calibration).knows(cell.variant):
        return f"{cell.variant} or the variant that sets the budget is not calibrated"
    if not cell.is_sweep and chosen_rate(cell.variant, folders) is None:
        return f"no learning rate of {cell.variant} was chosen"
    return None


def missing_weights(variant: str) -> str | None:
    """The distilled model that the variant waits for."""
    name = distilled_model(variant)
    if name is None:
        return None
    weights = catalog.SHORTCUTS[name].files[4]
    try:
        locate(weights, field=name)
    except MissingWeightsError as error:
        return str(error)
    return None


def distilled_model(variant: str) -> str | None:
    """The catalog's name of the few-step model that a variant is made with."""
    base = catalog.BASE_MODELS[BASE_MODEL.name or ""]
    method = VARIANTS.get(variant)
    if isinstance(method, Direct) or variant == "few_step":
        return base.few_step
    return base.shortcut if isinstance(method, ShortFT) else None
