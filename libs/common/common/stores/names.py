"""Looks up names before they are dialled: of all who dial one, one asks at a time. It keeps no address.

The event loop looks names up in two threads, and a question to a name server that hangs holds its thread for long after
who asked has given up: tries of one name would take them all, and no other could be dialled.
"""

import asyncio
from ipaddress import ip_address
from typing import Any, Final
from weakref import WeakKeyDictionary

_Questions = dict[str, "asyncio.Future[Any]"]
_of_loops: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Questions]] = WeakKeyDictionary()


async def look_up(host: str) -> None:
    """Return once `host` is known to have an address. Raises OSError; the caller limits the time."""
    if not host or _is_address(host):
        return
    loop = asyncio.get_running_loop()
    questions = _of_loops.setdefault(loop, {})
    question = questions.get(host)
    if question is None or question.done():
        question = questions[host] = asyncio.ensure_future(loop.getaddrinfo(host, None))
        question.add_done_callback(_heed)
    await asyncio.wait([question])  # shield would log an error that comes late, from Python 3.14 on
    question.result()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _heed(question: "asyncio.Future[Any]") -> None:
    """Its error is nobody's once all who asked have given up."""
    if not question.cancelled():
        question.exception()
