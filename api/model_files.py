"""Which weights lie on this machine; looked at where the loaders look, never fetched or opened."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import shortft_core
from shortft_core.catalog import Weights
from shortft_core.settings import settings

_BUNDLED: Final = Path(shortft_core.__file__).parent / "bundled"
_DEFAULT_REVISION: Final = "main"
_OF_A_MODEL: Final = ("model_index.json", "config.json")
"""One of them is in every folder of weights; a download that was cut off may have left neither."""


def missing_files(
    weights: Weights, hub_folder: Path, revision: str | None = None
) -> tuple[str, ...]:
    """Names of the files that would have to be downloaded; empty if all are here."""
    folder = _folder(weights, hub_folder, revision)
    if weights.files:
        absent = [n for n in weights.files if folder is None or not (folder / n).is_file()]
    elif folder is not None and (weights.bundled or any(map(Path.is_file, _of_a_model(folder)))):
        absent = []
    else:
        absent = [" or ".join(_OF_A_MODEL)]
    prefix = f"{weights.hub_id}/" if weights.hub_id is not None else ""
    return tuple(f"{prefix}{name}" for name in absent)


def _of_a_model(folder: Path) -> list[Path]:
    return [folder / name for name in _OF_A_MODEL]


def size_on_disk(weights: Weights, hub_folder: Path) -> int | None:
    """Bytes of the files that are here; None if some that are needed are not."""
    folder = _folder(weights, hub_folder, None)
    if folder is None or missing_files(weights, hub_folder):
        return None
    files = [folder / name for name in weights.files] or folder.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def _folder(weights: Weights, hub_folder: Path, revision: str | None) -> Path | None:
    if weights.url is not None:
        return settings().cache_dir
    if weights.bundled is not None:
        folder = _BUNDLED / weights.bundled
        return folder if folder.is_dir() else None
    return _snapshot(hub_folder, str(weights.hub_id), revision or weights.revision)


def _snapshot(hub_folder: Path, hub_id: str, revision: str | None) -> Path | None:
    """The folder of one revision in the hub client's cache: `models--owner--name/snapshots/…`."""
    repository = hub_folder / f"models--{hub_id.replace('/', '--')}"
    wanted = revision or _DEFAULT_REVISION
    reference = repository / "refs" / wanted
    commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else wanted
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None
