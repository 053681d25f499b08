"""The files of a result: what they are called, and that nothing is left out."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from store import results
from store.leases import Claim, claim
from tests.faults.harness import Service
from worker.train.publish import Result, store_result
from worker.train.records import Records
from worker.train.stored import RunStorage

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
ADAPTER = (
    "README.md",
    "branch_1.safetensors",
    "peft/branch_1/adapter_config.json",
    "peft/branch_1/adapter_model.safetensors",
    "shortft.json",
)


def stored(running: Service, names: tuple[str, ...]) -> tuple[Claim, Result]:
    running.create(updates=1)
    claimed = running.database.transact(lambda session: claim(session, "wrk_a", ["default"]))
    assert claimed is not None
    folder = running.folder / "run"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    records = Records(running.database, claimed.lease, lambda: True)
    storage = RunStorage(running.objects, records, folder, lambda: True)
    return claimed, store_result(storage, claimed.lease, folder, claimed.job)


def test_an_alignment_has_an_adapter_and_the_best_one(running: Service) -> None:
    names = tuple(f"{folder}/{name}" for folder in ("adapter", "best") for name in ADAPTER)
    hidden = "adapter/.branch_1.safetensors.part"
    claimed, result = stored(running, (*names, hidden, "report.html", "checkpoints/000001/x.json"))
    files = {"branch_1", "card", "diffusers_readme", "peft_branch_1", "peft_branch_1_config"}
    best = {f"best_{kind}" for kind in files}
    kinds = {artifact.kind for artifact in result.artifacts}
    assert kinds == files | best | {"adapter", "best", "report", "spec"}
    assert result.adapter is not None
    assert set(result.adapter.artifact_kinds) == files
    assert result.adapter.prefix == f"jobs/{claimed.job.id}/artifacts/t1/adapter/"
    archive = next(found for found in result.artifacts if found.kind == "adapter")
    with zipfile.ZipFile(io.BytesIO(running.objects.read(archive.stored.key))) as packed:
        assert sorted(packed.namelist()) == sorted(f"adapter/{name}" for name in ADAPTER)


def test_a_distillation_has_a_shortcut_and_no_adapter(running: Service) -> None:
    names = ("shortcut.safetensors", "shortcut.json", "report.png", "trajectories/training/0.bin")
    _, result = stored(running, names)
    named = {artifact.kind: artifact.filename for artifact in result.artifacts}
    assert named == {
        "shortcut": "shortcut.safetensors",
        "card": "shortcut.json",
        "report": "report.png",
        "spec": "spec.json",
    }
    assert result.adapter is None


def test_the_rows_name_what_is_stored(running: Service) -> None:
    claimed, result = stored(running, tuple(f"adapter/{name}" for name in ADAPTER))
    running.database.transact(
        lambda session: results.succeed(session, claimed.lease, result.artifacts, result.adapter)
    )
    with running.database.read() as session:
        rows = results.artifacts(session, claimed.job.id)
    assert len(rows) == len(result.artifacts) == len(ADAPTER) + len(("zip", "spec"))
    assert all(running.objects.read(row.object_key, sha256=row.sha256) for row in rows)
    assert {Path(row.filename).name for row in rows} == {row.filename for row in rows}
