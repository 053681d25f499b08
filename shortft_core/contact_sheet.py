"""The before/after picture: base above tuned for the same prompts and seeds, with their scores."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from shortft_core.artifacts import ArtifactStore
from shortft_core.events import EvaluationDone, SamplePair, SamplesReady

SIDE: Final = 176
GAP: Final = 14
LABEL: Final = 96
INK: Final = (30, 30, 34)
FAINT: Final = (110, 110, 118)
PAPER: Final = (250, 250, 248)


def contact_sheet(
    samples: SamplesReady, evaluation: EvaluationDone, store: ArtifactStore, *, columns: int = 8
) -> Image.Image:
    """Evenly spaced pairs of an evaluation, with the panel's means as the heading."""
    count = min(columns, len(samples.pairs))
    pairs = [samples.pairs[index * len(samples.pairs) // count] for index in range(count)]
    width = LABEL + len(pairs) * (SIDE + GAP) + GAP
    heading = _heading(evaluation)
    top = GAP + 20 * len(heading) + GAP
    sheet = Image.new("RGB", (width, top + 56 + 2 * (SIDE + 44) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(heading):
        draw.text((GAP, GAP + 20 * number), line, INK, _font(15 if number else 16))
    for row, name in enumerate(("base", "tuned")):
        draw.text((GAP, top + 56 + row * (SIDE + 44) + SIDE // 2 - 8), name, INK, _font(16))
    for column, pair in enumerate(pairs):
        _draw_pair(sheet, pair, (LABEL + column * (SIDE + GAP), top), store)
    return sheet


def _heading(evaluation: EvaluationDone) -> list[str]:
    lines = [f"Held-out prompts, same seeds: mean of {evaluation.images} images, raw units"]
    for judge, base in evaluation.base.items():
        tuned = evaluation.tuned[judge].mean
        lines.append(f"{judge}: {base.mean:.4f} to {tuned:.4f} ({tuned - base.mean:+.4f})")
    return lines


def _draw_pair(
    sheet: Image.Image, pair: SamplePair, at: tuple[int, int], store: ArtifactStore
) -> None:
    draw = ImageDraw.Draw(sheet)
    left, top = at
    text = "\n".join(textwrap.wrap(pair.prompt, 27)[:3])
    draw.multiline_text((left, top), text, INK, _font(13), spacing=3)
    for row, picture in enumerate((pair.base, pair.tuned)):
        above = top + 56 + row * (SIDE + 44)
        with Image.open(BytesIO(store.read(picture.key))) as image:
            sheet.paste(image.convert("RGB").resize((SIDE, SIDE), _filter(image)), (left, above))
        draw.text((left, above + SIDE + 4), _caption(picture.scores), FAINT, _font(12))


def _caption(scores: Mapping[str, float]) -> str:
    return f"target {scores['target']:.4f}"


def _filter(image: Image.Image) -> Image.Resampling:
    return Image.Resampling.BICUBIC if image.width < SIDE else Image.Resampling.LANCZOS


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def last_pair(events: Sequence[object]) -> tuple[SamplesReady, EvaluationDone] | None:
    """The newest evaluation among the events, with its samples; None before the first."""
    samples = [event for event in events if isinstance(event, SamplesReady)]
    evaluations = [event for event in events if isinstance(event, EvaluationDone)]
    return (samples[-1], evaluations[-1]) if samples and evaluations else None
