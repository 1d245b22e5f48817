"""The load: greedy and ordinary clients, lists, analysts and dashboards. Records every response."""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from chaos.answers import LIMIT_HEADER, Answer, detail_of, fault_of, is_journal_full, kind_of

PATIENCE_S: Final = 20.0
REFUSED_PAUSE_S: Final = 0.05
BATCH: Final = 4
FILL_BATCH: Final = 20
FILL_MOST: Final = 400
_WORDS: Final = (
    "good bad slow film plot actor warm cold funny dull bright long short music end scene light rain".split()
)


@dataclass(frozen=True, slots=True)
class Crowd:
    """The number of clients of each kind and their mean pause between requests.

    In addition, `paced` predictions a second are sent at random times, independent of the responses.
    """

    greedy: int = 4
    greedy_s: float = 0.2
    ordinary: int = 12
    ordinary_s: float = 0.5
    lists: int = 2
    lists_s: float = 1.0
    analysts: int = 3
    analysts_s: float = 1.5
    dashboards: int = 1
    dashboards_s: float = 1.0
    paced: float = 0.0


class Load:
    """Sends requests in `run` until `stop`. Each client has a seeded random generator, so runs are repeatable."""

    def __init__(self, url: str, seed: int, crowd: Crowd = Crowd()) -> None:  # frozen
        self._url = url
        self._seed = seed
        self._crowd = crowd
        self._stop = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._fillers = 0
        self.answers: list[Answer] = []

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(
            self._url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as session:
            self._session = session
            async with asyncio.TaskGroup() as clients:
                for number, (pause_s, ask) in enumerate(self._clients()):
                    clients.create_task(self._client(random.Random(f"{self._seed}/{number}"), pause_s, ask))
                if self._crowd.paced:
                    await self._pace(clients, random.Random(f"{self._seed}/paced"))
                await self._stop.wait()

    def stop(self) -> None:
        """Stop after each client's current request."""
        self._stop.set()

    async def probe(self) -> bool:
        """Send one prediction from a separate address. Returns whether it succeeded."""
        address = f"192.0.2.{random.randrange(1, 255)}"
        answer = await self._predict(address, "a good film", timeout_s=3.0)
        return answer.status == 200

    async def fill(self) -> int:
        """Send lists, each from a new address, until the journal is full. Returns their number."""
        for sent in range(1, FILL_MOST + 1):
            self._fillers += 1
            address = f"100.64.{self._fillers // 250}.{self._fillers % 250 + 1}"
            texts = [f"filler {self._fillers} {number}" for number in range(FILL_BATCH)]
            answer = await self.ask("POST", "/predict/batch", {"texts": texts}, address, cost=FILL_BATCH)
            if is_journal_full(answer):
                return sent
        return 0

    async def ask(
        self, method: str, path: str, body: Any, address: str, cost: int = 0, timeout_s: float = PATIENCE_S
    ) -> Answer:
        """Send one request and record the response."""
        assert self._session is not None
        request_id = f"chaos-{uuid.uuid4()}"
        headers = {"X-Request-ID": request_id, "X-Forwarded-For": address}
        sent_s = time.time()
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session.request(method, path, json=body, headers=headers) as response:
                    answered_s = time.time()
                    content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = Answer(request_id, path, address, cost, sent_s, time.time(), None, detail=type(error).__name__)
        else:
            kind = kind_of(response.headers.get("Content-Type", ""))
            counted = LIMIT_HEADER in response.headers and response.status != 429
            fault = fault_of(response.status, kind, content, response.headers.get("Retry-After"), request_id)
            detail = detail_of(content) if kind == "problem" else ""
            answer = Answer(
                request_id, path, address, cost, sent_s, answered_s, response.status, kind, counted, fault, detail
            )
        self.answers.append(answer)
        return answer

    def _clients(self) -> list[tuple[float, Callable[[random.Random], Awaitable[Answer]]]]:
        crowd = self._crowd
        greedy = [(crowd.greedy_s, self._greedy(f"198.51.100.{n + 1}")) for n in range(crowd.greedy)]
        return [
            *greedy,
            *[(crowd.ordinary_s, self._ordinary)] * crowd.ordinary,
            *[(crowd.lists_s, self._list)] * crowd.lists,
            *[(crowd.analysts_s, self._analyst)] * crowd.analysts,
            *[(crowd.dashboards_s, self._dashboard)] * crowd.dashboards,
        ]

    async def _client(
        self, chance: random.Random, pause_s: float, ask: Callable[[random.Random], Awaitable[Answer]]
    ) -> None:
        while not self._stop.is_set():
            answer = await ask(chance)
            if answer.status is None:  # connection refused: don't spin
                await asyncio.sleep(REFUSED_PAUSE_S)
            await asyncio.sleep(chance.uniform(0.5, 1.5) * pause_s)

    async def _pace(self, requests: asyncio.TaskGroup, chance: random.Random) -> None:
        """Send in an open loop: late requests go out at once and none waits for a response."""
        due_s = time.monotonic()
        while not self._stop.is_set():
            due_s += chance.expovariate(self._crowd.paced)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            requests.create_task(self._ordinary(chance))

    def _greedy(self, address: str) -> Callable[[random.Random], Awaitable[Answer]]:
        return lambda chance: self._predict(address, text(chance))

    async def _ordinary(self, chance: random.Random) -> Answer:
        return await self._predict(f"203.0.113.{chance.randrange(1, 250)}", text(chance))

    async def _predict(self, address: str, words: str, timeout_s: float = PATIENCE_S) -> Answer:
        return await self.ask("POST", "/predict", {"text": words}, address, cost=1, timeout_s=timeout_s)

    async def _list(self, chance: random.Random) -> Answer:
        texts = [text(chance) for _ in range(BATCH)]
        address = f"203.0.114.{chance.randrange(1, 5)}"
        return await self.ask("POST", "/predict/batch", {"texts": texts}, address, cost=BATCH)

    async def _analyst(self, chance: random.Random) -> Answer:
        address = f"203.0.115.{chance.randrange(1, 250)}"
        return await self.ask("POST", "/analyze/performance", {"window": "15m"}, address)

    async def _dashboard(self, chance: random.Random) -> Answer:
        if chance.random() < 0.5:
            return await self.ask("GET", "/metrics/count", None, "203.0.116.1")
        return await self.ask("POST", "/metrics/aggregated", {"window": "5m"}, "203.0.116.1")


def text(chance: random.Random) -> str:
    """Return a sentence of 3 to 30 words, almost always new, so that it is not cached."""
    return " ".join(chance.choices(_WORDS, k=chance.randrange(3, 30)))
