"""Which file systems lie on another machine, as Linux lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_NETWORK: Final = ("9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "nfs", "smb")
_MOUNTS: Final = Path("/proc/self/mounts")
_ESCAPED_SPACE: Final = "\\040"


def network_filesystem(folder: Path) -> str | None:
    """The kind of network file system that `folder` is on; None for a local one, or unknown."""
    if not _MOUNTS.is_file():
        return None
    return find_network(_MOUNTS.read_text(encoding="utf-8"), folder.resolve())


def find_network(mounts: str, folder: Path) -> str | None:
    """The same from the text of a table of mounts: device, folder, kind, and more on each line."""
    fields = [line.split(" ") for line in mounts.splitlines()]
    places = [(Path(line[1].replace(_ESCAPED_SPACE, " ")), line[2]) for line in fields]
    above = [(place, kind) for place, kind in places if folder.is_relative_to(place)]
    if not above:
        return None
    # Of two mounts on the same folder, the later one is seen.
    _, (_, kind) = max(enumerate(above), key=lambda item: (len(item[1][0].parts), item[0]))
    is_network = kind.removeprefix("fuse.").startswith((*_NETWORK, "s3fs", "sshfs"))
    return kind if is_network else None
