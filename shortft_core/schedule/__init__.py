"""The denoising chain as data: which evaluations a training step or a sampling run makes.

Training, evaluation, inference and the counters all run the records made here; nothing is drawn.
"""

from shortft_core.schedule.baselines import (
    Spacing,
    alignprop_plan,
    draft_k_plan,
    drtune_plan,
    drtune_starts,
    drtune_steps,
    few_step_plan,
    refl_plan,
)
from shortft_core.schedule.chain import (
    CLEAN,
    PREDICTED,
    Evaluation,
    Plan,
    attach,
    base_plan,
    counts,
    ddim_grid,
    equal_borders,
    forward_units,
    leash_calls,
    longest_chain,
    segment_indices,
)
from shortft_core.schedule.shortft import (
    PAPER,
    Readings,
    Scope,
    Stacking,
    inference_plan,
    jumps,
    plan,
    refuse_untrained_jumps,
)

__all__ = [
    "CLEAN",
    "PAPER",
    "PREDICTED",
    "Evaluation",
    "Plan",
    "Readings",
    "Scope",
    "Spacing",
    "Stacking",
    "alignprop_plan",
    "attach",
    "base_plan",
    "counts",
    "ddim_grid",
    "draft_k_plan",
    "drtune_plan",
    "drtune_starts",
    "drtune_steps",
    "equal_borders",
    "few_step_plan",
    "forward_units",
    "inference_plan",
    "jumps",
    "leash_calls",
    "longest_chain",
    "plan",
    "refl_plan",
    "refuse_untrained_jumps",
    "segment_indices",
]
