"""`shortft jobs …` as a user types it, against a real server with scripted answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from shortft_core.cli import app
from shortft_core.errors import UserError
from shortft_core.events import RunStarted, to_envelope
from tests.shortft_client.scripted import Script, Scripted, Seen, answer, in_turn, serving

Shortft = Callable[..., Result]
CREATED = "2026-01-01T10:00:00Z"


@pytest.fixture
def shortft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shortft:
    """Runs a command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"COLUMNS": "160"})
    return lambda *arguments: runner.invoke(app, arguments, catch_exceptions=False)


def job(**fields: Any) -> dict[str, Any]:
    """A job as the service would describe it."""
    progress = {"updates_completed": 3, "updates_total": 9}
    known = {"id": "job_1", "status": "queued", "spec": {}, "created_at": CREATED}
    return {**known, "progress": progress, "allowed_actions": ["cancel"], **fields}


def envelope(seq: int, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """An event as the service would describe it."""
    common = {"id": f"evt_{seq}", "seq": seq, "job_id": "job_1", "type": kind, "level": "info"}
    return {**common, "created_at": CREATED, "message": "", "data": data}


def history(ending: str) -> Scripted:
    """The stream of a job that ended like this."""
    started = to_envelope(RunStarted(spec_sha256="0", updates=9, first_update=4))
    events = [
        envelope(1, "job.created", {}),
        envelope(2, "job.started", started["data"]),
        envelope(3, f"job.{ending}", {}),
    ]
    frames = [f"id: {one['seq']}\ndata: {json.dumps(one)}\n\n".encode() for one in events]
    done = b"event: done\ndata: {}\n\n"
    return Scripted(200, {"Content-Type": "text/event-stream"}, (*frames, done))


def test_a_specification_is_submitted_as_it_is(shortft: Shortft, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("seed: 3\nmethod: {type: draft_k}\n")
    with serving(in_turn(answer(job(), 202))) as server:
        done = shortft("jobs", "submit", "job.yaml", "--priority", "2", "--server", server.address)
    assert done.output == "job_1 queued\n"
    (sent,) = server.seen
    assert (sent.path, sent.json()) == (
        "/jobs?priority=2",
        {"seed": 3, "method": {"type": "draft_k"}},
    )


@pytest.mark.parametrize("text", ["a: [", "- 1", None])
def test_a_file_that_is_no_specification_is_refused(
    shortft: Shortft, tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(UserError, match=r"spec: job\.yaml"):
        shortft("jobs", "submit", "job.yaml", "--server", "http://127.0.0.1:9")


@pytest.mark.parametrize(("ending", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_watching_ends_with_the_job(shortft: Shortft, ending: str, code: int) -> None:
    with serving(in_turn(history(ending), answer(job(status=ending)))) as server:
        done = shortft("jobs", "watch", "job_1", "--server", server.address)
    assert done.exit_code == code
    assert done.output.splitlines() == [
        "10:00:00 created",
        "resuming after update 3",
        f"10:00:00 {ending}",
    ]


def test_lists_show_the_newest_so_many(shortft: Shortft) -> None:
    ids = [f"job_01kdy7v0x3e8m9q2s5t8w1z4b{number}" for number in range(3)]
    data = [job(id=one, name="a rather long name " * 9) for one in ids]
    page = answer({"data": data, "last_id": ids[-1], "has_more": True})
    with serving(in_turn(page)) as server:
        options = ("--status", "queued", "--limit", "2", "--server", server.address)
        done = shortft("jobs", "list", *options)
    assert [one in done.output for one in ids] == [True, True, False]
    assert "3/9" in done.output
    assert [request.path for request in server.seen] == ["/jobs?status=queued"]


def test_one_job_is_shown_in_words_or_as_it_is(shortft: Shortft) -> None:
    error = {"code": "nan_loss", "message": "the loss is not finite"}
    with serving(in_turn(answer(job(status="failed", error=error)))) as server:
        words = shortft("jobs", "show", "job_1", "--server", server.address).output
        whole = shortft("jobs", "show", "job_1", "--json", "--server", server.address).output
    assert "status: failed\n" in words
    assert "error: nan_loss: the loss is not finite\n" in words
    assert "name" not in words
    assert json.loads(whole)["progress"]["updates_total"] == 9


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry", "rerun"])
def test_verbs_say_what_became_of_the_job(shortft: Shortft, verb: str) -> None:
    with serving(in_turn(answer(job(status="changed")))) as server:
        done = shortft("jobs", verb, "job_1", "--server", server.address)
    assert done.output == "job_1 changed\n"
    (sent,) = server.seen
    assert (sent.method, sent.path) == ("POST", f"/jobs/job_1/{verb}")


def _log(*numbers: int) -> Scripted:
    return answer({"data": [{"number": one, "text": f"line {one} [b]"} for one in numbers]})


def test_logs_are_followed_until_the_job_ends(shortft: Shortft) -> None:
    running, failed = (answer(job(status=status)) for status in ("running", "failed"))
    # The last line is written between the look at the lines and the look at the job.
    script = in_turn(running, _log(7, 8), running, _log(), failed, _log(9), failed, _log())
    with serving(script) as server:
        done = shortft(
            "jobs", "logs", "job_1", "--follow", "--tail", "2", "--server", server.address
        )
    assert done.output == "line 7 [b]\nline 8 [b]\nline 9 [b]\n"
    assert [request.path for request in server.seen[1::2]] == [
        "/jobs/job_1/logs?tail=2",
        "/jobs/job_1/logs?after=8",
        "/jobs/job_1/logs?after=8",
        "/jobs/job_1/logs?after=9",
    ]
    assert {request.path for request in server.seen[::2]} == {"/jobs/job_1"}


def _result(*names: str) -> Script:
    data = b"bytes"
    artifacts = [
        {
            "id": f"art_{number}",
            "kind": f"kind_{number}",
            "filename": name,
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for number, name in enumerate(names)
    ]

    def script(request: Seen) -> Scripted:
        return (
            answer({"data": artifacts})
            if request.path.endswith("s")
            else Scripted(200, {}, (data,))
        )

    return script


def test_results_are_fetched_into_one_folder(shortft: Shortft, tmp_path: Path) -> None:
    with serving(_result("adapter.zip", "../../evil.txt", "..")) as server:
        shortft("jobs", "download", "job_1", "--out", "got", "--server", server.address)
        shortft("jobs", "download", "job_1", "--kind", "kind_0", "--server", server.address)
        with pytest.raises(UserError, match=r"no adapter.*kind_0, kind_1, kind_2"):
            shortft("jobs", "download", "job_1", "--kind", "adapter", "--server", server.address)
    got = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert got == ["got/adapter.zip", "got/evil.txt", "job_1/adapter.zip"]
    assert (tmp_path / "got" / "art_2").read_bytes() == b"bytes"
