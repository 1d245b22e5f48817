"""Users that send texts: single ones, lists, many behind one address, and a flood."""

import random
from typing import Any

from locust import constant_throughput, task
from users.addresses import Addresses
from users.caller import TEXTS, Caller


class Predictor(Caller):
    """Sends one text after the other, each client from its own address."""

    weight = 80
    policy = "predict"

    def wait_time(self) -> float:
        return self.pause_s(self.options.think_s)

    @task
    def predict(self) -> None:
        self.send("POST", "/predict", json={"text": random.choice(TEXTS)})


class OfficeWorker(Predictor):
    """One of many behind the same address, which together exceed its limit."""

    weight = 6

    def pick_address(self, addresses: Addresses) -> str:
        return addresses.shared()


class BatchPredictor(Caller):
    """Sends lists of texts, which cost one per text and sometimes exceed what is left."""

    weight = 4
    policy = "predict"

    def wait_time(self) -> float:
        return self.pause_s(2 * self.options.think_s)

    @task
    def predict(self) -> None:
        texts = random.sample(TEXTS, random.randint(1, self.options.batch_max))
        self.send("POST", "/predict/batch", json={"texts": texts}, units=len(texts))


class Attacker(Caller):
    """Floods from one address and ignores Retry-After."""

    weight = 1
    policy = "predict"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._pace = constant_throughput(self.options.flood_per_s)

    def wait_time(self) -> float:
        return float(self._pace(self))

    @task
    def predict(self) -> None:
        self.send("POST", "/predict", json={"text": TEXTS[0]}, name="/predict, flood")
