"""Checkpoints: exact, atomic, and never loaded torn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from shortft_core.artifacts import LocalStore
from shortft_core.checkpoint import Checkpoints, Manifest, checkpoint_folder
from shortft_core.errors import UserError


def trained(updates: int) -> tuple[list[nn.Parameter], torch.optim.AdamW]:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    for update in range(updates):
        step(parameters, optimizer, update)
    return parameters, optimizer


def step(parameters: list[nn.Parameter], optimizer: torch.optim.AdamW, update: int) -> None:
    optimizer.zero_grad()
    torch.stack([((p - update) ** 2).sum() for p in parameters]).sum().backward()
    optimizer.step()


def manifest(update: int) -> Manifest:
    return Manifest(update=update, updates=10, seconds=1.5, spec_sha256="spec", base_sha256="base")


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(LocalStore(tmp_path), "spec", "base")


def test_a_resumed_optimizer_continues_bit_for_bit(checkpoints: Checkpoints) -> None:
    parameters, optimizer = trained(3)
    checkpoints.save(manifest(3), parameters, optimizer)
    resumed, fresh = trained(0)
    found = checkpoints.resume(resumed, fresh)
    assert found is not None
    assert (found.update, found.updates, found.seconds) == (3, 10, 1.5)
    for update in range(3, 6):
        step(parameters, optimizer, update)
        step(resumed, fresh, update)
    for ours, theirs in zip(resumed, parameters, strict=True):
        assert torch.equal(ours, theirs)


def test_a_fresh_run_finds_nothing(checkpoints: Checkpoints) -> None:
    assert checkpoints.resume(*trained(0)) is None


def test_the_newest_ones_are_kept(checkpoints: Checkpoints) -> None:
    parameters, optimizer = trained(1)
    for update in (1, 2, 3):
        checkpoints.save(manifest(update), parameters, optimizer)
    assert {key.split("/")[1] for key in checkpoints.store.list("checkpoints/")} == {
        "000002",
        "000003",
    }


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_a_torn_checkpoint_is_passed_over(
    checkpoints: Checkpoints, name: str, tmp_path: Path
) -> None:
    parameters, optimizer = trained(1)
    checkpoints.save(manifest(1), parameters, optimizer)
    checkpoints.save(manifest(2), parameters, optimizer)
    path = tmp_path / "checkpoints" / "000002" / name
    path.write_bytes(path.read_bytes()[:-5])
    found = checkpoints.resume(*trained(0))
    assert found is not None
    assert found.update == 1


def test_tensors_without_manifest_do_not_count(checkpoints: Checkpoints, tmp_path: Path) -> None:
    parameters, optimizer = trained(1)
    checkpoints.save(manifest(1), parameters, optimizer)
    (tmp_path / "checkpoints" / "000001" / "manifest.json").unlink()
    assert checkpoints.resume(*trained(0)) is None


def test_the_manifest_is_written_last(tmp_path: Path) -> None:
    written: list[str] = []

    class Recording(LocalStore):
        def write(self, key: str, data: bytes) -> str:
            written.append(key)
            return super().write(key, data)

    event = Checkpoints(Recording(tmp_path), "spec", "base").save(manifest(7), *trained(1))
    assert written == [
        "checkpoints/000007/state.safetensors",
        "checkpoints/000007/manifest.json",
    ]
    assert (event.update, event.key) == (7, written[0])
    assert event.size_bytes == (tmp_path / written[0]).stat().st_size


def test_what_lies_beside_is_sealed_by_the_manifest_and_goes_with_it(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    def write_beside(update: int) -> None:
        folder = tmp_path / checkpoint_folder(update)
        assert (folder / "state.safetensors").is_file()
        assert not (folder / "manifest.json").exists()
        (folder / "adapter").mkdir()
        (folder / "adapter" / "shortft.json").write_text(str(update))

    for update in (1, 2, 3):
        checkpoints.save(manifest(update), *trained(1), write_beside=write_beside)
    kept = [key for key in checkpoints.store.list() if key.endswith("shortft.json")]
    assert kept == [f"checkpoints/00000{update}/adapter/shortft.json" for update in (2, 3)]
    assert not any(key.startswith("checkpoints/000001/") for key in checkpoints.store.list())


def test_another_specification_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save(manifest(1), *trained(1))
    with pytest.raises(UserError, match="another specification"):
        Checkpoints(LocalStore(tmp_path), "other", "base").resume(*trained(0))


def test_another_base_model_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save(manifest(1), *trained(1))
    with pytest.raises(UserError, match="base model has changed"):
        Checkpoints(LocalStore(tmp_path), "spec", "other").resume(*trained(0))


def test_another_shortcut_is_refused(checkpoints: Checkpoints) -> None:
    parameters, optimizer = trained(1)
    checkpoints.save(manifest(1), parameters, optimizer)
    other = replace(checkpoints, shortcut_sha256="another")
    with pytest.raises(UserError, match="shortcut has changed"):
        other.resume(*trained(0))
