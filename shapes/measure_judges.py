"""Measures the bundled judges on rendered images and writes `shapes/cards/judges.json`."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from shapes import train_aesthetic, train_hps, train_pick
from shapes.contrast import normalize, reconstructor
from shapes.data import batch
from shapes.degradations import soften
from shapes.hard_negatives import SWAPS, possible_swaps, stated, swap_one
from shapes.preferences import REASONS, preferences
from shapes.quality import rated_images
from shortft_core.clip_embedder import ClipEmbedder, load_clip
from shortft_core.oracle import reader
from shortft_core.oracle.reading import ATTRIBUTES, compare, total
from shortft_core.rewards import aesthetic
from shortft_core.rewards.hps import OpenClip, load_open_clip
from shortft_core.spec import Source
from shortft_core.spec.rewards import Aesthetic
from shortft_core.weights import BUNDLED, read_tensors

log = logging.getLogger("shapes")

SEED: Final = 901
"""No training uses it."""
GROUP: Final = 256
"""Images and captions that are retrieved from each other."""
CPU: Final = torch.device("cpu")
CARD: Final = Path(__file__).parent / "cards" / "judges.json"
SETS: Final = {"trained_pairs": False, "held_out_pairs": True}
"""Name -> whether the scenes show pairs that no training has seen."""

Figures = dict[str, Any]
Worsen = Callable[[Tensor, np.random.Generator], Tensor]


def measure_oracle(vae_folder: Path) -> Figures:
    """Accuracy per attribute on clean renders, and on softened ones a quarter of which is VAE's."""
    network = reader.load_reader().eval()
    reconstruct = reconstructor(vae_folder)

    def softened(images: Tensor, rng: np.random.Generator) -> Tensor:
        return soften(images, rng, reconstruct)

    figures: Figures = {"parameters": _parameters(network)}
    for name, held_out in SETS.items():
        figures[name] = _oracle_accuracy(
            network, 16, held_out=held_out, worsen=lambda images, _: images
        )
        figures[f"{name}_softened"] = _oracle_accuracy(
            network, 2, held_out=held_out, worsen=softened
        )
    return figures


def _oracle_accuracy(
    network: reader.Reader, groups: int, *, held_out: bool, worsen: Worsen
) -> Figures:
    comparisons, counts = [], []
    for step in range(groups):
        scenes, images, _ = batch(SEED, step, GROUP, held_out=held_out)
        readings = reader.read(network, worsen(images, np.random.default_rng((SEED, step))))
        truths = [scenes.scene(i) for i in range(GROUP)]
        comparisons += [compare(*pair) for pair in zip(readings, truths, strict=True)]
        counts += [
            len(reading.shapes) == len(truth.shapes)
            for reading, truth in zip(readings, truths, strict=True)
        ]
    summed = total(comparisons)
    rates = {attribute: summed.rate(attribute) for attribute in ATTRIBUTES}
    figures: Figures = {name: _rounded(rate) for name, rate in rates.items()}
    return figures | {"count": _rounded(np.mean(counts)), "images": groups * GROUP}


def pick_clip() -> ClipEmbedder:
    """`shapes-pick` as the rewards load it."""
    return load_clip(train_pick.FOLDER, device=CPU, dtype=torch.float32, field="pick")


def hps_clip() -> ClipEmbedder:
    """`shapes-hps` as the rewards load it."""
    model = load_open_clip(train_hps.FOLDER / train_hps.FILE, field="hps")
    return OpenClip(model, device=CPU, dtype=torch.float32)


@torch.no_grad()
def measure_retrieval(clip: ClipEmbedder, *, held_out: bool, groups: int = 8) -> Figures:
    """Top-1 retrieval within groups of 256, and one true caption against one with one swap."""
    to_text, to_image = [], []
    swaps: dict[str, list[bool]] = {swap: [] for swap in SWAPS}
    rng = np.random.default_rng((SEED, 1))
    for step in range(groups):
        _, images, captions = batch(SEED, step, GROUP, held_out=held_out)
        seen, said = clip.embed_images(normalize(images)), clip.embed_texts(captions)
        similarity = seen @ said.T
        # Two scenes of a group may have the same caption; either one is right then.
        to_text += [captions[j] == captions[i] for i, j in enumerate(similarity.argmax(1).tolist())]
        to_image += [
            captions[j] == captions[i] for i, j in enumerate(similarity.argmax(0).tolist())
        ]
        for swap, right in _against_swaps(clip, seen, captions, rng):
            swaps[swap].append(right)
    return {
        "image_to_text_1_of_256": _rounded(np.mean(to_text)),
        "text_to_image_1_of_256": _rounded(np.mean(to_image)),
        "images": groups * GROUP,
        "against_one_swap": {
            swap: {"accuracy": _rounded(np.mean(right)), "pairs": len(right)}
            for swap, right in swaps.items()
        },
    }


