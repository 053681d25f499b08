"""Files from other machines: fetched once, verified always."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import httpx2

from shortft_core.artifacts import atomic_file, file_sha256
from shortft_core.errors import MissingWeightsError, WeightsError
from shortft_core.settings import settings

_TIMEOUT_SECONDS: Final = httpx2.Timeout(60.0, connect=10.0)
_RECORD_SUFFIX: Final = ".sha256"


def fetch(url: str, *, name: str, sha256: str | None) -> Path:
    """The file `name` of the cache folder, downloaded when it is not there yet.

    A file without a known hash is recorded at its first download and held to the record from then
    on. Raises MissingWeightsError when it cannot be had, WeightsError when its bytes are others.
    """
    path = settings().cache_dir / name
    record = path.with_name(path.name + _RECORD_SUFFIX)
    expected = sha256 or _recorded(record)
    if not path.is_file():
        _download(url, path, record, name=name, expected=expected)
    elif expected is None:
        _record(record, file_sha256(path))
    elif (found := file_sha256(path)) != expected:
        raise WeightsError(
            name,
            f"the cached file has sha256 {found}, not {expected}",
            f"Delete {path} and try again; if it was replaced on purpose, delete {record} too",
        )
    return path


def _download(url: str, path: Path, record: Path, *, name: str, expected: str | None) -> None:
    if settings().offline:
        raise _missing(url, path, name, "is not on this machine, and downloads are switched off")
    digest = hashlib.sha256()
    try:
        with (
            httpx2.stream("GET", url, follow_redirects=True, timeout=_TIMEOUT_SECONDS) as response,
            atomic_file(path) as file,
        ):
            for chunk in response.raise_for_status().iter_bytes():
                digest.update(chunk)
                file.write(chunk)
            _check(name, url, digest.hexdigest(), expected)
            if expected is None:
                # Before the file gets its name: no crash leaves a file that nothing vouches for.
                _record(record, digest.hexdigest())
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _missing(url, path, name, f"could not be downloaded ({error})") from error


def _check(name: str, url: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise WeightsError(
            name,
            f"{url} has sha256 {found}, not {expected}",
            "The file was changed upstream or on the way: do not use it, and report it",
        )


def _missing(url: str, path: Path, name: str, problem: str) -> MissingWeightsError:
    return MissingWeightsError(
        name, f"{name} {problem}", f"Download {url} elsewhere and save it as {path}"
    )


def _record(record: Path, sha256: str) -> None:
    with atomic_file(record) as file:
        file.write(f"{sha256}\n".encode())


def _recorded(record: Path) -> str | None:
    return record.read_text(encoding="ascii").strip() if record.is_file() else None
