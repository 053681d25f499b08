"""The compose files as `docker compose` reads them, as far as this project uses its language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
BASE: Final = ROOT / "docker-compose.yml"
OVERRIDE: Final = ROOT / "docker-compose.override.yml"
OWN: Final = ("init", "migrate", "api", "worker-train", "worker-generate", "worker-default")
"""Services whose images this project builds."""
_VARIABLE: Final = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+):-(?P<default>[^}]*)\})")


def variables(text: str) -> dict[str, str]:
    """Every variable that may be set from outside, with its default."""
    found = _VARIABLE.finditer(text)
    return {match["name"]: match["default"] for match in found if match["name"]}


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """The text with variables and `$$` replaced; a set variable that is empty counts as unset."""

    def value(match: re.Match[str]) -> str:
        return "$" if match["dollar"] else environment.get(match["name"]) or match["default"]

    return _VARIABLE.sub(value, text)


def load(path: Path = BASE, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A compose file with its variables replaced."""
    text = interpolate(path.read_text(encoding="utf-8"), environment or {})
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def services(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The services of the base file."""
    found: dict[str, Any] = load(BASE, environment)["services"]
    return found


def targets(service: Mapping[str, Any]) -> dict[str, str]:
    """Folder in the container -> the volume's name, or the host's folder."""
    mounts = [str(mount).split(":") for mount in service.get("volumes", ())]
    return {parts[1]: parts[0] for parts in mounts}
