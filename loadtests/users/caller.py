"""The base of all users of the load test: one address, one kept connection, and a record of each response."""

import math
import random
import time
import uuid
from pathlib import Path
from typing import Any, Final

import sentences
from locust import FastHttpUser
from users.addresses import Addresses
from users.answers import Answer, AnswerLog, is_promised_refusal

JSON: Final = "application/json"
TEXTS: Final = tuple(sentences.generated(10_000))
_LONGEST_PAUSE_S: Final = 30.0


class Caller(FastHttpUser):
    """One client on one connection. `policy` is the limit that applies to `send`."""

    abstract = True
    concurrency = 1
    network_timeout = 30.0
    connection_timeout = 10.0
    policy = ""

    def on_start(self) -> None:
        self.address = self.pick_address(self.environment.sluice_addresses)

    def pick_address(self, addresses: Addresses) -> str:
        return addresses.new()

    @property
    def options(self) -> Any:
        return self.environment.parsed_options

    def pause_s(self, mean_s: float) -> float:
        """Return a random pause, shorter than the edge's idle timeout."""
        return min(-mean_s * math.log(1 - random.random()), _LONGEST_PAUSE_S)

    def headers(self) -> dict[str, str]:
        header = self.options.address_header
        return {header: self.address} if header else {}

    def send(self, method: str, path: str, *, units: int = 1, expected: int = 200, **given: Any) -> Any:
        """Send a request. A 429 is listed separately and fails only if its form is wrong."""
        request_id = f"load-{uuid.uuid4().hex}"
        headers = self.headers() | {"X-Request-ID": request_id} | given.pop("headers", {})
        sent_s = time.time()
        with self.client.request(method, path, headers=headers, catch_response=True, **given) as response:
            status, well = response.status_code, True
            if status == 429:
                well = is_promised_refusal(response.headers, response.content)
                response.request_meta["name"] += ", refused"
                if well:
                    response.success()
                else:
                    response.failure("429 without the promised problem document")
            elif status == expected:
                response.success()
        self._record(response, request_id, units, sent_s, well)
        return response

    def _record(self, response: Any, request_id: str, units: int, sent_s: float, well: bool) -> None:
        log: AnswerLog | None = self.environment.sluice_answers
        if log is not None:
            cache = (response.headers or {}).get("X-Cache", "")
            found = (sent_s, time.time(), response.status_code, request_id, cache, well)
            log.write(Answer(type(self).__name__, self.policy, self.address, units, *found))


def open_log(folder: str, worker: int) -> AnswerLog | None:
    return AnswerLog(Path(folder), f"answers-{worker}") if folder else None
