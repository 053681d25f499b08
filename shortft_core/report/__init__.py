"""One run as one HTML file: curves, pictures, cost and configuration, and no request to anywhere.

Reads what the run folder holds (specification, events, samples), so that a report can be written
again at any time, also of a run that still works, or that crashed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shortft_core.artifacts import LocalStore, atomic_file
from shortft_core.report import curves, sections
from shortft_core.report.log import RunLog, read_run
from shortft_core.report.markup import Html, element, join, note, safe
from shortft_core.report.pictures import pictures
from shortft_core.report.style import CSS

REPORT_FILE: Final = "report.html"
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser lets the file do: show what it holds, and load nothing."""


def write_report(folder: Path) -> Path:
    """Writes `report.html` into a run folder, replacing an earlier one, and returns its path.

    Raises UserError for a folder that holds no run, ArtifactError for torn files.
    """
    page = render(read_run(folder))
    path = folder / REPORT_FILE
    with atomic_file(path) as file:
        file.write(page.encode())
    return path


def render(log: RunLog) -> str:
    """The whole page."""
    title = log.spec.get("name") or log.folder.resolve().name
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{_body(log)}\n</main>\n</body>\n</html>\n"
    )


def _body(log: RunLog) -> Html:
    drawn = (
        curves.reward_curve,
        curves.gradient_curve,
        curves.share_curve,
        curves.statistic_curves,
    )
    charts = Html("".join(draw(log) for draw in drawn))
    parts = {
        "Alerts": sections.alerts(log),
        "Held-out judges": sections.judges(log),
        "Pictures": pictures(log, LocalStore(log.folder)),
        "Training": element("div", charts, cls="charts"),
        "Judges over time": join(
            [
                note(
                    "Bars are the 95 % interval of the mean paired change against the base model."
                ),
                element(
                    "div",
                    Html(curves.judge_curves(log) + curves.diversity_curve(log)),
                    cls="charts",
                ),
                sections.evaluations(log),
            ]
        ),
        "Cost": sections.cost(log),
        "Log": sections.log_lines(log),
        "Provenance": sections.provenance(log),
        "Configuration": sections.configuration(log),
    }
    described = (element("section", element("h2", name), part) for name, part in parts.items())
    return join([sections.heading(log), *described])
