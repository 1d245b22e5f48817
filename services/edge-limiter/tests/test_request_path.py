"""The path of one proxied request through the package stays short enough to read."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from aiohttp import web

import edge_limiter

PACKAGE: Final = Path(edge_limiter.__file__).parent
MAX_FILES: Final = 14
REQUESTS: Final = 5


async def answer(_request: web.Request) -> web.Response:
    return web.json_response({"label": "POSITIVE"})


@contextmanager
def files_run() -> Iterator[set[str]]:
    """Collect the package's files whose functions run in this thread."""
    found: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            found.add(str(Path(frame.f_code.co_filename).relative_to(PACKAGE)))

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)


async def test_request_on_a_kept_connection__crosses_few_files(
    start_edge: Callable[..., Awaitable[Any]], start_upstream: Callable[..., Awaitable[str]]
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(answer))
    assert await edge.post() == 200
    crossed = []
    for _ in range(REQUESTS):
        with files_run() as files:
            assert await edge.post() == 200
        crossed.append(files)
    path = sorted(set.intersection(*crossed))  # background tasks run during some requests, not during all
    print(f"{len(path)} files:", *path, sep="\n")  # noqa: T201  # shown by pytest -s
    assert 0 < len(path) <= MAX_FILES, path
