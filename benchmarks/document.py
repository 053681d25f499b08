"""Puts the committed results into `docs/results.md`: `python -m benchmarks.document`."""

from __future__ import annotations

from pathlib import Path

from benchmarks import cost, generation, gpu, prefix_pool, serving, variance
from benchmarks.alignment import tables
from benchmarks.alignment.cells import Folders
from benchmarks.results import DOCUMENT, put_section
from benchmarks.service import embedded, load, small_jobs, storm


def sections() -> dict[str, str]:
    """Name of a section -> what the committed results say."""
    return {
        "cost": cost.section(),
        "generation": generation.section(),
        "variance": variance.section(),
        "gpu": gpu.section(),
        "prefix_pool": prefix_pool.section(),
        "storm": storm.section(),
        "small_jobs": small_jobs.section(),
        "load": load.section(),
        "embedded": embedded.section(),
        "serving": serving.section(),
        **tables.sections(Folders()),
    }


def write_document(document: Path = DOCUMENT) -> None:
    """Replaces every generated section; what people wrote between them stays."""
    for name, text in sections().items():
        put_section(document, name, text)


if __name__ == "__main__":
    write_document()
