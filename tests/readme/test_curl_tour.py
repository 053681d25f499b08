"""The README's tour with curl, line by line, against the service that it tells to start."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from tests.api.embedded_service import embedded

README: Final = Path(__file__).parents[2] / "README.md"
BLOCK: Final = re.compile(r"^## A tour with curl$.*?^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS: Final = "http://127.0.0.1:8000"


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_tour_with_curl_runs(tmp_path: Path) -> None:
    found = BLOCK.search(README.read_text(encoding="utf-8"))
    assert found is not None
    tour = found[1]
    assert tour.count("curl") >= 8
    assert ADDRESS in tour
    # Every answer but 2xx ends the tour; bars would fill the log.
    (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    with embedded(tmp_path / "data", "--port", "0", variables={}) as service:
        script = "set -euo pipefail\n" + tour.replace(ADDRESS, service.address)
        done = subprocess.run(
            ["/bin/bash", "-c", script],
            cwd=tmp_path,
            env={"CURL_HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/local/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert service.end(signal.SIGTERM) == 0
        assert service.said.count(": stopped (") == 4
    assert done.returncode == 0, done.stdout + done.stderr
    assert "event: done" in done.stdout
    assert '"status":"succeeded"' in done.stdout.replace(" ", "")
    assert json.loads((tmp_path / "job.json").read_text())["method"] == "shortft"
    assert "reward" in (tmp_path / "report.html").read_text(encoding="utf-8")
    with Image.open(tmp_path / "star.png") as star:
        assert star.size == (64, 64)
        assert "a red star" in star.info["parameters"]
