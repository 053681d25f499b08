"""Writes the model card of the bundled weights from recipes, training logs and measured figures."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from shapes import train_aesthetic, train_hps, train_oracle, train_pick, train_unet, train_vae
from shapes.training import Recipe
from shortft_core.weights import BUNDLED

CARDS: Final = Path(__file__).parent / "cards"
CARD: Final = BUNDLED / "README.md"
RECIPES: Final[tuple[Recipe, ...]] = (
    train_vae.WHOLE,
    train_vae.FOCUS,
    train_unet.RECIPE,
    train_oracle.RECIPE,
    train_pick.RECIPE,
    train_pick.RELATIONS,
    train_hps.CONTRAST,
    train_hps.PREFERENCE,
    train_aesthetic.RECIPE,
)
_SHIFTS: Final = "reward_shifts_in_std"
PAUSE: Final = timedelta(minutes=4)
"""A longer silence in a log is a stop, not training."""
_LINE: Final = re.compile(r"^(\S+ [\d:]+),\d+ (\S+) (\d+) loss ")

HEAD: Final = """# Bundled weights: the `shapes` world

Written by `python -m shapes.write_card`; every figure comes from a committed script.

Small, trained models of a rendered world, so that a fresh machine, the tests and every comparison
have a real text-to-image model without a download: one or two shapes (circle, square, triangle,
star, heart, ring, cross, diamond) in twelve colors and three sizes, with relations (left of, right
of, above, below), on a colored background, 64 x 64 pixels. One color-kind pair in eight is held out
of all training. Licence: Apache-2.0, like the rest of the project.

| part | what it is | layout |
|---|---|---|
| `shapes-base` | text encoder, UNet, VAE | diffusers `StableDiffusionPipeline` folder, fp16 |
| `shapes-pick` | CLIP, trained contrastively | transformers folder as `PickScore_v1` |
| `shapes-hps` | another CLIP, tuned on synthetic preferences | HPS v2 checkpoint, open_clip keys |
| `shapes-aesthetic` | five Linear layers on `shapes-pick` | LAION aesthetic predictor v2 |
| `shapes-shortcut` | jumps within the chain of `shapes-base`, one file per k | kohya LoRA, card |
| `shapes-fewstep` | generator of k calls that follows `shapes-base` | kohya LoRA, card |
| `oracle` | detector of shape, color, size, place | held-out judge; never a reward |
| `prompts` | training, evaluation and held-out-pair prompts | one per line |

**What the base model cannot do.** Anything outside this world: other words fall back to bytes it
never saw. Three or more shapes, other relations, sizes beside the three, positions in words.
Small stars and triangles come out soft, because an 8-pixel radius is four latents wide. Relations
and colors of two-shape prompts fail more often than single shapes: the figures below say how often.
It is sampled at guidance 3; other scales were not measured.

