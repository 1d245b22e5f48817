"""A fake Gemini over REST on loopback, in a separate thread, for tests without an event loop."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fake_gemini import Script, rest

TIMEOUT_S = 60


@contextmanager
def gemini(script: Script) -> Iterator[str]:
    """Yield the URL of a server that follows `script`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    served = rest(script)
    try:
        yield asyncio.run_coroutine_threadsafe(served.__aenter__(), loop).result(TIMEOUT_S)
    finally:
        asyncio.run_coroutine_threadsafe(served.__aexit__(None, None, None), loop).result(TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_S)
        loop.close()
