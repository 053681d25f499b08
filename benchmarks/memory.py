"""Resident memory of this process, as Linux counts it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"


def resident_bytes() -> int:
    """Memory that is resident now."""
    return _status("VmRSS")


def peak_resident_bytes() -> int:
    """Most memory that was resident since the process began, or since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Forgets the peak, so that loading a model does not hide what a step needs."""
    gc.collect()
    _CLEAR.write_text(_RESET_PEAK, encoding="ascii")


def _status(field: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    value = next(line for line in lines if line.startswith(f"{field}:"))
    return int(value.split()[1]) * 1024
