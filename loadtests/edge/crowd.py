"""Slow and idle clients beside normal ones, against a running edge. `crowd.py PORT`; prints JSON.

500 connections send one byte a second, half of them in the head and half in the body; then 5,000 sit idle.
"""

import asyncio
import json
import resource
import subprocess
import sys
from pathlib import Path

LOAD = Path(__file__).with_name("load.py")
SLOW, IDLE = 500, 5_000
HEAD = b"POST /predict HTTP/1.1\r\nHost: edge\r\nX-Forwarded-For: 192.0.2.%d\r\n"
REQUEST = b"GET /nowhere HTTP/1.1\r\nHost: edge\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def slow_client(port: int, number: int) -> None:
    """One byte a second, and from the start again whenever the edge has had enough; no two at the same moment."""
    await asyncio.sleep(number / SLOW)
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b"Content-Length: 100000\r\n\r\n" if number % 2 else b""
        writer.write(HEAD % (number % 250) + body)
        try:
            while not reader.at_eof() and not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(1)
                if reader.at_eof() or reader._buffer:  # type: ignore[attr-defined]  # answered: it need not be read
                    break
        except ConnectionError:
            pass
        writer.close()


async def measure(port: int) -> float:
    """The p99 of normal clients at 200 requests a second, in ms."""
    command = [sys.executable, str(LOAD), str(port), "8", "8", "20000", "200"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    return float(json.loads(output)["p99_ms"])


async def ask(streams: Streams) -> bool:
    """Whether a connection that sat idle still answers."""
    reader, writer = streams
    writer.write(REQUEST)
    return (await reader.readline()).startswith(b"HTTP/1.1 404")


async def main(port: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    alone = await measure(port)
    slow = [asyncio.create_task(slow_client(port, number)) for number in range(SLOW)]
    await asyncio.sleep(3)
    beside_slow = await measure(port)
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE)]
    beside_idle = await measure(port)
    answering = sum([await ask(streams) for streams in idle])
    print(
        json.dumps(
            {
                "p99_ms alone": alone,
                f"p99_ms beside {SLOW} slow": beside_slow,
                f"p99_ms beside {IDLE} idle": beside_idle,
                f"of {IDLE} idle still answering": answering,
            }
        )
    )


asyncio.run(main(int(sys.argv[1])))
