"""The few HTML pieces that every section is made of; text goes in raw and comes out escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Markup that is already safe; every other string is escaped where it enters the page."""

    __slots__ = ()


def safe(value: object) -> str:
    """The markup itself, or the escaped text of anything else."""
    return value if isinstance(value, Html) else escape(str(value))


def element(name: str, *children: object, **attributes: str) -> Html:
    """An element; `cls` is its class."""
    given = "".join(
        f' {"class" if key == "cls" else key}="{escape(value)}"'
        for key, value in attributes.items()
        if value
    )
    return Html(f"<{name}{given}>{''.join(map(safe, children))}</{name}>")


def join(parts: Iterable[object]) -> Html:
    """The parts behind each other."""
    return Html("".join(map(safe, parts)))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, text_columns: int = 1) -> Html:
    """A table that scrolls by itself; columns after the first `text_columns` hold numbers."""
    classes = ["" if index < text_columns else "n" for index in range(len(head))]
    top = element("tr", *(element("th", h, cls=c) for h, c in zip(head, classes, strict=True)))
    body = [
        element("tr", *(element("td", v, cls=c) for v, c in zip(row, classes, strict=True)))
        for row in rows
    ]
    whole = element("table", element("thead", top), element("tbody", *body))
    return element("div", whole, cls="scroll")


def facts(rows: Iterable[tuple[str, object]]) -> Html:
    """Names beside what they are."""
    body = (element("tr", element("th", name, scope="row"), element("td", v)) for name, v in rows)
    return element("table", *body, cls="facts")


def note(*text: object) -> Html:
    """A remark below a heading."""
    return element("p", *text, cls="note")


def raw(value: float, digits: int = 4) -> str:
    """A score in its own units."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int = 4) -> Html:
    """A change with its sign, colored by it; 0 where it rounds to nothing."""
    text = f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
    if not any(figure in "123456789nai" for figure in text):
        return Html("0")
    return element("span", text, cls="good" if value > 0 else "bad")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the two largest."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(count: int) -> str:
    """Bytes in binary units."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
