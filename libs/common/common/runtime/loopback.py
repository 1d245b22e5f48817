"""What is of this machine alone: addresses that only it reaches, and the names by which a request asks for it."""

import ipaddress
from typing import Final

LOCALHOST_ONLY: Final = "Other machines do not reach this service: ask for it as localhost or 127.0.0.1."


def is_loopback(host: str) -> bool:
    """Whether a listener on `host` is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_localhost_header(host: str) -> bool:
    """Whether a Host header does, whatever its port.

    A browser lets a page of any name read the answers to that name, and who owns it may have it lead here; but it
    always says the name.
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)
