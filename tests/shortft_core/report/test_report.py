"""The report: one file that asks nothing of anybody, with the numbers of its run."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shortft_core.artifacts import LocalStore
from shortft_core.events import (
    AlertRaised,
    EvaluationDone,
    LogLine,
    Picture,
    RunStarted,
    SamplePair,
    SamplesReady,
    Score,
    from_envelope,
    to_envelope,
)
from shortft_core.report import write_report
from shortft_core.report.log import read_run
from shortft_core.report.markup import duration, element, signed
from shortft_core.report.pictures import LARGE
from shortft_core.report.sections import costs

Write = Callable[..., Path]
EVIL = "<script>alert(1)</script> & 'quotes\" \N{SNOWMAN}"
VOID = {"img", "meta"}


class Page(HTMLParser):
    """Elements, attributes and visible text of a page; every element has to be closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data + " "

    def pictures(self) -> list[Image.Image]:
        """The embedded pictures, decoded."""
        sources = [str(given["src"]) for tag, given in self.elements if tag == "img"]
        data = [base64.b64decode(source.partition(",")[2]) for source in sources]
        return [Image.open(BytesIO(each)) for each in data]


def test_the_headline_tells_what_came_of_the_run(whole_run: Path) -> None:
    text = Page(write_report(whole_run)).text
    assert " a job completed shapes tuned with draft_k " in re.sub(r"\s+", " ", text)
    assert "towards hps_v2 + 0.5 symmetry on shapes-train, rank 4, 4 updates." in text
    flat = re.sub(r"\s+", " ", text)
    assert "Best at update 2: held-out target 0.5000 → 0.7500 ( +0.2500 ± 1.5883, 2 images)" in flat


def test_what_the_panel_lost_in_diversity_is_told_beside_its_judges(whole_run: Path) -> None:
    flat = re.sub(r"\s+", " ", Page(write_report(whole_run)).text)
    assert "diversity 0.4000 0.3800 −0.0200" in flat
    assert "held-out, tuned: from 0.4 to 0.36, lowest 0.36, highest 0.4." in flat


def test_every_picture_is_there_once_base_best_and_last(whole_run: Path) -> None:
    page = Page(write_report(whole_run))
    colors = [picture.getpixel((0, 0)) for picture in page.pictures()]
    assert colors == [(4, 0, 9), (2, 0, 9), (4, 0, 9), (4, 1, 9), (2, 1, 9), (4, 1, 9)]
    alternatives = [given["alt"] for tag, given in page.elements if tag == "img"]
    assert alternatives[:3] == [
        "base: a red circle",
        "best (2): a red circle",
        "last (4): a red circle",
    ]
    assert "+0.1250" in page.text
    assert "\N{MINUS SIGN}0.3750" in page.text


def test_large_pictures_are_embedded_smaller(whole_run: Path) -> None:
    noise = Image.effect_noise((400, 400), 100).convert("RGB")
    noise.save(whole_run / "samples" / "base" / "000.png")
    assert (whole_run / "samples" / "base" / "000.png").stat().st_size > LARGE
    kinds = [picture.format for picture in Page(write_report(whole_run)).pictures()]
    assert kinds == ["JPEG", *["PNG"] * 5]


