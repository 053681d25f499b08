"""Nothing unfinished and nothing of one machine in anything people write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

# A class around the first letter keeps this line from finding itself.
UNFINISHED: Final = re.compile(r"\b(?:[T]ODO|[F]IXME|[X]XX|[H]ACK)\b")
MACHINE_PATH: Final = re.compile(r"(?<![\w.*$}])(?:/(?:home|root|tmp|Users|work)/\w|[A-Z]:\\\w)")


def test_nothing_is_left_for_later(texts: list[Path]) -> None:
    assert _found(UNFINISHED, texts) == []


def test_no_path_of_one_machine(texts: list[Path]) -> None:
    assert _found(MACHINE_PATH, texts) == []


def test_the_rules_find_what_they_are_for(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("# TO" + "DO: open('/ho" + "me/me/x')\n")
    assert _found(UNFINISHED, [wrong]) == [f"{wrong}: TO" + "DO"]
    assert len(_found(MACHINE_PATH, [wrong])) == 1


def _found(rule: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{path}: {text}"
        for path in paths
        for text in rule.findall(path.read_text(encoding="utf-8"))
    ]
