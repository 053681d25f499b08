"""A trainer without torch that speaks the real protocol; fault tests let it run hundreds of times.

It adds up 1, 2, 3, …, so that its result proves that each update was made once, over all resumes.
The job's labels say how it behaves: `step_seconds`, `checkpoint_every`, `evaluate_every`, `fault`
(`crash@3`, `segfault@3`, `hang@3`, `memory@3`, `alert@3`, `refuse`, `once-crash@3`), and `journal`:
a file to which every start, update and stop adds a line.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortft_core.adapter_card import AdapterCard
from shortft_core.artifacts import LocalStore
from shortft_core.events import (
    AlertRaised,
    CheckpointSaved,
    EvaluationDone,
    Event,
    Picture,
    RunFinished,
    RunStarted,
    SamplePair,
    SamplesReady,
    Score,
    StepMetrics,
    to_envelope,
)
from shortft_core.spec import Source
from worker import locks
from worker.children.lifeline import Lifeline
from worker.children.wire import Wire
from worker.protocol import Ended, ExitCode, TrainerJob

BRANCH = "branch_1.safetensors"


@dataclass
class Contract:
    """One attempt."""

    job: TrainerJob
    wire: Wire
    lifeline: Lifeline
    update: int = 0
    total: int = 0
    paused: bool = False
    labels: dict[str, str] = field(init=False)
    updates: int = field(init=False)
    store: LocalStore = field(init=False)

    def __post_init__(self) -> None:
        self.labels = self.job.spec["metadata"]
        self.updates = self.job.spec["method"]["updates"]
        self.store = LocalStore(Path(self.job.run_folder))

    def run(self) -> Ended:
        """Counts to the end, or until told to stop."""
        if self.labels.get("fault") == "refuse":
            error = "method: it is poison. Take another"
            return Ended(code=ExitCode.REFUSED, error_code="invalid_config", error_message=error)
        self.resume()
        self.note("start")
        self.emit(RunStarted(spec_sha256="0", updates=self.updates, first_update=self.update + 1))
        while self.update < self.updates and not (self.lifeline.should_stop() or self.paused):
            self.step()
        self.save()
        finished = self.update == self.updates
        outcome = "completed" if finished else "stopped"
        self.emit(RunFinished(outcome=outcome, updates=self.update, seconds=0.0))
        self.note("stop")
        if finished:
            self.write_adapter("adapter")
            self.store.write("report.html", b"<html></html>")
            return Ended(code=ExitCode.DONE)
        return Ended(code=self.lifeline.ending or ExitCode.RESTING)

    def step(self) -> None:
        """One update, and what is due behind it."""
        time.sleep(float(self.labels.get("step_seconds", "0.02")))
        self.misbehave()
        self.update += 1
        self.total += self.update
        self.note("update")
        self.emit(_metrics(self.update, self.updates, float(self.total)))
        if self.update % int(self.labels.get("evaluate_every", "1000000")) == 0:
            self.evaluate()
        if self.update % int(self.labels.get("checkpoint_every", "5")) == 0:
            self.save()

    def misbehave(self) -> None:
        """Does what the label `fault` asks for before its update."""
        kind, _, at = self.labels.get("fault", "").partition("@")
        if not at or self.update + 1 != int(at):
            return
        once = kind.startswith("once-")
        if once and self.job.lease_token > 1:
            return
        match kind.removeprefix("once-"):
            case "crash":
                raise RuntimeError("the contract is broken")
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "memory":
                raise MemoryError("no memory for update 3")
            case "alert":
                alert = AlertRaised(kind="reward_divergence", update=self.update, action="pause")
                self.emit(alert)
                self.paused = self.job.lease_token == 1
            case _:
                raise ValueError(kind)

    def evaluate(self) -> None:
        """Two pictures, their scores, and a best adapter, in the core's order."""
        update = f"{self.update:06d}"
        keys = [f"samples/{name}/000.png" for name in ("base", update)]
        for key in keys:
            self.store.write(key, f"picture {key}".encode())
        score = {"target": Score(mean=float(self.total), std=0.0)}
        self.emit(
            EvaluationDone(update=self.update, images=1, base=score, tuned=score, is_best=True)
        )
        base, tuned = (Picture(key=key, scores={"target": 1.0}) for key in keys)
        pair = SamplePair(prompt="a star", seed=1, base=base, tuned=tuned)
        self.emit(SamplesReady(update=self.update, pairs=(pair,)))
        self.write_adapter("best")

    def save(self) -> None:
        """A checkpoint in the core's layout, the manifest last; two are kept."""
        folder = f"checkpoints/{self.update:06d}"
        state = json.dumps({"update": self.update, "total": self.total}).encode()
        key = f"{folder}/state.safetensors"
        digest = self.store.write(key, state)
        self.write_adapter(f"{folder}/adapter")
        manifest = json.dumps({"update": self.update, "state_sha256": digest}).encode()
        self.store.write(f"{folder}/manifest.json", manifest)
        self.emit(
            CheckpointSaved(update=self.update, key=key, sha256=digest, size_bytes=len(state))
        )

    def resume(self) -> None:
        """The newest checkpoint in the run folder."""
        keys = [key for key in self.store.list("checkpoints/") if key.endswith("manifest.json")]
        if keys:
            manifest = json.loads(self.store.read(keys[-1]))
            state = self.store.read(
                keys[-1].replace("manifest.json", "state.safetensors"),
                sha256=manifest["state_sha256"],
            )
            content = json.loads(state)
            self.update, self.total = content["update"], content["total"]

    def write_adapter(self, folder: str) -> None:
        """A folder as `save_adapter` leaves it; its branch holds the sum."""
        data = json.dumps({"update": self.update, "total": self.total}).encode()
        self.store.write(f"{folder}/{BRANCH}", data)
        card = _card(hashlib.sha256(data).hexdigest())
        self.store.write(f"{folder}/shortft.json", card.model_dump_json().encode())

    def emit(self, event: Event) -> None:
        """Tells the supervisor."""
        self.wire.send(to_envelope(event))

    def note(self, what: str) -> None:
        """Adds a line to the journal, which several attempts share."""
        if "journal" in self.labels:
            line = f"{what} {self.job.job_id} {self.job.lease_token} {os.getpid()} {self.update}\n"
            descriptor = os.open(
                self.labels["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
            )
            os.write(descriptor, line.encode())
            os.close(descriptor)


def _metrics(update: int, updates: int, loss: float) -> StepMetrics:
    return StepMetrics(
        update=update,
        updates=updates,
        loss=loss,
        reward=loss,
        terms={"symmetry": loss},
        grad_norms={1: 1.0},
        learning_rate=0.1,
        seconds=0.01,
        evaluations_with_gradient=1.0,
        evaluations_without_gradient=0.0,
        images_seen=update,
    )


def _card(sha256: str) -> AdapterCard:
    return AdapterCard(
        base_model=Source(name="shapes"),
        base_sha256="0",
        method="draft_k",
        guidance_scale=1.0,
        rewards=("symmetry",),
        spec_sha256="0",
        timesteps=(1,),
        next_timesteps=(-1,),
        stacks=((1,),),
        rank=1,
        branches=(BRANCH,),
        sha256=(sha256,),
    )


def main(path: str) -> int:
    """Works on a job file; returns the exit code."""
    wire = Wire.take_stdout()
    job = TrainerJob.model_validate_json(Path(path).read_text(encoding="utf-8"))
    lifeline = Lifeline(job.lease_seconds, job.renewed_at, hang_seconds=job.hang_seconds)
    lifeline.start()
    paths = [Path(lock) for lock in job.locks]
    with locks.held(paths, give_up=lifeline.should_stop, on_wait=lambda _: None) as free:
        if not free:
            return int(lifeline.ending or ExitCode.STOPPED)
        try:
            ended = Contract(job, wire, lifeline).run()
        except MemoryError as error:
            code, text = "out_of_memory", str(error)
            ended = Ended(code=ExitCode.FAILED, error_code=code, error_message=text)
    content: dict[str, Any] = ended.model_dump(mode="json")
    wire.send(content)
    return ended.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