**Where the committed weights depart from the committed scripts.** The first 2,400 VAE steps ran
with the image gradients of the loss averaged over 63 instead of 64 differences a row. The oracle
and the first part of `shapes-pick` saw softened images of the VAE before its second part
(`vae-focus`). Trainings were stopped and resumed with one or two threads, which changes the order
of floating-point sums. Retraining gives models of the same kind, not the same bits.
"""


def main() -> None:
    """Writes the card."""
    base = json.loads((CARDS / "base.json").read_text(encoding="utf-8"))
    judges = json.loads((CARDS / "judges.json").read_text(encoding="utf-8"))
    shortcuts = json.loads((CARDS / "shortcuts.json").read_text(encoding="utf-8"))
    sections = (
        HEAD,
        _training(),
        _agreement(base),
        _shortcuts(shortcuts),
        _section("Judges", judges),
        _files(),
    )
    CARD.write_text("\n".join(sections), encoding="utf-8")


def _training() -> str:
    rows = [
        (
            recipe.name,
            str(recipe.steps),
            f"{recipe.learning_rate:g}",
            str(recipe.seed),
            f"{minutes(recipe):.1f}",
        )
        for recipe in RECIPES
    ]
    text = _table(("part", "steps", "peak learning rate", "seed", "minutes"), rows)
    return (
        "## Training\n\nOn two cores of an AMD EPYC shared with other work, bf16 autocast, AdamW, "
        "one cycle; minutes are wall time from the logs in `shapes/cards/logs`. "
        f"`make -C shapes all` retrains everything from nothing.\n\n{text}"
    )


def minutes(recipe: Recipe) -> float:
    """Wall minutes of a training by the time stamps of its log, stops left out."""
    stamps = []
    for path in sorted((CARDS / "logs").glob("*.log")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = _LINE.match(line)
            if found and found[2] == recipe.name:
                stamps.append(datetime.fromisoformat(found[1]))
    stamps.sort()
    gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    spent = sum((gap for gap in gaps if gap < PAUSE), timedelta())
    return spent / timedelta(minutes=1)


def _agreement(base: Mapping[str, Any]) -> str:
    groups = ("single", "pairs", "held_out_pairs")
    attributes = ("shape", "color", "size", "relation", "background")
    rows = [
        (group, str(base[group]["prompts"]), *(_number(base[group].get(a)) for a in attributes))
        for group in groups
    ]
    table = _table(("prompts", "count", *attributes), rows)
    parameters = ", ".join(f"{name} {count:,}" for name, count in base["parameters"].items())
    return (
        "## Base model\n\n"
        f"VAE: {base['vae_psnr_db']} dB PSNR on 512 unseen scenes. Parameters: {parameters}.\n\n"
        "Share of the asked attributes that the oracle sees in samples of unseen prompts "
        f"({base['steps']} DDIM steps, guidance {base['guidance_scale']:g}, one image a prompt, "
        f"no selection; `python -m shapes.measure_base`):\n\n{table}\n"
        "The first 32 single-shape samples: `shapes/cards/samples.png`.\n"
    )


def _shortcuts(figures: Mapping[str, Any]) -> str:
    files = figures["files"]
    errors = [
        (
            name,
            str(file["recipe"]["rank"]),
            str(file["recipe"]["trajectories"]),
            str(file["recipe"]["updates"]),
            _number(file["error_to_guided_naive"]),
            _number(file["error_to_unguided_naive"]),
            ", ".join(f"{jump}: {_number(ratio)}" for jump, ratio in file["jumps"].items()),
        )
        for name, file in files.items()
    ]
    rewards = list(next(iter(files.values()))["reward_shifts_in_std"])
    shifts = [
        (name, kind, *(_number(file[key][reward]) for reward in rewards))
        for name, file in files.items()
        for kind, key in (("distilled", _SHIFTS), ("naive", f"naive_{_SHIFTS}"))
    ]
    columns = ("file", "rank", "trajectories", "updates", "to guided", "to unguided", "each jump")
    missed = [
        f"- {name}: {line}\n" for name, file in files.items() for line in file["missed_goals"]
    ]
    return (
        "## Shortcuts\n\n"
        "Distilled by `python -m shapes.train_shortcuts` from trajectories of `shapes-base`; see "
        "`docs/distillation.md`. Of the trajectories of each file "
        f"{figures['coarse_trajectories']} are coarse. Error of the jumps on held-out "
        "trajectories, in units of the error of one DDIM step of the base model, which takes two "
        f"calls with guidance and one without:\n\n{_table(columns, errors)}\n"
        "Change of the mean reward from the full to the shortened chain, in standard deviations of "
        f"the full chain's images:\n\n{_table(('file', 'jumps', *rewards), shifts)}\n"
        f"Goals that are missed (0.8 over all jumps, 1 for each, 0.2 for a reward):\n\n"
        f"{''.join(missed) or 'none'}\n"
    )


def _section(title: str, figures: Mapping[str, Any]) -> str:
    rows = [(path, _number(value)) for path, value in _leaves(figures) if "sha256" not in path]
    heading = f"## {title}\n\nMeasured by `python -m shapes.measure_judges`.\n"
    return f"{heading}\n{_table(('figure', 'value'), rows)}"


def _leaves(figures: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in figures.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path} / ")
        else:
            yield path, value


def _files() -> str:
    paths = sorted(p for p in BUNDLED.rglob("*") if p.suffix in {".safetensors", ".pt", ".pth"})
    rows = [
        (
            path.relative_to(BUNDLED).as_posix(),
            f"{path.stat().st_size / 1e6:.2f}",
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in paths
    ]
    total = sum(path.stat().st_size for path in paths) / 1e6
    table = _table(("file", "MB", "sha256"), rows)
    return f"## Files\n\n{total:.1f} MB of weights in all.\n\n{table}"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
