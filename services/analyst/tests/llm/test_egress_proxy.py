"""Gemini by a proxy: with `https_proxy` both SDKs ask it for Gemini's name, and reach Gemini by nothing else.

The writer is a separate process, because gRPC reads its authorities once. Name and certificate are those of the real
Gemini, but for who signed it.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fake_gemini import Script, over_grpc, rest
from tls import before, join, listening, self_signed

GEMINI = "generativelanguage.googleapis.com"
WRITER = """
import asyncio, sys
from analyst.llm.factory import open_client
from analyst.llm.client import LLMError, Prompt

async def main():
    client = open_client(sys.argv[1], "secret-key", "gemini-2.5-flash-lite", "")
    try:
        prompt = Prompt("You report.", "The facts.", {"type": "object", "properties": {"a": {"type": "string"}}})
        print((await client.complete(prompt, 60)).text)
    except LLMError as error:
        print(repr(error))
    finally:
        await client.close()

asyncio.run(main())
"""

Fake = Callable[[Script], AbstractAsyncContextManager[str]]
SDKS: dict[str, tuple[Fake, str]] = {"genai": (rest, "http/1.1"), "generativeai": (over_grpc, "h2")}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("certificate"), GEMINI)


@asynccontextmanager
async def gemini(fake: Fake, script: Script, protocol: str, certificate: Path) -> AsyncIterator[int]:
    """The port of a fake behind TLS."""
    async with fake(script) as url:
        behind = urlsplit(url).port
        assert behind is not None
        async with before(behind, certificate, protocol) as port:
            yield port


@asynccontextmanager
async def proxy(asked: list[str], port: int | None) -> AsyncIterator[str]:
    """The URL of a proxy that notes what it is asked for and leads to `port`, or refuses."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.partition(b"\r\n")[0].decode())
        if port is None:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await join(reader, writer, port)

    async with listening(serve) as own:
        yield f"http://127.0.0.1:{own}"


async def write(sdk: str, proxy_url: str, certificate: Path) -> str:
    """Return the output of a writer that uses this proxy, as its pod would."""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"https_proxy": proxy_url}
    environment |= {"SSL_CERT_FILE": str(certificate), "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificate)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, sdk, env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode().strip()


@pytest.mark.parametrize("sdk", SDKS)
async def test_report__is_written_through_the_proxy(sdk: str, certificate: Path) -> None:
    script, asked = Script(), list[str]()
    fake, protocol = SDKS[sdk]
    async with gemini(fake, script, protocol, certificate) as port, proxy(asked, port) as url:
        assert await write(sdk, url, certificate) == script.text
    assert script.keys == ["secret-key"]
    assert {line.rpartition(" ")[0] for line in asked} == {f"CONNECT {GEMINI}:443"}


@pytest.mark.parametrize("sdk", SDKS)
async def test_proxy_that_refuses__is_a_named_error(sdk: str, certificate: Path) -> None:
    asked: list[str] = []
    async with proxy(asked, None) as url:
        assert (await write(sdk, url, certificate)).startswith(("Retryable", "NotSent", "Fatal"))
    assert asked
