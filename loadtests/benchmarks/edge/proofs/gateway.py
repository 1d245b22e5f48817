"""nginx with the recipe of docs/gateways.md, which queries the edge before it proxies."""

import asyncio
import shutil
from collections.abc import Iterator

from benchmarks.edge.contenders import start_gateway
from benchmarks.edge.edges import create_database, start_edge, working_tree
from benchmarks.edge.proofs.claims import LIMIT, Answer, Claim, client, post
from benchmarks.edge.testbed import testbed

REQUESTS = 100
HEADERS = ("RateLimit", "RateLimit-Policy")


def prove() -> Iterator[Claim]:
    if not shutil.which("nginx"):
        raise SystemExit("nginx is needed; on Debian: apt install nginx-light")
    with testbed() as bed:
        version = working_tree()
        edge = start_edge(bed, version, create_database(bed, version, "gateway"))
        if not edge.answers_checks():
            yield Claim("the edge decides for other gateways", False, "it has no GET /check")
            return
        answers = asyncio.run(_requests(start_gateway(bed, edge).port))
    refused = [answer for answer in answers if answer.status == 429]
    admitted = [answer for answer in answers if answer.status == 200]
    yield Claim(
        f"nginx admits exactly {LIMIT} of {REQUESTS} requests from one address, and answers 429 to the rest",
        (len(admitted), len(refused)) == (LIMIT, REQUESTS - LIMIT),
        f"{len(admitted)} admitted, {len(refused)} refused",
    )
    yield Claim(
        "every answer carries RateLimit and RateLimit-Policy",
        all(answer.headers.get(name) for answer in answers for name in HEADERS),
        str({name: answers[0].headers.get(name) for name in HEADERS}),
    )
    yield Claim(
        "every refusal carries Retry-After",
        all(answer.headers.get("Retry-After", "").isdigit() for answer in refused),
        str(refused[0].headers.get("Retry-After")) if refused else "no refusal",
    )


async def _requests(port: int) -> list[Answer]:
    async with client() as session:
        return [await post(session, f"http://127.0.0.1:{port}/predict", "198.18.0.1") for _ in range(REQUESTS)]
