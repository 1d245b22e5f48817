"""Users that read: dashboards that poll or follow, analysts that arrive together, and editors of thresholds."""

import random
import time
from typing import Any, Final

from locust import constant, task
from locust.runners import STATE_CLEANUP, STATE_STOPPING
from users.caller import JSON, Caller

_WINDOWS: Final = {"1h": 70, "15m": 20, "24h": 10}
_STAMPEDE: Final = "1h"
_OVER: Final = (STATE_STOPPING, STATE_CLEANUP)
_EDITED: Final = "load-test"


class Dashboard(Caller):
    """Polls the figures of a dashboard."""

    weight = 1

    def wait_time(self) -> float:
        return self.pause_s(self.options.think_s / 2)

    @task(3)
    def aggregate(self) -> None:
        self.send("POST", "/metrics/aggregated", json={"window": "15m"})

    @task(1)
    def count(self) -> None:
        self.send("GET", "/metrics/count")


class Follower(Caller):
    """Follows the live stream. Each message is listed with the time since the previous one."""

    weight = 1
    wait_time = constant(2.0)  # the stream's retry interval

    @task
    def follow(self) -> None:
        url, started = "/metrics/stream?window=15m", time.perf_counter()
        for line in self.client.iter_lines(url, headers=self.headers(), name="/metrics/stream"):
            if line.startswith("event:"):
                now = time.perf_counter()
                self._heard(1000 * (now - started), len(line))
                started = now
            if self.environment.runner.state in _OVER:
                return

    def _heard(self, waited_ms: float, length: int) -> None:
        self.environment.events.request.fire(
            request_type="SSE",
            name="/metrics/stream, message",
            response_time=waited_ms,
            response_length=length,
            exception=None,
            context={},
        )


class Analyst(Caller):
    """Reads reports. Every `--stampede-s` all analysts request the same one at once."""

    weight = 10
    policy = "analyze"

    def on_start(self) -> None:
        super().on_start()
        self._stampede = self._current()

    def wait_time(self) -> float:
        every_s = self.options.stampede_s
        return min(self.pause_s(self.options.think_s * 0.75), float(every_s - time.time() % every_s))

    @task
    def report(self) -> None:
        stampede = self._current()
        window = random.choices([*_WINDOWS], [*_WINDOWS.values()])[0]
        if stampede != self._stampede:
            self._stampede, window = stampede, _STAMPEDE
        self.send("POST", "/analyze/performance", json={"window": window})

    def _current(self) -> int:
        return int(time.time() / self.options.stampede_s)


class ThresholdEditor(Caller):
    """Reads the thresholds and writes them back with one rule changed; concurrent editors may conflict."""

    weight = 1

    def wait_time(self) -> float:
        return self.pause_s(self.options.think_s)

    @task
    def edit(self) -> None:
        read = self.send("GET", "/metrics/thresholds")
        if read.status_code == 200 and self.options.admin_token:
            self._write(read.headers["ETag"], read.json()["rules"])

    def _write(self, tag: str, rules: list[dict[str, Any]]) -> None:
        rule = {"name": _EDITED, "metric": "latency_ms.p95", "above": random.randint(1000, 2000), "min_samples": 20}
        kept = [one for one in rules if one["name"] != _EDITED]
        headers = {"Authorization": f"Bearer {self.options.admin_token}", "If-Match": tag, "Content-Type": JSON}
        self.send("PUT", "/metrics/thresholds", json={"rules": [*kept, rule]}, headers=headers, expected=412)
