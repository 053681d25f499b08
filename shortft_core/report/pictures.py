"""Base beside tuned: the stored pictures of an evaluation inside the page, with their scores."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import Final

from PIL import Image

from shortft_core.artifacts import ArtifactStore
from shortft_core.events import Picture, SamplePair
from shortft_core.report.log import RunLog
from shortft_core.report.markup import Html, element, join, note, raw, safe, signed, table

LARGE: Final = 150_000
"""Bytes above which a picture is embedded as JPEG, so that a report can still be mailed."""
_JPEG_QUALITY: Final = 92
_SMALL: Final = 160
"""Pixels below which a picture is enlarged by whole pixels rather than blurred."""


def pictures(log: RunLog, store: ArtifactStore) -> Html:
    """Every held-out prompt: base, best and last, with the change of every judge."""
    columns = _columns(log)
    if not columns:
        return element("p", "No evaluation left pictures.", cls="empty")
    pairs = {name: {(p.prompt, p.seed): p for p in found} for name, found in columns.items()}
    first, *others = pairs.values()
    shared = [at for at in first if all(at in other for other in others)]
    explained = note(
        "The same prompt and seed in each card; every held-out picture is here, none was chosen. ",
        "Best and last are evaluations, with their update. Numbers are scores of the base picture,",
        " and what changed of them, in raw units.",
    )
    cards = [_card({name: found[at] for name, found in pairs.items()}, store) for at in shared]
    return join([explained, element("div", *cards, cls="pairs")])


def _columns(log: RunLog) -> dict[str, tuple[SamplePair, ...]]:
    """Heading -> pairs of the best and of the last evaluation, once where they are the same."""
    if not log.samples:
        return {}
    last = max(log.samples)
    best = log.best.update if log.best and log.best.update in log.samples else last
    names = {best: f"best ({best})"}
    names.setdefault(last, f"last ({last})")
    if log.best is None:
        names[last] = f"update {last}"
    return {name: log.samples[update].pairs for update, name in names.items()}


def _card(pairs: Mapping[str, SamplePair], store: ArtifactStore) -> Html:
    pair = next(iter(pairs.values()))
    shown = {"base": pair.base, **{name: found.tuned for name, found in pairs.items()}}
    images = [
        element("div", _image(picture, f"{name}: {pair.prompt}", store), name)
        for name, picture in shown.items()
    ]
    title = element("p", pair.prompt, " ", element("small", f"seed {pair.seed}"))
    scores = _scores(pairs)
    return element("article", title, element("div", *images, cls="pictures"), scores, cls="pair")


def _scores(pairs: Mapping[str, SamplePair]) -> Html:
    """Judge by judge: the base picture's score, and what each column changed of it."""
    base = next(iter(pairs.values())).base.scores
    rows = [
        (judge, raw(score), *(signed(pair.tuned.scores[judge] - score) for pair in pairs.values()))
        for judge, score in base.items()
    ]
    return table(("judge", "base", *pairs), rows)


def _image(picture: Picture, description: str, store: ArtifactStore) -> Html:
    data = store.read(picture.key)
    with Image.open(BytesIO(data)) as image:
        small = "small" if image.width < _SMALL else ""
        width, height = image.size
        kind, data = ("png", data) if len(data) <= LARGE else ("jpeg", _jpeg(image))
    encoded = base64.b64encode(data).decode()
    return Html(
        f'<img class="{small}" width="{width}" height="{height}" alt="{safe(description)}"'
        f' src="data:image/{kind};base64,{encoded}">'
    )


def _jpeg(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
