"""Commands of other rooms join by entry points: the core knows none of them by name.

Group `shortft.commands`: functions that put commands into the application. Group
`shortft.remote`: functions that do at a service what a command of the core does on this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Final

import typer

from shortft_core.errors import UserError

COMMANDS: Final = "shortft.commands"
REMOTE: Final = "shortft.remote"
_OURS: Final = frozenset({"api", "migrations", "shortft_client", "shortft_core", "store", "worker"})
_TORCH_EXTRA: Final = frozenset(
    {"PIL", "diffusers", "numpy", "safetensors", "torch", "transformers"}
)


def add_commands(app: typer.Typer) -> None:
    """Lets every installed room put its commands into the application."""
    for entry in sorted(entry_points(group=COMMANDS)):
        entry.load()(app)


def remote(name: str) -> Callable[..., Any]:
    """What does the work of a command at a service; raises UserError where nothing does."""
    for entry in entry_points(group=REMOTE, name=name):
        found: Callable[..., Any] = entry.load()
        return found
    raise UserError("server", f"no installed package can {name} there", "Install shortft anew")


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Which extra brings a module of others; None for a module of our own."""
    top = (error.name or "").partition(".")[0]
    if not top or top in _OURS:
        return None
    extra = "train" if top in _TORCH_EXTRA else "server"
    return f"install it with: pip install 'shortft[{extra}]'"
