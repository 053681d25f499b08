"""How a lack of memory shows: torch has a class for it on accelerators, and mere words on a CPU."""

from __future__ import annotations

from typing import Final

import torch

_NO_MEMORY: Final = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    # What oneDNN says where its own allocation failed.
    "could not create a primitive",
    "could not execute a primitive",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
