"""Applies faults to a running system, waits for recovery and records the times."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

import aiohttp
import psutil

from chaos.faults import OBJECTIVE_S, Action, Fault, Target
from chaos.gemini import RecordingScript
from chaos.load import Load
from chaos.system.proxy import Mode
from chaos.system.stack import SERVICES, STORES, Stack
from chaos.system.yardstick import SLIGHTLY, TOO_SLOW, Yardstick
from chaos.windows import Span

PROBE_S: Final = 0.2
PROBE_TIMEOUT_S: Final = 2.0
GIVE_UP_S: Final = 90.0
CALL_WITHIN_S: Final = 40.0  # a report is cached for 10 s and may wait for quota
SLOW_STOPPED_S: Final = 0.08
SLOW_RUNNING_S: Final = 0.04
_STOP_SIGNAL: Final = {"postgres": signal.SIGINT}  # its fast shutdown; others get SIGTERM
_MODEL: Final = "model"  # state of the last call to Gemini; the next may wait a minute for quota
_MISBEHAVIOUR: Final = (503, "hang", "drop", 500, "truncated", 503, "hang", 503)
_MODES: Final[dict[Action, Mode]] = {"cut": "cut", "hang": "hang", "delay": "delay"}


class NoEffect(Exception):
    """The fault had no target."""


class Effect(NamedTuple):
    """The effect of a fault. `wrong` is a promise that broke meanwhile."""

    note: str = ""
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """A fault with its start and end, and the seconds until recovery (None: never).

    `missed` is why it had no effect.
    """

    fault: Fault
    span: Span
    recovery_s: float | None
    objective_s: float
    slowness: float = 1.0
    note: str = ""
    wrong: str = ""
    missed: str = ""

    @property
    def is_conclusive(self) -> bool:
        """Whether it had an effect, and recovered in time or on a machine with enough processor time."""
        return not self.missed and (self.recovery_s is None or self.is_in_time or self.slowness < TOO_SLOW)

    @property
    def is_in_time(self) -> bool:
        """Whether it met its objective, which a busy machine extends up to TOO_SLOW times."""
        return self.recovery_s is not None and self.recovery_s <= self.objective_s * min(self.slowness, TOO_SLOW)

    @property
    def disturbed(self) -> Span:
        """The time from the start to recovery."""
        return Span(self.span.start_s, self.span.end_s + (GIVE_UP_S if self.recovery_s is None else self.recovery_s))

    def __str__(self) -> str:
        if self.missed:
            return f"{self.fault!s:34} BROKE NOTHING: {self.missed}"
        recovery = "not" if self.recovery_s is None else f"{self.recovery_s:.1f} s"
        slow = f" × {self.slowness:.1f}: a busy machine" if self.slowness >= SLIGHTLY else ""
        objective = f"objective {self.objective_s:.0f} s{slow}"
        late = "" if self.is_in_time else "  TOO LATE" if self.is_conclusive else "  (inconclusive)"
        said = "".join(f"  {part}" for part in (self.note, self.wrong) if part)
        return f"{self.fault!s:34} well again after {recovery:>6} ({objective}){late}{said}"


class Harm:
    """Applies the faults of one moment at a time."""

    def __init__(self, stack: Stack, load: Load, gemini: RecordingScript, yardstick: Yardstick) -> None:
        self._stack = stack
        self._load = load
        self._gemini = gemini
        self._yardstick = yardstick

    async def do(self, faults: Sequence[Fault]) -> list[Done]:
        """Apply the faults. Returns after recovery, or after GIVE_UP_S."""
        start_s = time.time()
        effects = await asyncio.gather(*map(self._tried, faults))
        span = Span(start_s, time.time())
        well_s = await self.well()
        recovery_s = None if well_s is None else well_s - span.end_s
        slowness = self._yardstick.slowness(Span(start_s, time.time()))
        objective_s = max(OBJECTIVE_S[fault.action] for fault in faults)
        return [
            Done(fault, span, recovery_s, objective_s, slowness, effect.note, effect.wrong, missed)
            for fault, (effect, missed) in zip(faults, effects, strict=True)
        ]

    async def well(self) -> float | None:
        """Return when every service is ready and not degraded and a prediction succeeds; None if never."""
        deadline_s = time.time() + GIVE_UP_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)) as session:
            while time.time() < deadline_s:
                urls = [f"{self._stack.ops_url(name)}/readyz" for name in SERVICES]
                if all(await asyncio.gather(*(_is_well(session, url) for url in urls))) and await self._load.probe():
                    return time.time()
                await asyncio.sleep(PROBE_S)
        return None

    async def _tried(self, fault: Fault) -> tuple[Effect, str]:
        """Return the effect, or why there was none."""
        try:
            if self._stack.process(fault.target) is None:
                raise NoEffect("it does not run")
            return await self._apply(fault), ""
        except NoEffect as why:
            return Effect(), str(why)

    async def _apply(self, fault: Fault) -> Effect:
        match fault.action:
            case "kill":
                self._kill(fault.target)
            case "restart":
                return await self._restart(fault.target)
            case "stop":
                await self._stop(fault.target, fault.length_s)
            case "slow":
                await self._slow(fault.target, fault.length_s)
            case "fill":
                return await self._fill()
            case "gemini":
                await self._misbehave(fault.length_s)
            case _:
                await self._at_the_socket(fault)
        return Effect()

    def _kill(self, target: Target) -> None:
        for process in self._stack.family(target):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    async def _restart(self, target: Target) -> Effect:
        process = self._stack.process(target)
        assert process is not None
        process.send_signal(_STOP_SIGNAL.get(target, signal.SIGTERM))
        ended = await _until(lambda: self._stack.process(target) != process, GIVE_UP_S)
        return Effect() if ended else Effect(wrong=f"ASKED TO STOP, IT RAN {GIVE_UP_S:.0f} s ON")

    async def _stop(self, target: Target, seconds: float) -> None:
        self._stack.pause(target)
        await asyncio.sleep(seconds)
        self._stack.resume(target)

    async def _slow(self, target: Target, seconds: float) -> None:
        """Slow a process to a third of its speed, in small steps."""
        end_s = time.time() + seconds
        while time.time() < end_s:
            await self._stop(target, SLOW_STOPPED_S)
            await asyncio.sleep(SLOW_RUNNING_S)

    async def _at_the_socket(self, fault: Fault) -> None:
        assert fault.target in STORES
        proxy = self._stack.proxies[fault.target]
        proxy.set(_MODES[fault.action])
        await asyncio.sleep(fault.length_s)
        proxy.set("pass")

    async def _misbehave(self, seconds: float) -> None:
        """Let Gemini misbehave until it was called and the time is up."""
        self._gemini.steps[:] = _MISBEHAVIOUR
        end_s = time.time() + seconds
        called = await _until(lambda: len(self._gemini.steps) < len(_MISBEHAVIOUR), CALL_WITHIN_S)
        await asyncio.sleep(max(0.0, end_s - time.time()))
        self._gemini.steps.clear()
        if not called:
            raise NoEffect(f"Gemini was not called within {CALL_WITHIN_S:.0f} s")

    async def _fill(self) -> Effect:
        """Disconnect Redis and send lists until the journal is full: a request must then be rejected, not lost."""
        proxy = self._stack.proxies["valkey"]
        proxy.set("cut")
        sent = await self._load.fill()
        proxy.set("pass")
        return Effect(f"(full after {sent} lists)") if sent else Effect(wrong="THE JOURNAL WAS NOT FILLED")


async def _is_well(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            checks = (await response.json())["checks"]
            return response.status == 200 and all(checks[name] == "ok" for name in checks if name != _MODEL)
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _until(condition: Callable[[], bool], within_s: float) -> bool:
    """Return whether the condition became true in time."""
    deadline_s = time.time() + within_s
    while not (is_true := condition()) and time.time() < deadline_s:  # noqa: ASYNC110  # another process does it
        await asyncio.sleep(0.05)
    return is_true
