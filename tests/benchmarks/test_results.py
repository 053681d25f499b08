"""Tables round-trip, and a document changes only between its markers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import results


def test_csv_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    results.write_csv(path, [{"name": 'a "quoted", name', "value": 1.5}, {"name": "b", "value": 2}])
    assert results.read_csv(path) == [
        {"name": 'a "quoted", name', "value": "1.5"},
        {"name": "b", "value": "2"},
    ]


def test_a_table_that_was_not_made_is_empty(tmp_path: Path) -> None:
    assert results.read_csv(tmp_path / "none.csv") == []


def test_only_the_section_changes(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- begin a -->\nold\n<!-- end a -->\nafter\n", encoding="utf-8")
    for text in ("new", "newer"):
        results.put_section(path, "a", text)
        expected = f"before\n<!-- begin a -->\n\n{text}\n\n<!-- end a -->\nafter\n"
        assert path.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("page", ["", "<!-- begin a -->", "<!-- end a -->"])
def test_a_missing_marker_is_refused(tmp_path: Path, page: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(page, encoding="utf-8")
    with pytest.raises(ValueError, match="no place for a"):
        results.put_section(path, "a", "text")
    assert path.read_text(encoding="utf-8") == page


def test_a_picture_is_linked_once_it_exists(tmp_path: Path) -> None:
    document, path = tmp_path / "docs" / "page.md", tmp_path / "figures" / "a.png"
    assert results.picture(path, "A", document=document) == ""
    path.parent.mkdir()
    path.touch()
    link = os.path.join("..", "figures", "a.png")  # noqa: PTH118 - a relative link, not a file
    assert results.picture(path, "A", document=document) == f"![A]({link})"


def test_the_share_of_the_host_is_that_of_the_time_between() -> None:
    before = results.CoreTicks(stolen=10, total=1000)
    assert results.CoreTicks(stolen=35, total=2000).stolen_percent(before) == 2.5
    assert before.stolen_percent(before) == 0.0
    assert results.core_ticks().total >= results.core_ticks().stolen >= 0
