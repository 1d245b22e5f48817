"""Free TCP ports on the loopback address; never one of the ephemeral range, which an outgoing connection may take."""

import random
import socket
from collections.abc import Iterator

LOWEST, HIGHEST = 10_000, 32_767


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def share_of(number: int, shares: int) -> range:
    """The ports of one of several parallel callers: neighbours, so that a base and what is counted from it are too."""
    size = (HIGHEST + 1 - LOWEST) // shares
    return range(LOWEST + number * size, LOWEST + (number + 1) * size)


def free_ports(share: int = 0, shares: int = 1) -> Iterator[int]:
    """Free ports, none of them twice; parallel callers, each with a share of its own, never get the same one."""
    candidates = [*share_of(share, shares)]
    random.shuffle(candidates)
    return (port for port in candidates if is_free(port))
