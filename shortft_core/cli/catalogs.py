"""`shortft models|rewards|methods|shortcuts|prompts`: what a specification may name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from shortft_core import catalog

models = typer.Typer(help="Base models.", no_args_is_help=True)
rewards = typer.Typer(help="Rewards.", no_args_is_help=True)
methods = typer.Typer(help="Tuning methods.", no_args_is_help=True)
shortcuts = typer.Typer(help="Few-step models that shorten a chain.", no_args_is_help=True)
prompts = typer.Typer(help="Prompt sets.", no_args_is_help=True)


@models.command("list")
def list_models() -> None:
    """Lists the base models of the catalog."""
    _show(
        ("name", "licence", "where", "summary"),
        (
            (name, entry.weights.licence, _where(entry.weights), entry.summary)
            for name, entry in catalog.BASE_MODELS.items()
        ),
    )


@models.command("fetch")
def fetch_models(
    names: Annotated[
        list[str],
        typer.Argument(help="Base models, rewards or shortcuts of the catalog, or hub ids."),
    ],
) -> None:
    """Downloads the weights of base models, rewards or shortcuts, so that jobs run offline."""
    from shortft_core.weights import locate

    console = Console()
    for name in names:
        for weights in _weights_of(name):
            folder = locate(weights, field=name)
            console.print(f"{name}: {folder}", soft_wrap=True, highlight=False)


@rewards.command("list")
def list_rewards() -> None:
    """Lists the rewards of the catalog."""
    _show(
        ("name", "weights", "summary"),
        (
            (name, ", ".join(entry.weights) or "none needed", entry.summary)
            for name, entry in catalog.REWARDS.items()
        ),
    )


@methods.command("list")
def list_methods() -> None:
    """Lists the tuning methods of the catalog."""
    rows = ((name, entry.summary) for name, entry in catalog.METHODS.items())
    _show(("name", "summary"), rows)


@shortcuts.command("list")
def list_shortcuts() -> None:
    """Lists the few-step models of the catalog."""
    _show(
        ("name", "base model", "segments", "use", "licence", "summary"),
        (
            (
                name,
                ", ".join(entry.base_models),
                ", ".join(map(str, sorted(entry.files))),
                entry.use.replace("_", "-"),
                entry.licence,
                entry.summary,
            )
            for name, entry in catalog.SHORTCUTS.items()
        ),
    )


@prompts.command("list")
def list_prompts() -> None:
    """Lists the prompt sets of the catalog."""
    _show(
        ("name", "licence", "summary"),
        ((name, entry.licence, entry.summary) for name, entry in catalog.PROMPT_SETS.items()),
    )


def _weights_of(name: str) -> Iterable[catalog.Weights]:
    if name in catalog.BASE_MODELS:
        return [catalog.BASE_MODELS[name].weights]
    if name in catalog.SHORTCUTS:
        return catalog.SHORTCUTS[name].files.values()
    if "/" in name:
        return [catalog.Weights(hub_id=name, licence="stated by its owner")]
    known = {**catalog.BASE_MODELS, **catalog.REWARDS, **catalog.SHORTCUTS}
    catalog.find(known, name, "name")
    entry = catalog.REWARDS[name]
    rewards_of = [catalog.REWARDS[part] for part in entry.preset] or [entry]
    return [
        part
        for reward in rewards_of
        for parts in reward.weights.values()
        for part in parts.values()
    ]


def _where(weights: catalog.Weights) -> str:
    return "bundled" if weights.bundled else weights.hub_id or weights.url or ""


def _show(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
