"""The result of a job: its files under the lease's own prefix, then rows and status at once."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shortft_core.adapter_card import CARD_FILE
from shortft_core.shortcut_card import CARD_FILE as SHORTCUT_CARD_FILE
from store import object_keys
from store.models import Job
from store.objects import StoredObject
from store.results import NewAdapter, NewArtifact
from store.transitions import Lease
from worker.train.stored import RunStorage, names_below

PATIENCE_SECONDS: Final = 600.0
"""All the work is done: a store that is away is waited for."""
_SINGLE: Final = {
    "report.html": "report",
    "spec.json": "spec",
    "shortcut.safetensors": "shortcut",
    "report.png": "report",
    SHORTCUT_CARD_FILE: "card",
}
"""Files of a run folder -> kind of artifact."""
_NAMED: Final = {CARD_FILE: "card", "README.md": "diffusers_readme"}
_FOLDERS: Final = {"adapter": "", "best": "best_"}
"""Folder -> what the kinds of its files begin with."""


@dataclass(frozen=True, slots=True)
class Result:
    """Stored files that wait for their rows."""

    artifacts: tuple[NewArtifact, ...]
    adapter: NewAdapter | None
    summary: Mapping[str, Any] = field(default_factory=dict)
    """What the last event says."""


def store_result(storage: RunStorage, lease: Lease, folder: Path, job: Job) -> Result:
    """Stores what lies in the run folder of a finished run; raises StorageError."""
    storage.patience_seconds = PATIENCE_SECONDS
    # As the row has it: the trainer's own copy names files of its folder.
    (folder / "spec.json").write_text(json.dumps(job.spec, indent=2) + "\n", encoding="utf-8")
    prefix = object_keys.artifacts_prefix(lease.row_id, lease.token)
    artifacts = [
        NewArtifact(kind=kind, filename=name, stored=storage.put_file(folder / name, prefix + name))
        for name, kind in _SINGLE.items()
        if (folder / name).is_file()
    ]
    for name, begin in _FOLDERS.items():
        if (folder / name).is_dir():
            artifacts += _folder_artifacts(storage, folder / name, prefix, begin)
    return Result(tuple(artifacts), _adapter(folder / "adapter", prefix, artifacts))


def _folder_artifacts(
    storage: RunStorage, folder: Path, prefix: str, begin: str
) -> list[NewArtifact]:
    """Every file of an adapter folder, and all of them as one archive to download."""
    stored = storage.put_folder(folder, f"{prefix}{folder.name}/", last=CARD_FILE)
    archive = _archive(folder)
    packed = storage.put_file(archive, prefix + archive.name)
    return [
        NewArtifact(kind=folder.name, filename=archive.name, stored=packed),
        *(_artifact(name, begin, found) for name, found in stored.items()),
    ]


def _artifact(name: str, begin: str, stored: StoredObject) -> NewArtifact:
    return NewArtifact(kind=begin + _kind(name), filename=name.replace("/", "_"), stored=stored)


def _kind(name: str) -> str:
    """`branch_1.safetensors` is `branch_1`, `peft/branch_1/…` `peft_branch_1` and its config."""
    if name in _NAMED:
        return _NAMED[name]
    path = Path(name)
    if path.parent == Path():
        return path.stem
    above = "_".join(path.parent.parts)
    return above if path.suffix == ".safetensors" else f"{above}_config"


def _archive(folder: Path) -> Path:
    """A ZIP beside the folder; weights do not get smaller by compression."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(names_below(folder)):
            archive.write(folder / name, f"{folder.name}/{name}")
    return path


def _adapter(folder: Path, prefix: str, artifacts: list[NewArtifact]) -> NewAdapter | None:
    if not (folder / CARD_FILE).is_file():
        return None
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    below = f"{prefix}{folder.name}/"
    kinds = tuple(item.kind for item in artifacts if item.stored.key.startswith(below))
    return NewAdapter(card=card, artifact_kinds=kinds, prefix=below)
