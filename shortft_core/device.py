"""Which device and number format this machine computes in."""

from __future__ import annotations

import resource
import sys

import torch

from shortft_core.settings import settings


def choose_device() -> torch.device:
    """The device of `SHORTFT_DEVICE`; `auto` takes CUDA, then Apple's GPU, then the CPU."""
    wanted = settings().device
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(device: torch.device) -> torch.dtype:
    """Frozen weights in bf16 on CUDA, in fp32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: allocated on CUDA, resident in the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident * (1 if sys.platform == "darwin" else 1024)
