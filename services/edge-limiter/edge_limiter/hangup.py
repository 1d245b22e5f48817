"""Whether the other end of a connection has gone, when nobody reads from it and so nobody would be told."""

import asyncio
import socket
import sys
from typing import Final

_GONE: Final = frozenset({7, 8})  # TCP_CLOSE and TCP_CLOSE_WAIT of Linux


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Also of one that only closed its own direction: such a client counts as gone. False where it can't be told."""
    if sys.platform != "linux":
        return False
    try:
        state = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except (OSError, ValueError):  # it is closed already, or no TCP socket
        return False
    return state[0] in _GONE
