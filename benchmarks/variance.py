"""Variance of each method's gradient over noise seeds, all at the same weights.

A branch is trained for a few updates and its weights are given to every method. For each prompt and
seed the gradient of the loss with respect to that branch is taken, without any optimizer. With
gradients g_1..g_n of one prompt and their mean m, the total variance is
V = sum |g_i - m|^2 / (n - 1), and |m|^2 - V / n estimates the squared norm of the true mean without
bias. The relative variance is the sum of V over prompts by the sum of that estimate.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.plotting import new_figure, save_figure
from benchmarks.results import (
    NOT_MEASURED,
    RESULTS,
    described,
    machine,
    markdown_table,
    picture,
    read_csv,
    read_json,
    write_csv,
    write_json,
)
from benchmarks.updates import PROMPTS, Tuning, build, job
from shortft_core import prompts as prompt_sets
from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.sampling import derive_seed
from shortft_core.spec import AlignProp, AnyMethod, DraftK, DRTune, ShortFT

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "variance.csv"
PICTURE: Final = RESULTS / "variance.png"
REFERENCE: Final = "full chain"
BRANCH: Final = 1
TRAINED_UPDATES: Final = 10
_COMMON: Final[Mapping[str, Any]] = {"rank": 16, "batch_size": 1, "updates": 100}
METHODS: Final[Mapping[str, AnyMethod]] = {
    REFERENCE: DraftK(gradient_steps=50, gradient_checkpointing=True, **_COMMON),
    "shortft": ShortFT(**_COMMON),
    "shortft_one_branch": ShortFT(ablation="no_tlora_all_steps", **_COMMON),
    "shortft_figure": ShortFT(first_segment_grad_steps=12, **_COMMON),
    "drtune": DRTune(trained_steps=5, **_COMMON),
    "alignprop": AlignProp(**_COMMON),
    "draft_1": DraftK(gradient_steps=1, **_COMMON),
}
Weights = Mapping[str, tuple[Tensor, Tensor]]


def trained_weights(updates: int = TRAINED_UPDATES) -> Weights:
    """One branch after a few updates of DRTune, so that no weight is zero any more."""
    spec = job(DRTune(trained_steps=5, rank=16, batch_size=4, updates=max(1, updates)))
    tuning = Tuning(spec, build(spec))
    for number in range(updates):
        tuning.update(tuning.batch(number))
    return {
        name: (down.clone(), up.clone())
        for name, (down, up) in tuning.method.bank.weights(BRANCH).items()
    }


def gradient(method: Backpropagation, prompt: str, seed: int) -> Tensor:
    """Gradient of the loss of one image with respect to the compared branch, as one vector."""
    weights = method.bank.parameters(BRANCH)
    draw = derive_seed("variance", prompt, seed)
    loss = method.loss(Batch(prompts=(prompt,), seeds=(seed,), draw=draw)).loss
    gradients = torch.autograd.grad(loss, weights)
    return torch.cat([part.flatten() for part in gradients])


def gradients_of(
    spec_method: AnyMethod, weights: Weights, prompts: Sequence[str], seeds: Sequence[int]
) -> Tensor:
    """All gradients of a method [prompts, seeds, parameters] in float32."""
    method = build(job(spec_method))
    method.bank.load_weights(BRANCH, weights)
    rows = [torch.stack([gradient(method, prompt, seed) for seed in seeds]) for prompt in prompts]
    return torch.stack(rows)


@dataclass(frozen=True, slots=True)
class Moments:
    """What the gradients [prompts, seeds, parameters] of one method have in common."""

    norm: float
    """Mean norm of a single gradient."""
    largest_to_median: float
    """Largest norm relative to the median one: heavy tails."""
    variance: float
    """Total variance of a single gradient, averaged over prompts."""
    relative_variance: float
    """Variance relative to the squared norm of the mean; infinite where noise hides the mean."""
    means: Tensor
    """Mean gradient of each prompt [prompts, parameters]."""


def moments(gradients: Tensor) -> Moments:
    """The estimates of the head of this file, in float64."""
    exact = gradients.double()
    count = exact.shape[1]
    means = exact.mean(1)
    variances = (exact - means[:, None]).square().sum((1, 2)) / (count - 1)
    signal = (means.square().sum(1) - variances / count).sum().item()
    norms = exact.norm(dim=2)
    return Moments(
        norm=norms.mean().item(),
        largest_to_median=(norms.max() / norms.median()).item(),
        variance=variances.mean().item(),
        relative_variance=variances.sum().item() / signal if signal > 0 else float("inf"),
        means=means,
    )


def cosines(found: Tensor, reference: Tensor) -> tuple[float, float]:
    """Mean cosine to the reference: of single gradients, and of the means of each prompt."""
    single = torch.cosine_similarity(found.double(), reference.double(), dim=2)
    mean = torch.cosine_similarity(found.double().mean(1), reference.double().mean(1), dim=1)
    return single.mean().item(), mean.mean().item()


def row_of(name: str, found: Tensor, reference: Tensor) -> dict[str, object]:
    """The row of one method."""
    summary, (single, mean) = moments(found), cosines(found, reference)
    return {
        "method": name,
        "prompts": found.shape[0],
        "seeds": found.shape[1],
        "mean_norm": f"{summary.norm:.4g}",
        "largest_to_median_norm": f"{summary.largest_to_median:.3g}",
        "variance": f"{summary.variance:.4g}",
        "relative_variance": f"{summary.relative_variance:.4g}",
        "cosine_of_single_gradients": f"{single:.4f}",
        "cosine_of_means": f"{mean:.4f}",
    }


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = trained_weights()
    prompts = prompt_sets.load(PROMPTS).prompts[: options.prompts]
    found: dict[str, Tensor] = {}
    for name, method in METHODS.items():
        found[name] = gradients_of(method, weights, prompts, range(options.seeds))
        log.info("%s: mean norm %.4g", name, fmean(found[name].norm(dim=2).flatten().tolist()))
    write([row_of(name, found[name], found[REFERENCE]) for name in found])


def write(rows: Sequence[Mapping[str, object]]) -> None:
    """The table, the picture, and the facts beside them."""
    write_csv(CSV, rows)
    facts = {"machine": machine(), "trained_updates": TRAINED_UPDATES}
    write_json(CSV.with_suffix(".json"), facts)
    figure, axes = new_figure(8, 4)
    names = [str(row["method"]) for row in rows]
    axes.bar(names, [float(str(row["relative_variance"])) for row in rows])
    axes.set_yscale("log")
    axes.set_ylabel("variance / squared norm of the mean")
    axes.tick_params(axis="x", rotation=20)
    save_figure(figure, PICTURE)


def section() -> str:
    """What the document says, from the files of `write`."""
    rows = read_csv(CSV)
    if not rows:
        return NOT_MEASURED
    head = [name.replace("_", " ") for name in rows[0]]
    facts = read_json(CSV.with_suffix(".json"))
    parts = [
        described(facts["machine"]),
        markdown_table(head, [list(row.values()) for row in rows]),
        picture(PICTURE, "Relative variance of the gradient"),
    ]
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    main()