def test_the_page_asks_nothing_of_anybody(whole_run: Path) -> None:
    path = write_report(whole_run)
    page = Page(path)
    for tag, given in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "action", "data", "srcset", "poster", "background"):
            assert (given.get(name) or "data:image/").startswith("data:image/")
        assert not any(name.startswith("on") for name in given)
    assert not re.search(r"url\(|@import", path.read_text(encoding="utf-8"))
    policies = [g["content"] for _, g in page.elements if g.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_what_a_user_wrote_is_text(write: Write, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    store.write("samples/x.png", buffer.getvalue())
    picture = Picture(key="samples/x.png", scores={EVIL: 0.5})
    pair = SamplePair(prompt=EVIL, seed=0, base=picture, tuned=picture)
    score = {EVIL: Score(mean=0.5, std=0.1)}
    folder = write(
        [
            RunStarted(spec_sha256=EVIL, updates=1),
            LogLine(message=EVIL),
            EvaluationDone(update=1, images=1, base=score, tuned=score),
            SamplesReady(update=1, pairs=(pair,)),
            AlertRaised(kind="nan", update=1, action="stop", message=EVIL, judge=EVIL),
        ],
        name=EVIL,
        metadata={EVIL: EVIL},
        base_model={"path": EVIL},
        prompts={"inline": [EVIL]},
        rewards=[{"name": EVIL}],
    )
    path = write_report(folder)
    page = Page(path)
    assert not any(tag == "script" for tag, _ in page.elements)
    assert "<script" not in path.read_text(encoding="utf-8")
    assert page.text.count(EVIL) > 10
    assert f"base: {EVIL}" in {given.get("alt") for _, given in page.elements}


def test_a_run_without_evaluations_has_a_report(whole_run: Path) -> None:
    path = whole_run / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    wanted = ("job.started", "job.metrics")
    path.write_text("".join(line for line in lines if json.loads(line)["type"] in wanted))
    text = Page(write_report(whole_run)).text
    assert "It was not evaluated." in text
    assert "No evaluation left pictures." in text
    assert "running, or interrupted" in text


def test_a_run_that_never_began_has_a_report(write: Write) -> None:
    text = Page(write_report(write([]))).text
    assert "not started" in text
    assert "No update was made." in text


def test_events_of_earlier_versions_are_reported(whole_run: Path) -> None:
    path = whole_run / "events.jsonl"
    younger = {"stage", "stages", "shares", "peak_memory_bytes", "wall_seconds", "statistics"}
    younger |= {"diversity"}
    old = []
    for line in path.read_text().splitlines():
        envelope = json.loads(line)
        envelope["data"] = {k: v for k, v in envelope["data"].items() if k not in younger}
        old.append(json.dumps(envelope))
    path.write_text("\n".join(old) + "\n")
    text = Page(write_report(whole_run)).text
    assert "Share of each reward term: nothing was recorded." in text
    assert "not recorded" in text


def test_cost_is_summed_per_stage(whole_run: Path) -> None:
    found = costs(read_run(whole_run))
    assert list(found) == [1, 2]
    for stage, memory in ((1, 2), (2, 4)):
        spent = found[stage]
        assert (spent.updates, spent.seconds, spent.images) == (2, 4.0, 8)
        assert (spent.with_gradient, spent.without_gradient) == (24, 56)
        assert spent.peak_memory_bytes == memory * 2**20
    flat = re.sub(r"\s+", " ", Page(write_report(whole_run)).text)
    assert "all updates 4 8.0 s 48 112 16 4 MiB" in flat
    assert "stage 2 2 4.0 s 24 56 8 4 MiB" in flat


def test_alerts_and_log_lines_are_shown(whole_run: Path, write: Write) -> None:
    alert = AlertRaised(
        kind="reward_divergence",
        update=4,
        action="none",
        value=0.75,
        limit=0.5,
        message="They fell",
    )
    write([alert, LogLine(level="warn", message="prompts: 2 are empty")])
    flat = re.sub(r"\s+", " ", Page(write_report(whole_run)).text)
    assert "reward divergence They fell 4 0.750 0.500 none" in flat
    assert "warn prompts: 2 are empty" in flat


def test_the_configuration_is_the_stored_specification(whole_run: Path) -> None:
    import yaml

    text = write_report(whole_run).read_text(encoding="utf-8")
    shown = re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)
    assert yaml.safe_load(shown[0]) == json.loads((whole_run / "spec.json").read_text())


def test_numbers_that_are_not_finite_do_not_break_a_report(whole_run: Path) -> None:
    path = whole_run / "events.jsonl"
    events = [from_envelope(json.loads(line)) for line in path.read_text().splitlines()]
    broken: list[Any] = [
        event.model_copy(update={"reward": float("nan"), "grad_norms": {1: float("inf")}})
        for event in events
        if event.type == "job.metrics"
    ]
    path.write_text("".join(json.dumps(to_envelope(event)) + "\n" for event in [*events, *broken]))
    text = Page(write_report(whole_run)).text
    assert "Gradient norm before clipping (clipped at 1): nothing was recorded." in text


def test_writing_twice_is_the_same_file(whole_run: Path) -> None:
    path = write_report(whole_run)
    first = path.read_bytes()
    assert write_report(whole_run).read_bytes() == first
    assert path.name == "report.html"


def test_reports_need_no_torch(whole_run: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from shortft_core.report import write_report;"
        "write_report(Path(sys.argv[1])); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(whole_run)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "False"


def test_elements_escape_what_is_not_markup() -> None:
    assert element("td", "<b>", cls='"') == '<td class="&quot;">&lt;b&gt;</td>'
    assert element("p", element("b", "&")) == "<p><b>&amp;</b></p>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, '<span class="good">+0.2500</span>'),
        (-0.25, '<span class="bad">\N{MINUS SIGN}0.2500</span>'),
        (-0.00001, "0"),
        (0.0, "0"),
    ],
)
def test_changes_carry_their_sign(value: float, text: str) -> None:
    assert signed(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.25, "1.2 s"), (59.0, "59.0 s"), (61.0, "1 min 01 s"), (3725.0, "1 h 02 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
