"""Gemini by a proxy: with `https_proxy` both SDKs ask it for Gemini's name, and reach Gemini by nothing else.

The writer is a process of its own, since gRPC reads its authorities once. Name and certificate are those of the real
Gemini, but for who signed it.
"""

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fake_gemini import Script, over_grpc, rest

GEMINI = "generativelanguage.googleapis.com"
WRITER = """
import asyncio, sys
from analyst.model import open_writer
from analyst.writer import Prompt, WriterError

async def main():
    writer = open_writer(sys.argv[1], "secret-key", "gemini-2.5-flash-lite", "")
    try:
        print(await writer.write(Prompt(system="You report.", user="The facts."), 60))
    except WriterError as error:
        print(repr(error))
    finally:
        await writer.close()

asyncio.run(main())
"""

Fake = Callable[[Script], AbstractAsyncContextManager[str]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SDKS: dict[str, tuple[Fake, str]] = {"genai": (rest, "http/1.1"), "generativeai": (over_grpc, "h2")}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemini's certificate and its key, signed by itself: authority and server in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, GEMINI)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(GEMINI)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "gemini.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@asynccontextmanager
async def listening(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server that gives each connection to `serve`; what is still open at the end is cut off."""
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            async with closing(writer):
                await serve(reader, writer)
        except asyncio.IncompleteReadError:
            pass  # a connection that was made and not used
        finally:
            connections.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in (open_ := list(connections)):
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)


@asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Carry bytes to a port and back until both sides have ended, or one broke."""
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(65536):
                sink.write(piece)
                await sink.drain()
        sink.close()

    async with closing(far_writer):
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))


@asynccontextmanager
async def gemini(fake: Fake, script: Script, protocol: str, certificate: Path) -> AsyncIterator[int]:
    """The port of a fake behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols([protocol])
    async with fake(script) as url:
        behind = urlsplit(url).port
        assert behind is not None
        async with listening(lambda reader, writer: join(reader, writer, behind), context) as port:
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
    """What the writer, told of this proxy as its pod would be, printed."""
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
