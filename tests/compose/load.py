"""Clients that send one request after another to the published edges, and record every outcome."""

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
from compose.stack import Stack, docker

CLIENTS = 6
JSON_WINDOW = {"window": "1h"}


@dataclass
class Load:
    """`urls` may change during the run, as behind a load balancer: a removed edge gets no new requests."""

    urls: list[str]
    reads: bool = False
    outcomes: dict[str, int | str] = field(default_factory=dict)
    """Request id of each prediction, with its status or the name of its error."""
    read_outcomes: Counter[int | str] = field(default_factory=Counter)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    _stopped: bool = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(random.Random(number)))

    def stop(self) -> None:
        self._stopped = True

    async def answered(self, more: int) -> None:
        """Wait for `more` successful predictions."""
        target = self.statuses()[200] + more
        async with asyncio.timeout(60):
            while self.statuses()[200] < target:
                await asyncio.sleep(0.02)

    def statuses(self) -> Counter[int | str]:
        return Counter(self.outcomes.values())

    def answered_ids(self) -> set[str]:
        return {request_id for request_id, status in self.outcomes.items() if status == 200}

    async def _client(self, random_: random.Random) -> None:
        # A new connection for each request, so that a removed replica gets none.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            while not self._stopped:
                address = f"203.{random_.randrange(256)}.{random_.randrange(256)}.{random_.randrange(1, 255)}"
                request_id = f"load-{uuid.uuid4()}"
                headers = {"X-Request-ID": request_id, "X-Forwarded-For": address}
                body = {"text": f"good film {random_.randrange(1_000_000)}"}
                self.outcomes[request_id] = await self._send(session, "POST", "/predict", headers, body)
                if self.reads and random_.random() < 0.2:
                    headers = {"X-Forwarded-For": address}
                    method, path, sent = random_.choice(_READS)
                    self.read_outcomes[await self._send(session, method, path, headers, sent)] += 1

    async def _send(
        self, session: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str], body: object
    ) -> int | str:
        url = random.choice(self.urls)
        try:
            async with session.request(method, url + path, json=body, headers=headers) as response:
                await response.read()
                return response.status
        except aiohttp.ClientError as error:
            await asyncio.sleep(0.05)  # avoid a busy loop while the port is closed
            return type(error).__name__


_READS = (
    ("GET", "/metrics/count", None),
    ("POST", "/metrics/aggregated", JSON_WINDOW),
    ("POST", "/analyze/performance", JSON_WINDOW),
)


async def unrecorded(stack: Stack, load: Load) -> set[str]:
    """Return the successful predictions that are not in PostgreSQL fifteen seconds after the last."""
    missing = load.answered_ids()
    deadline = asyncio.get_running_loop().time() + 15
    while missing and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.2)
        missing = load.answered_ids() - set(stack.sql("SELECT request_id FROM metrics.prediction").split())
    return missing


def causes(stack: Stack, load: Load) -> str:
    """Return the log lines of failed requests since the load began, for assertion messages."""
    since = ("--since", load.began.isoformat())
    logs = [line for edge in stack.containers("edge") for line in docker("logs", *since, edge).splitlines()]
    return "\n".join([line for line in logs if '"status": 5' in line][:20])
