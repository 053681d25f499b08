"""The document shows what the committed files say, and nothing that was typed in."""

from __future__ import annotations

from pathlib import Path

from benchmarks.document import sections, write_document
from benchmarks.results import DOCUMENT


def test_the_document_shows_the_committed_results(tmp_path: Path) -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    copy = tmp_path / "results.md"
    copy.write_text(page, encoding="utf-8")
    write_document(copy)
    assert copy.read_text(encoding="utf-8") == page, "run python -m benchmarks.document"


def test_every_place_of_the_document_is_filled() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    assert page.count("<!-- begin ") == len(sections())
