"""The merged OpenAPI document: fetched from the services when somebody asks, and kept for a while."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from edge_limiter.pages.openapi_merge import RouteOf, merge
from edge_limiter.upstream.client import UpstreamClient
from edge_limiter.upstream.errors import UpstreamError

KEEP_S: Final = 60.0
KEEP_INCOMPLETE_S: Final = 2.0
TIMEOUT_S: Final = 2.0


class Documents:
    """Leaves out a service that is away, and asks it again soon."""

    def __init__(self, own: dict[str, Any], upstreams: Mapping[str, UpstreamClient], route_of: RouteOf) -> None:
        self._own = own
        self._upstreams = upstreams
        self._route_of = route_of
        self._lock = asyncio.Lock()
        self._kept = b""
        self._keep_until = 0.0

    async def read(self) -> bytes:
        """The document as JSON."""
        async with self._lock:
            if not self._kept or time.monotonic() >= self._keep_until:
                found = await asyncio.gather(*map(_fetch, self._upstreams.values()))
                named = {name: doc for name, doc in zip(self._upstreams, found, strict=True) if doc is not None}
                self._kept = json.dumps(merge(self._own, named, self._route_of)).encode()
                self._keep_until = time.monotonic() + (KEEP_S if len(named) == len(found) else KEEP_INCOMPLETE_S)
            return self._kept


async def _fetch(upstream: UpstreamClient) -> dict[str, Any] | None:
    try:
        with await upstream("GET", "/openapi.json", [], b"", TIMEOUT_S) as answer:
            async with asyncio.timeout(TIMEOUT_S):
                document = json.loads(await answer.read()) if answer.status == 200 else None
    except (UpstreamError, TimeoutError, ValueError):
        return None
    return document if isinstance(document, dict) else None
