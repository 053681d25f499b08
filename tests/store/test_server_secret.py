from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from store.server_secret import secret_file

if TYPE_CHECKING:
    from pathlib import Path


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    made = secret_file(tmp_path).read_text()
    assert len(made.strip()) == 64
    assert secret_file(tmp_path).read_text() == made
    assert stat.S_IMODE(secret_file(tmp_path).stat().st_mode) == 0o600
