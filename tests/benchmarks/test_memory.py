"""The peak is that of the work after the reset."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import memory

MEBIBYTE = 2**20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


def test_a_freed_block_is_in_the_peak_until_it_is_reset() -> None:
    memory.reset_peak()
    before = memory.resident_bytes()
    torch.ones(64 * MEBIBYTE // 4).sum()
    assert memory.peak_resident_bytes() - before > 60 * MEBIBYTE
    assert memory.resident_bytes() - before < 32 * MEBIBYTE
    memory.reset_peak()
    assert memory.peak_resident_bytes() - before < 32 * MEBIBYTE
