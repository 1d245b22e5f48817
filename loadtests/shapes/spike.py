"""Holds a tenth of `--users`, all of them in the middle third of `--run-time`, then a tenth again: does it recover?

locust -f loadtests/locustfile.py,loadtests/shapes/spike.py --host … --users 2000 --spawn-rate 500 --run-time 6m
"""

from typing import Any

from locust import LoadTestShape


class Spike(LoadTestShape):
    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        users, rate = options.num_users or 1, options.spawn_rate or 1
        share = self.get_run_time() / (options.run_time or 360)
        if share >= 1:
            return None
        is_spike = 1 / 3 <= share < 2 / 3
        return users if is_spike else max(1, users // 10), rate
