"""Free TCP ports of 127.0.0.1, outside the ephemeral range, from which outgoing connections take theirs."""

import random
import socket
from collections.abc import Iterator

LOWEST, HIGHEST = 10_000, 32_767


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def share_of(number: int, shares: int) -> range:
    """Return the contiguous ports of one of several parallel callers."""
    size = (HIGHEST + 1 - LOWEST) // shares
    return range(LOWEST + number * size, LOWEST + (number + 1) * size)


def free_ports(share: int = 0, shares: int = 1) -> Iterator[int]:
    """Yield distinct free ports in random order; callers with different shares never get the same one."""
    candidates = [*share_of(share, shares)]
    random.shuffle(candidates)
    return (port for port in candidates if is_free(port))
