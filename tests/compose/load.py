"""Clients that keep asking the published edges, each one request after the other; remembers what became of each."""

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
    """`urls` may change while it runs: what leaves the list gets no new request, as behind a load balancer."""

    urls: list[str]
    reads: bool = False
    outcomes: dict[str, int | str] = field(default_factory=dict)
    """Request id of a prediction to its status, or to what broke."""
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
        """Wait until `more` further predictions were answered."""
        target = self.statuses()[200] + more
        async with asyncio.timeout(60):
            while self.statuses()[200] < target:
                await asyncio.sleep(0.02)

    def statuses(self) -> Counter[int | str]:
        return Counter(self.outcomes.values())

    def answered_ids(self) -> set[str]:
        return {request_id for request_id, status in self.outcomes.items() if status == 200}

    async def _client(self, random_: random.Random) -> None:
        # Each request on a connection of its own: a replica that leaves the list is left alone at once.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            while not self._stopped:
                address = f"203.{random_.randrange(256)}.{random_.randrange(256)}.{random_.randrange(1, 255)}"
                request_id = f"load-{uuid.uuid4()}"
                headers = {"X-Request-ID": request_id, "X-Forwarded-For": address}
                body = {"text": f"good film {random_.randrange(1_000_000)}"}
                self.outcomes[request_id] = await self._ask(session, "POST", "/predict", headers, body)
                if self.reads and random_.random() < 0.2:
                    headers = {"X-Forwarded-For": address}
                    method, path, sent = random_.choice(_READS)
                    self.read_outcomes[await self._ask(session, method, path, headers, sent)] += 1

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str], body: object
    ) -> int | str:
        url = random.choice(self.urls)
        try:
            async with session.request(method, url + path, json=body, headers=headers) as response:
                await response.read()
                return response.status
        except aiohttp.ClientError as error:
            await asyncio.sleep(0.05)  # nobody listens: don't spin
            return type(error).__name__


_READS = (
    ("GET", "/metrics/count", None),
    ("POST", "/metrics/aggregated", JSON_WINDOW),
    ("POST", "/analyze/performance", JSON_WINDOW),
)


async def unrecorded(stack: Stack, load: Load) -> set[str]:
    """The answered predictions that are not in PostgreSQL fifteen seconds after the last of them."""
    missing = load.answered_ids()
    deadline = asyncio.get_running_loop().time() + 15
    while missing and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.2)
        missing = load.answered_ids() - set(stack.sql("SELECT request_id FROM metrics.prediction").split())
    return missing


def causes(stack: Stack, load: Load) -> str:
    """What the edges logged about failed requests since the load began; for the messages of failed tests."""
    since = ("--since", load.began.isoformat())
    logs = [line for edge in stack.containers("edge") for line in docker("logs", *since, edge).splitlines()]
    return "\n".join([line for line in logs if '"status": 5' in line][:20])
