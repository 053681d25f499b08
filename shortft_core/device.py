"""Which device and number format this machine computes in."""

from __future__ import annotations

import resource
import sys
from typing import Literal

import torch

from shortft_core.settings import settings

Precision = Literal["auto", "fp32", "bf16"]


def choose_device() -> torch.device:
    """The device of `SHORTFT_DEVICE`; `auto` takes CUDA, then Apple's GPU, then the CPU."""
    wanted = settings().device
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(
    device: torch.device, precision: Precision = "auto", *, merged: bool = False
) -> torch.dtype:
    """Format of frozen weights; `auto` is bf16 on CUDA, and fp32 elsewhere and for `merged` ones.

    It is the weights' own format and not an autocast context, whose cache of cast weights would
    lose gradients between a rollout and the pass after it (docs/decisions/0002).
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and not merged else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: allocated on CUDA, resident in the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident * (1 if sys.platform == "darwin" else 1024)