def _against_swaps(
    clip: ClipEmbedder, seen: Tensor, captions: list[str], rng: np.random.Generator
) -> list[tuple[str, bool]]:
    """For each image and each possible swap: is the true caption nearer than the false one?"""
    rows, names, wrong = [], [], []
    for row, caption in enumerate(captions):
        scene = stated(caption)
        for swap in possible_swaps(scene):
            made, false = swap_one(scene, rng, swap)
            rows.append(row)
            names.append(made)
            wrong.append(false.caption())
    true = (seen * clip.embed_texts(captions)).sum(-1)[rows]
    false_ones = (seen[rows] * clip.embed_texts(wrong)).sum(-1)
    return list(zip(names, (true > false_ones).tolist(), strict=True))


@torch.no_grad()
def measure_preferences(clip: ClipEmbedder, *, held_out: bool, groups: int = 8) -> Figures:
    """How often the better image of a pair scores higher, by what is wrong with the other one."""
    right: dict[str, list[bool]] = {reason: [] for reason in REASONS}
    for step in range(groups):
        data = preferences(SEED, step, GROUP, held_out=held_out)
        said = clip.embed_texts(data.captions)
        better, worse = (
            (clip.embed_images(normalize(x)) * said).sum(-1) for x in (data.better, data.worse)
        )
        for reason, is_right in zip(data.reasons, (better > worse).tolist(), strict=True):
            right[reason].append(is_right)
    everything = [is_right for values in right.values() for is_right in values]
    return {
        "accuracy": _rounded(np.mean(everything)),
        "pairs": len(everything),
        "by_reason": {
            reason: {"accuracy": _rounded(np.mean(values)), "pairs": len(values)}
            for reason, values in right.items()
        },
    }


@torch.no_grad()
def measure_aesthetic(groups: int = 16) -> Figures:
    """Determination and rank correlation of the reward with the stated quality."""
    term = Aesthetic(name="aesthetic", source=Source(name="shapes"))
    reward = aesthetic.build(term, device=CPU, dtype=torch.float32, field="aesthetic")
    parts = [rated_images(SEED, step, GROUP) for step in range(groups)]
    found = torch.cat([reward.score(images, [""] * GROUP) for images, _ in parts])
    truth = torch.cat([score for _, score in parts])
    left = (found - truth).square().sum() / (truth - truth.mean()).square().sum()
    ranks = torch.stack([found.argsort().argsort(), truth.argsort().argsort()]).double()
    head = read_tensors(train_aesthetic.FOLDER / train_aesthetic.FILE, field="aesthetic")
    return {
        "r_squared": _rounded(1 - left.item()),
        "spearman": _rounded(torch.corrcoef(ranks)[0, 1].item()),
        "images": groups * GROUP,
        "parameters": sum(tensor.numel() for tensor in head.values()),
    }


def _rounded(value: float | np.floating[Any] | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _files(folder: Path) -> Figures:
    return {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.iterdir())
    }


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def measure(vae_folder: Path) -> Figures:
    """All figures of the card."""
    clips = {"shapes-pick": pick_clip(), "shapes-hps": hps_clip()}
    figures: Figures = {"seed": SEED, "oracle": measure_oracle(vae_folder)}
    for name, clip in clips.items():
        figures[name] = {"parameters": _parameters(clip.model)}
        for pairs, held_out in SETS.items():
            figures[name][pairs] = {
                "retrieval": measure_retrieval(clip, held_out=held_out),
                "preferences": measure_preferences(clip, held_out=held_out),
            }
        log.info("measured %s", name)
    figures["shapes-aesthetic"] = measure_aesthetic()
    for name in ("oracle", "shapes-pick", "shapes-hps", "shapes-aesthetic"):
        figures[name]["files"] = _files(BUNDLED / name)
    return figures


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, default=Path("shapes/out/vae"))
    options = parser.parse_args()
    CARD.parent.mkdir(exist_ok=True)
    CARD.write_text(json.dumps(measure(options.vae), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
