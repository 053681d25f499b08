"""The accelerators of this machine, as far as they show without loading torch."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

from worker.settings import DeviceSettings

_NVIDIA: Final = Path("/proc/driver/nvidia/gpus")


def visible_gpus(settings: DeviceSettings, folder: Path = _NVIDIA) -> tuple[str, ...]:
    """Values for CUDA_VISIBLE_DEVICES, one for each GPU that this process may use."""
    wanted = settings.shortft_device
    if wanted in {"cpu", "mps"}:
        return ()
    present = sorted(folder.iterdir()) if folder.is_dir() else []
    if settings.cuda_visible_devices is not None:
        names = (name.strip() for name in settings.cuda_visible_devices.split(","))
        gpus = tuple(name for name in names if name and name != "-1") if present else ()
    else:
        gpus = tuple(str(index) for index in range(len(present)))
    if wanted.startswith("cuda:"):
        index = int(wanted.removeprefix("cuda:"))
        return gpus[index : index + 1]
    return gpus


def describe_device(settings: DeviceSettings, folder: Path = _NVIDIA) -> str:
    """What work is computed on, for people and for the comparison of measured times."""
    if visible_gpus(settings, folder):
        first = min(folder.iterdir()) / "information"
        for line in first.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "Model":
                return value.strip()
        return "cuda"
    if settings.shortft_device == "mps":
        return "mps"
    return f"cpu {platform.machine()}"
