"""The tables of settings in docs/operations.md, made from the classes that read them.

`python -m tests.docker.settings_table` writes them anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from shortft_client.settings import ClientSettings
from shortft_core.settings import Settings
from store.settings import StoreSettings
from tests.docker import compose
from worker.settings import WorkerSettings

DOCUMENT: Final = compose.ROOT / "docs" / "operations.md"
CLASSES: Final[dict[str, type[BaseSettings]]] = {
    "Every process of the service": StoreSettings,
    "Every process that looks for models": Settings,
    "The API": ApiSettings,
    "Workers": WorkerSettings,
    "The client": ClientSettings,
}
_TABLES: Final = re.compile(
    r"(?<=<!-- settings -->\n\n).*?(?=\n<!-- end of settings -->)", re.DOTALL
)


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        alias = alias.choices[0] if isinstance(alias.choices[0], str) else None
    return alias if isinstance(alias, str) else f"SHORTFT_{name.upper()}"


def tables() -> str:
    """Every setting with its default and its docstring, a table for each class."""
    head = "| variable | default | what it is |\n| --- | --- | --- |\n"
    return "\n".join(
        f"### {title}\n\n{head}{_rows(settings)}" for title, settings in CLASSES.items()
    )


def written(document: str) -> str:
    """The tables that the document holds."""
    found = _TABLES.search(document)
    assert found is not None, "the marks of the tables are missing"
    return found[0]


def replace(document: str) -> str:
    """The document with the tables that it ought to hold."""
    return _TABLES.sub(lambda _: tables(), document)


def _rows(settings: type[BaseSettings]) -> str:
    return "".join(
        f"| `{variable(name, field)}` | {_default(field)} | {_meaning(field)} |\n"
        for name, field in settings.model_fields.items()
    )


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.default_factory is not None:
        return "a folder of the user"
    if value is None or isinstance(value, SecretStr):
        return "none"
    if isinstance(value, tuple):
        # The interpreter's own path differs from machine to machine.
        words = [re.sub(r".*/python[\d.]*$", "python", str(word)) for word in value]
        return f"`{json.dumps(words)}`"
    if isinstance(value, str | Path):
        return f"`{value}`"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(replace(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
