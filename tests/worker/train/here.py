"""The real trainer in the test's own process, which has loaded its libraries already."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from worker.children import trainer
from worker.children.lifeline import Lifeline
from worker.children.wire import Wire
from worker.protocol import Ended, TrainerJob

_SCRIPT = 'echo "$2" > "$0"; exec cat "$1"'
"""Hands over the path of its job file, and passes on what is said."""


@dataclass
class TrainerHere:
    """A command for a station, and who works on what the command is given.

    Everything but the start of an interpreter is real: the job file, the run folder, the messages.
    """

    folder: Path
    asked: Path = field(init=False)
    said: Path = field(init=False)

    def __post_init__(self) -> None:
        self.asked, self.said = self.folder / "asked", self.folder / "said"
        for pipe in (self.asked, self.said):
            os.mkfifo(pipe)

    @property
    def command(self) -> tuple[str, ...]:
        """Starts what a station takes for its trainer."""
        return ("sh", "-c", _SCRIPT, str(self.asked), str(self.said))

    def work(self) -> Ended:
        """Waits for an attempt, and works on it to its end."""
        file = Path(self.asked.read_text(encoding="utf-8").rstrip("\n"))
        job = TrainerJob.model_validate_json(file.read_text(encoding="utf-8"))
        with self.said.open("wb", buffering=0) as stream, contextlib.chdir(job.run_folder):
            wire = Wire(stream)
            lifeline = Lifeline(job.lease_seconds, job.renewed_at)
            ended = trainer._work(job, trainer.Attempt(job, wire, lifeline), is_first=True)
            wire.send(ended.model_dump(mode="json"))
        return ended
