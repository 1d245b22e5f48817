"""Asks a service over HTTP whether it is ready; a whole client is not needed for one status line."""

import asyncio

_TIMEOUT_S = 2.0


async def status_of(host: str, port: int) -> int | None:
    """The status code that host:port answers, or None when there is no answer in time."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            first_line = await _first_line(host, port)
    except (OSError, TimeoutError):
        return None
    parts = first_line.split()
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None


async def _first_line(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET /readyz HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
        return await reader.readline()
    finally:
        writer.close()
