from __future__ import annotations

from pathlib import Path

import pytest

from shortft_core.errors import UserError
from store import engine
from store.engine import open_database
from store.mounts import find_network, network_filesystem

MOUNTS = """\
overlay / overlay rw 0 0
proc /proc proc rw 0 0
server:/export /data nfs4 rw 0 0
/dev/sda1 /data/local ext4 rw 0 0
//host/share /mnt/two\\040words cifs rw 0 0
user@host: /mnt/far fuse.sshfs rw 0 0
/dev/sdb1 /mnt/far ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", None),
        ("/data", "nfs4"),
        ("/data/deep/er", "nfs4"),
        ("/data/local/a", None),
        ("/database", None),
        ("/mnt/two words/a", "cifs"),
        ("/mnt/far", None),
    ],
)
def test_the_nearest_and_latest_mount_counts(folder: str, kind: str | None) -> None:
    assert find_network(MOUNTS, Path(folder)) == kind


def test_fuse_can_be_a_network() -> None:
    assert find_network(MOUNTS.rsplit("/dev/sdb1", 1)[0], Path("/mnt/far/a")) == "fuse.sshfs"


def test_the_folder_of_a_test_is_local(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path) is None


def test_sqlite_on_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "network_filesystem", lambda _: "nfs4")
    with pytest.raises(UserError, match="is on nfs4, where SQLite's locks do not hold"):
        open_database(f"sqlite:///{tmp_path}/shortft.db")
