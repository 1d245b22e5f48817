"""Holds `--users` for `--run-time`; a fifth of them leave and return every ten minutes: does anything grow?

locust -f loadtests/locustfile.py,loadtests/shapes/soak.py --host … --users 700 --spawn-rate 50 --run-time 8h
"""

from typing import Any

from locust import LoadTestShape

TURN_S = 600


class Soak(LoadTestShape):
    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        users, rate = options.num_users or 1, options.spawn_rate or 1
        seconds = self.get_run_time()
        if seconds >= (options.run_time or 3600):
            return None
        is_low = seconds % TURN_S > TURN_S * 0.9
        return max(1, users * 4 // 5) if is_low else users, rate
