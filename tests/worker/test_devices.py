"""The accelerators of a machine, from what the driver shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.devices import describe_device, visible_gpus
from worker.settings import DeviceSettings


def settings(device: str = "auto", visible: str | None = None) -> DeviceSettings:
    return DeviceSettings(shortft_device=device, cuda_visible_devices=visible)


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    for address in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / address).mkdir()
        text = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 55\n"
        (tmp_path / address / "information").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("device", "visible", "gpus"),
    [
        ("auto", None, ("0", "1")),
        ("auto", "1", ("1",)),
        ("auto", "GPU-a, GPU-b", ("GPU-a", "GPU-b")),
        ("auto", "", ()),
        ("auto", "-1", ()),
        ("cuda:1", None, ("1",)),
        ("cuda:0", "5,7", ("5",)),
        ("cpu", None, ()),
    ],
)
def test_each_slot_gets_a_gpu(
    driver: Path, device: str, visible: str | None, gpus: tuple[str, ...]
) -> None:
    assert visible_gpus(settings(device, visible), driver) == gpus


def test_a_machine_without_driver_computes_on_its_cpu(tmp_path: Path) -> None:
    nowhere = tmp_path / "nothing"
    assert visible_gpus(settings(visible="0"), nowhere) == ()
    assert describe_device(settings(), nowhere).startswith("cpu ")


def test_the_model_names_the_device(driver: Path) -> None:
    assert describe_device(settings(), driver) == "NVIDIA H100 80GB HBM3"
