"""The users of a load test, for `make load` and for `locust -f loadtests/locustfile.py --host https://…`.

Name classes to run only these: `locust -f … Predictor Analyst`. Shapes are in `shapes/`. Against a deployment that does
not trust the generator's `X-Forwarded-For`, all users share the generator's address and its limit.
"""

import math
import os
from argparse import ArgumentParser
from typing import Any

from locust import events
from locust.runners import WorkerRunner
from users.addresses import Addresses
from users.caller import open_log
from users.predicting import Attacker, BatchPredictor, OfficeWorker, Predictor
from users.watching import Analyst, Dashboard, Follower, ThresholdEditor

MOST_TEXTS = 64  # the longest list that the service accepts

__all__ = (
    "Analyst",
    "Attacker",
    "BatchPredictor",
    "Dashboard",
    "Follower",
    "OfficeWorker",
    "Predictor",
    "ThresholdEditor",
)


def positive(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise ValueError
    return number


def count(text: str) -> int:
    if not 1 <= (number := int(text)) <= MOST_TEXTS:
        raise ValueError
    return number


@events.init_command_line_parser.add_listener
def add_options(parser: ArgumentParser, **_: Any) -> None:
    group = parser.add_argument_group("sluice")
    group.add_argument("--think-s", type=float, default=8.0, help="mean pause of a user between two requests (8)")
    group.add_argument("--batch-max", type=count, default=16, help="most texts in a list (16)")
    group.add_argument("--flood-per-s", type=positive, default=5.0, help="requests a second of each attacker (5)")
    group.add_argument("--stampede-s", type=positive, default=30.0, help="time between two stampedes of analysts (30)")
    group.add_argument(
        "--address-header", default="X-Forwarded-For", help="header with a user's own address; empty: none is sent"
    )
    group.add_argument(
        "--admin-token", default="", env_var="SLUICE_ADMIN_TOKEN", help="for threshold edits; without it none are made"
    )
    group.add_argument("--answers", default="", help="folder for one line per answer, to check exact limits")


@events.init.add_listener
def prepare(environment: Any, runner: Any, **_: Any) -> None:
    environment.sluice_answers = None

    @environment.events.test_start.add_listener
    def begin(**_: Any) -> None:
        worker = runner.worker_index if isinstance(runner, WorkerRunner) else 0
        environment.sluice_addresses = Addresses(worker, environment.parsed_options.expect_workers)
        environment.sluice_answers = open_log(environment.parsed_options.answers, os.getpid())

    @environment.events.test_stop.add_listener
    def end(**_: Any) -> None:
        if environment.sluice_answers is not None:
            environment.sluice_answers.close()
