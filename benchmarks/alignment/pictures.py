"""Small pictures of a cell, and one sheet per setting that lays all variants side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks.alignment.cells import SETTINGS, UNTUNED, VARIANTS, Cell, Folders
from shortft_core.generate import to_pil

STRIP: Final = "pictures.png"
"""The first final images of a cell, one per prompt, side by side at their own size."""
SCALE: Final = 2
LABEL: Final = 190
HEAD: Final = 64
GAP: Final = 6
INK: Final = (30, 30, 34)
PAPER: Final = (250, 250, 248)


def save_pairs(cell: Cell, folders: Folders, images: Tensor, names: Sequence[str]) -> None:
    """The cell's strip, and the same below that of the base model where it has one."""
    count = min(cell.scale.pictured_prompts, len(names) // cell.scale.final_seeds)
    strip = _strip(to_pil(images[: count * cell.scale.final_seeds : cell.scale.final_seeds]))
    folder = folders.run(cell)
    folder.mkdir(parents=True, exist_ok=True)
    strip.save(folder / STRIP)
    chosen = list(dict.fromkeys(names))[:count]
    (folder / "prompts.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    base = folders.run(Cell(cell.setting, "base", 0)) / STRIP
    if not cell.is_sweep and cell.variant != "base" and base.is_file():
        with Image.open(base) as untuned:
            rows = {"base": untuned.convert("RGB"), cell.variant: strip}
            sheet(rows, chosen).save(folder / "pairs.png")


def _strip(pictures: Sequence[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    strip = Image.new("RGB", (width * len(pictures), height))
    for column, image in enumerate(pictures):
        strip.paste(image, (column * width, 0))
    return strip


def sheet(rows: Mapping[str, Image.Image], names: Sequence[str]) -> Image.Image:
    """Strips one below the other, the prompts above, what made each strip at its left."""
    first = next(iter(rows.values()))
    side = first.height * SCALE
    size = (LABEL + len(names) * (side + GAP), HEAD + len(rows) * (side + GAP))
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    for column, name in enumerate(names):
        text = "\n".join(textwrap.wrap(name, side // 6)[:4])
        draw.multiline_text((LABEL + column * (side + GAP), GAP), text, INK, _font(11), spacing=2)
    for number, (label, strip) in enumerate(rows.items()):
        top = HEAD + number * (side + GAP)
        draw.text((GAP, top + side // 2 - 8), label, INK, _font(14))
        for column in range(len(names)):
            left = column * first.height
            image = strip.crop((left, 0, left + first.height, first.height))
            enlarged = image.resize((side, side), Image.Resampling.BICUBIC)
            page.paste(enlarged, (LABEL + column * (side + GAP), top))
    return page


def sheet_path(setting: str, folders: Folders) -> Path:
    """The committed sheet of a setting."""
    return folders.results / f"sheet_{setting}.png"


def write_sheets(folders: Folders, seed: int = 0) -> list[Path]:
    """One sheet per setting from the cells that are finished; returns what was drawn."""
    drawn = []
    for setting in SETTINGS:
        cells = [Cell(setting, variant, seed) for variant in (*UNTUNED, *VARIANTS)]
        runs = {cell.variant: folders.run(cell) for cell in cells}
        found = {name: run for name, run in runs.items() if (run / STRIP).is_file()}
        if not found:
            continue
        names = (next(iter(found.values())) / "prompts.txt").read_text(encoding="utf-8")
        rows = {}
        for name, run in found.items():
            with Image.open(run / STRIP) as image:
                rows[name] = image.convert("RGB")
        path = sheet_path(setting, folders)
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet(rows, names.splitlines()).save(path)
        drawn.append(path)
    return drawn


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
