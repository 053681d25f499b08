"""Which names and addresses are this machine's own, whoever resolves them."""

from __future__ import annotations

import ipaddress
from typing import Final

_LOCAL_NAMES: Final = frozenset({"localhost", "localhost.localdomain"})


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    if host.lower() in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name: only a resolver could tell, and that is what rebinding abuses.
        return False
