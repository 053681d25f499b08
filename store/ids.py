"""Public ids: a prefix and a UUIDv7 (RFC 9562, 5.7), so that ids sort by the time of creation."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Final, Literal

Prefix = Literal["adp", "art", "ckpt", "evt", "gen", "img", "job", "key", "ps", "smp", "wrk"]
ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base32, lower case: no i, l, o, u."""
LENGTH: Final = 26
"""Digits of 128 bits."""

_lock = threading.Lock()
_last_tick = 0


def new_id(prefix: Prefix) -> str:
    """An id such as `job_01jd…`; within one process each is greater than the one before."""
    return f"{prefix}_{_encode(_uuid7(_tick()))}"


def _tick() -> int:
    """Time in 1/4096 ms since 1970, one more than the last one where the clock has not moved."""
    global _last_tick  # noqa: PLW0603  the clock belongs to the process
    now = time.time_ns() * 4096 // 1_000_000
    with _lock:
        _last_tick = max(now, _last_tick + 1)
        return _last_tick


def _uuid7(tick: int) -> int:
    """48 bits of milliseconds, version, 12 bits of fraction (method 3), variant, 62 random bits."""
    milliseconds, fraction = divmod(tick, 4096)
    head = milliseconds << 16 | 0x7 << 12 | fraction
    return head << 64 | 0b10 << 62 | secrets.randbits(62)


def _encode(number: int) -> str:
    return "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(LENGTH)))
