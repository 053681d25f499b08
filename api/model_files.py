"""Which weights of the catalog lie on this machine; looked at, never fetched."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from shortft_core.catalog import Weights
from shortft_core.settings import settings

_BUNDLED: Final = "bundled"
_OF_A_FOLDER: Final = ("*.json", "*.safetensors")
"""One of them is in every folder of weights; a download that was cut off may have left neither."""


def size_on_disk(weights: Weights) -> int | None:
    """Bytes of the files that are here; None if some that are needed are not."""
    folder = _folder(weights)
    if folder is None or not folder.is_dir():
        return None
    if weights.files:
        wanted = [folder / name for name in weights.files]
        return sum(_size(path) for path in wanted) if all(map(Path.is_file, wanted)) else None
    if not any(path for pattern in _OF_A_FOLDER for path in folder.glob(pattern)):
        return None
    return sum(_size(path) for path in folder.rglob("*") if path.is_file())


def is_complete(weights: Weights) -> bool:
    """Whether nothing has to be fetched."""
    return size_on_disk(weights) is not None


def _folder(weights: Weights) -> Path | None:
    if weights.bundled is not None:
        return Path(str(files("shortft_core"))) / _BUNDLED / weights.bundled
    if weights.url is not None:
        return settings().cache_dir
    return _hub_folder(str(weights.hub_id), weights.revision)


def _hub_folder(hub_id: str, revision: str | None) -> Path | None:
    """The snapshot in the hub client's cache; None without one, or without the client.

    The client comes with what workers need; an API on a machine of its own sees no cache anyway.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _size(path: Path) -> int:
    return path.stat().st_size
