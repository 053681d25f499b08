"""Atomic checkpoints: tensors first, manifest last; only what it vouches for is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from safetensors.torch import load, save
from torch import Tensor, nn

from shortft_core.artifacts import ArtifactStore
from shortft_core.errors import ArtifactError, UserError
from shortft_core.events import CheckpointSaved
from shortft_core.spec import Spec

log = logging.getLogger(__name__)


class Manifest(Spec):
    """What a checkpoint is, and the hash that proves it whole."""

    update: int
    """Updates done."""
    updates: int | None
    """Length of the run; None while `method.seconds` is not yet turned into updates."""
    seconds: float
    """Wall time so far, evaluations included."""
    spec_sha256: str
    base_sha256: str
    """Fingerprint of the base model."""
    shortcut_sha256: str | None = None
    """Hash of the few-step model's file that shortens the chain."""
    state_sha256: str = ""
    halted: bool = False
    """Whether the guard ended the run."""
    evaluation_due: bool = False
    """Whether the run was stopped while it evaluated this state."""
    best_target: float | None = None
    best_update: int | None = None
    stage: int = 1
    stage_starts: tuple[int, ...] = (0,)
    """Updates done when each stage begins, decided once."""
    stage_rewards: tuple[float, ...] = ()
    """Mean rewards of the latest updates of this stage, for the plateau."""
    images: int = 0
    evaluations_with_gradient: int = 0
    evaluations_without_gradient: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every update is done, and the last state is evaluated."""
        done = self.updates is not None and self.update >= self.updates
        return done and not self.evaluation_due


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one run.

    They hold no generator state, because every draw follows from (seed, update, index).
    """

    store: ArtifactStore
    spec_sha256: str
    base_sha256: str
    shortcut_sha256: str | None = None
    keep: int = 2

    def fresh(self, updates: int | None, stage_starts: tuple[int, ...] = (0,)) -> Manifest:
        """The state before the first update."""
        return Manifest(
            update=0,
            updates=updates,
            stage_starts=stage_starts,
            seconds=0.0,
            spec_sha256=self.spec_sha256,
            base_sha256=self.base_sha256,
            shortcut_sha256=self.shortcut_sha256,
        )

    def save(
        self,
        manifest: Manifest,
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        averages: Sequence[Tensor] = (),
        *,
        write_beside: Callable[[int], None] = lambda _: None,
    ) -> CheckpointSaved:
        """Writes weights, optimizer state and moving averages, then the manifest.

        `write_beside` may add files to the `checkpoint_folder` of the update before the manifest.
        """
        state = save(_tensors(parameters, optimizer, averages))
        key = _state_key(manifest.update)
        digest = self.store.write(key, state)
        write_beside(manifest.update)
        sealed = manifest.model_copy(update={"state_sha256": digest})
        self.store.write(_manifest_key(manifest.update), sealed.model_dump_json().encode())
        for update in self._updates()[: -self.keep]:
            self._delete(update)
        return CheckpointSaved(
            update=manifest.update, key=key, sha256=digest, size_bytes=len(state)
        )

    def resume(
        self,
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        averages: Sequence[Tensor] = (),
    ) -> Manifest | None:
        """Loads the newest whole checkpoint; None for a fresh run.

        Raises UserError if the run belongs to another specification or base model.
        """
        for update in reversed(self._updates()):
            manifest = self._manifest(update)
            if manifest is None:
                continue
            self._require_same_run(manifest)
            try:
                state = self.store.read(_state_key(update), sha256=manifest.state_sha256)
            except ArtifactError as error:
                log.warning("%s; trying an older checkpoint", error)
                continue
            _restore(load(state), parameters, optimizer, averages)
            return manifest
        return None

    def _require_same_run(self, manifest: Manifest) -> None:
        if manifest.spec_sha256 != self.spec_sha256:
            problem = "this run folder belongs to another specification"
            raise UserError("spec", problem, "Begin a new run")
        if manifest.base_sha256 != self.base_sha256:
            problem = "the base model has changed since this run began"
            raise UserError("base_model", problem, "Bring the old weights back, or begin a new run")
        if manifest.shortcut_sha256 != self.shortcut_sha256:
            problem = "the shortcut has changed since this run began"
            raise UserError("shortcut", problem, "Bring the old file back, or begin a new run")

    def _delete(self, update: int) -> None:
        """The manifest first: what it vouches for is whole, or it is gone."""
        self.store.delete(_manifest_key(update))
        for key in self.store.list(f"{checkpoint_folder(update)}/"):
            self.store.delete(key)

    def _updates(self) -> list[int]:
        """Updates that have a state and a manifest, oldest first."""
        keys = set(self.store.list("checkpoints/"))
        updates = [int(key.split("/")[1]) for key in keys if key.endswith("/manifest.json")]
        return sorted(update for update in updates if _state_key(update) in keys)

    def _manifest(self, update: int) -> Manifest | None:
        try:
            return Manifest.model_validate_json(self.store.read(_manifest_key(update)))
        except ValidationError:
            log.warning("manifest of checkpoint %d is torn; trying an older one", update)
            return None


def checkpoint_folder(update: int) -> str:
    """Key of the folder that holds everything of one checkpoint."""
    return f"checkpoints/{update:06d}"


def _state_key(update: int) -> str:
    return f"{checkpoint_folder(update)}/state.safetensors"


def _manifest_key(update: int) -> str:
    return f"{checkpoint_folder(update)}/manifest.json"


def _tensors(
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    averages: Sequence[Tensor],
) -> dict[str, Tensor]:
    tensors = {}
    for index, parameter in enumerate(parameters):
        tensors[f"{index}.weight"] = parameter.detach().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{index}.{key}"] = value.contiguous()
    for index, average in enumerate(averages):
        tensors[f"{index}.average"] = average.contiguous()
    return tensors


def _restore(
    tensors: dict[str, Tensor],
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    averages: Sequence[Tensor],
) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(parameters):
            parameter.copy_(tensors[f"{index}.weight"])
            state = {
                key: tensors[f"{index}.{key}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{index}.{key}" in tensors
            }
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device)
                for key, value in state.items()
            }
        for index, average in enumerate(averages):
            average.copy_(tensors[f"{index}.average"])
