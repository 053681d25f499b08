"""Files of results: tables, facts about the machine, and the tables inside documents."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from shortft_core.artifacts import atomic_file

ROOM: Final = Path(__file__).parent
RESULTS: Final = ROOM / "results"
"""Committed."""
STATE: Final = ROOM / "state"
"""Unfinished runs; ignored by git, safe to delete."""
DOCUMENT: Final = ROOM.parent / "docs" / "results.md"
"""Discusses the tables, which stand in it between markers."""
NOT_MEASURED: Final = "Not measured yet."
_PACKAGES: Final = ("torch", "diffusers", "transformers", "open_clip_torch", "numpy")


@dataclass(frozen=True, slots=True)
class CoreTicks:
    """What the kernel has counted of all cores together."""

    stolen: int
    total: int

    def stolen_percent(self, since: CoreTicks) -> float:
        """How much of the cores the host of a virtual machine has taken since then.

        A table of times from a shared host says little without it.
        """
        passed = self.total - since.total
        return round(100 * (self.stolen - since.stolen) / passed, 1) if passed else 0.0


def core_ticks() -> CoreTicks:
    """The counts now; 0 where the kernel does not tell."""
    path = Path("/proc/stat")
    if not path.is_file():
        return CoreTicks(0, 0)
    line = path.read_text(encoding="ascii").partition("\n")[0]
    # user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of the first two.
    ticks = [int(text) for text in line.split()[1:9]]
    return CoreTicks(stolen=ticks[7], total=sum(ticks))


def machine() -> dict[str, Any]:
    """What a number was measured on: processor, cores, versions, and when."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
        "measured_at": datetime.now(tz=UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor()
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_text(path: Path, text: str) -> None:
    """Replaces the file at once: readers see the old text or the new one."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """One object, indented for people who read differences."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object of `write_json`."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def described(facts: Mapping[str, Any]) -> str:
    """One line on the machine that `machine` told of."""
    return (
        f"{facts['processor']}, {facts['cores']} cores, torch {facts['versions']['torch']}, "
        f"measured on {facts['measured_at'][:10]}."
    )


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A table whose columns are the keys of its first row."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of `write_csv`; none where the table was not made yet."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of a document; numbers are aligned to the right, the first column is not."""
    marks = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *rows))


def put_section(document: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises ValueError if the document lacks either marker.
    """
    before, begin, rest = document.read_text(encoding="utf-8").partition(f"<!-- begin {name} -->")
    _, end, after = rest.partition(f"<!-- end {name} -->")
    if not begin or not end:
        raise ValueError(f"{document} has no place for {name}")
    write_text(document, f"{before}{begin}\n\n{text}\n\n{end}{after}")


def picture(path: Path, title: str, *, document: Path = DOCUMENT) -> str:
    """A picture of a document, or nothing where it was not drawn yet."""
    if not path.is_file():
        return ""
    return f"![{title}]({os.path.relpath(path, document.parent)})"
