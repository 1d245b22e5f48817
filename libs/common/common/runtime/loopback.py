"""Loopback addresses and Host headers."""

import ipaddress
from typing import Final

LOCALHOST_ONLY: Final = "This service is local: use localhost or 127.0.0.1 in the URL."


def is_loopback(host: str) -> bool:
    """Whether a listener on `host` is reachable only from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_localhost_header(host: str) -> bool:
    """Whether a Host header names this machine, with any port.

    In a DNS rebinding attack a web page resolves its own name to this machine, but the browser still sends that name.
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)
