"""Writes the prompt sets of the `shapes` world; the same seed gives the same files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from shapes.renderer import captions, draw_scenes

log = logging.getLogger("shapes")

FOLDER: Final = Path(__file__).parent.parent / "shortft_core" / "bundled" / "prompts"
SEED: Final = 701
TWO_SHAPES: Final = 0.4
COUNTS: Final = {"shapes-train": 512, "shapes-eval": 256}
HELD_OUT_COUNT: Final = 128


def prompt_sets() -> dict[str, list[str]]:
    """Name -> distinct captions; no caption is in two sets, held-out pairs only in one."""
    seen = _distinct(held_out=False)
    sets = {name: list(islice(seen, count)) for name, count in COUNTS.items()}
    sets["shapes-held-out"] = list(islice(_distinct(held_out=True), HELD_OUT_COUNT))
    return sets


def _distinct(*, held_out: bool) -> Iterator[str]:
    rng = np.random.default_rng((SEED, held_out))
    seen: set[str] = set()
    while True:
        scenes = draw_scenes(rng, 256, held_out=held_out, two_shapes=TWO_SHAPES)
        for caption in captions(rng, scenes):
            if caption not in seen:
                seen.add(caption)
                yield caption


def main() -> None:
    """Writes one file per set, a caption per line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, prompts in prompt_sets().items():
        text = "".join(f"{prompt}\n" for prompt in prompts)
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")
        log.info("%s: %d prompts", name, len(prompts))


if __name__ == "__main__":
    main()
