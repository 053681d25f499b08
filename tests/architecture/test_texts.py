"""Nothing unfinished and nothing of one machine in anything people write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

# A class around the first letter keeps this line from finding itself.
UNFINISHED: Final = re.compile(r"\b(?:[T]ODO|[F]IXME|[X]XX|[H]ACK)\b")
MACHINE_PATH: Final = re.compile(r"(?<![\w.*$}])(?:/(?:home|root|tmp|Users|work)/\w|[A-Z]:\\\w)")


def test_nothing_is_left_for_later(text: Path) -> None:
    assert UNFINISHED.findall(text.read_text(encoding="utf-8")) == []


def test_no_path_of_one_machine(text: Path) -> None:
    assert MACHINE_PATH.findall(text.read_text(encoding="utf-8")) == []
