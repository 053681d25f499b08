"""The tables of docs/api.md, made from the application's own description.

`python -m tests.docker.guide_tables` writes them anew.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final

from api.openapi import COMMITTED
from api.problems import PROBLEMS
from tests.docker import compose

DOCUMENT: Final = compose.ROOT / "docs" / "api.md"
METHODS: Final = ("get", "post", "patch", "delete", "put")


@cache
def description() -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = json.loads(COMMITTED.read_text(encoding="utf-8"))
    return found


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Method and path -> operation."""
    return {
        (method, path): item[method]
        for path, item in description()["paths"].items()
        for method in METHODS
        if method in item
    }


def paths_table() -> str:
    """One line for each operation, with the first sentence of its description."""
    rows = (
        f"| `{method.upper()} {path}` | {_first_sentence(operation.get('description', ''))} |\n"
        for (method, path), operation in operations().items()
    )
    return f"| request | what it does |\n| --- | --- |\n{''.join(rows)}"


def problems_table() -> str:
    """One line for each code."""
    rows = (
        f"| `{code}` | {kind.status} | {kind.title} | {kind.remedy} |\n"
        for code, kind in PROBLEMS.items()
    )
    head = "| code | status | what is wrong | what to do |\n| --- | --- | --- | --- |\n"
    return head + "".join(rows)


TABLES: Final = {"paths": paths_table, "problems": problems_table}


def replace(document: str) -> str:
    """The document with the tables that it ought to hold."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n\n", f"\n<!-- end of {name} -->"
        before, found, rest = document.partition(begin)
        assert found, f"the marks of the table {name} are missing"
        document = before + begin + table() + end + rest.partition(end)[2]
    return document


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", " ".join(text.split()))[0].replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(replace(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
