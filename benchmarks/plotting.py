"""Pictures of results, drawn without a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def new_figure(width_inches: float = 8.0, height_inches: float = 5.0) -> tuple[Any, Any]:
    """A figure with one pair of axes; matplotlib is imported only when something is drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """A PNG without the date and version that would change it at every run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
