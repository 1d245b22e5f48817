"""Ramps from zero to `--users` in equal steps over two thirds of `--run-time`, then holds: where does latency rise?

locust -f loadtests/locustfile.py,loadtests/shapes/ramp.py --host … --users 2000 --spawn-rate 100 --run-time 10m
"""

from typing import Any

from locust import LoadTestShape

STEPS = 10


class Ramp(LoadTestShape):
    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        users, rate = options.num_users or 1, options.spawn_rate or 1
        share = self.get_run_time() / (options.run_time or 600)
        if share >= 1:
            return None
        step = min(STEPS, 1 + int(STEPS * share / (2 / 3)))
        return max(1, users * step // STEPS), rate
