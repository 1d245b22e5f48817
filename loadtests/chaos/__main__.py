"""Five minutes in which everything breaks, under load: `make chaos`.

Exits with 0 when every promise held, with 1 when one broke, with 2 when the run was inconclusive.

make chaos ARGS="--seed N --minutes M"      the same seed and length give the same faults in the same order
make chaos ARGS="--break drop-event"        loses one event on purpose: the run must fail
make chaos ARGS="--break over-limit"        lets the edge admit one request too many: the run must fail
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from fake_gemini import rest

from chaos import edge_log, record, verdict
from chaos.answers import is_shed
from chaos.command import BROKEN, HOLDS, INCONCLUSIVE, add_port_base, at_least, ended, new_folder
from chaos.faults import COOL_DOWN_S, Fault, schedule, together
from chaos.gemini import PER_MINUTE, TTL_S, RecordingScript
from chaos.harm import Harm
from chaos.load import Load
from chaos.system.stack import Stack, StartError
from chaos.system.watch import Watch
from chaos.system.yardstick import Yardstick
from chaos.verdict import Evidence, Finding
from chaos.windows import Span

CHECK_S: Final = 10.0
RECENT_S: Final = 60.0
IDLE_S: Final = 12.0
CALM_S: Final = 3.0
ENVIRONMENT: Final = {
    "EDGE_TRUSTED_PROXIES": "127.0.0.1/32",  # each client has its own address
    "EDGE_RATE_LIMIT": str(verdict.LIMIT),
    "EDGE_RATE_WINDOW_S": f"{verdict.WINDOW_S:.0f}",
    "EDGE_METRICS_RATE_LIMIT": "1000",  # all dashboards share one address
    "EDGE_METRICS_RATE_WINDOW_S": "1",
    "EVENTS_JOURNAL_MAX_BYTES": "262144",
    "GEMINI_API_KEY": "none",
    "GEMINI_SDK": "genai",
    "GEMINI_RATE_LIMIT": str(PER_MINUTE),
    "GEMINI_CACHE_TTL": str(TTL_S),
    "ANALYST_ATTEMPT_TIMEOUT_S": "3",
}


class Run:
    """One run, from an empty state folder to the verdict."""

    def __init__(self, stack: Stack, gemini: RecordingScript, seed: int, drops: bool) -> None:
        self._stack, self._gemini, self._drops = stack, gemini, drops
        self._load = Load(stack.url, seed)
        self._watch = Watch(stack)
        self._yardstick = Yardstick()
        self._evidence = Evidence(self._load.answers, slowness=self._yardstick.slowness)
        self._harm = Harm(stack, self._load, gemini, self._yardstick)
        self._started_s = time.time()
        self._said: set[str] = set()

    async def go(self, faults: list[Fault]) -> int:
        """Run everything. Returns the exit status."""
        self._started_s = time.time()
        running = asyncio.create_task(self._load.run())
        beside = [asyncio.create_task(work) for work in (self._watch.run(), self._check_on(), self._yardstick.run())]
        try:
            for moment in together(faults):
                await asyncio.sleep(max(0.0, self._started_s + moment[0].at_s - time.time()))
                await self._break(moment)
            await asyncio.sleep(COOL_DOWN_S)
            if self._drops:
                self._say(f"dropped the event of {await record.drop_one_event(self._stack)}")
                await asyncio.sleep(2)
        finally:
            self._load.stop()
            await running
        self._say("load ended")
        await asyncio.sleep(IDLE_S)
        await ended(beside)
        return await self._judge()

    async def _break(self, faults: list[Fault]) -> None:
        self._say(" and ".join(map(str, faults)))
        self._watch.is_calm = False
        self._evidence.current = [(Span(time.time(), float("inf")), fault.target) for fault in faults]
        done = await self._harm.do(faults)
        self._evidence.done += [one for one in done if not one.missed]
        self._evidence.missed += [one for one in done if one.missed]
        self._evidence.current = []
        for one in done:
            self._say(str(one))
        asyncio.get_running_loop().call_later(CALM_S, self._calm, len(self._evidence.done))

    def _calm(self, after: int) -> None:
        self._watch.is_calm = after == len(self._evidence.done) and not self._evidence.current

    async def _check_on(self) -> None:
        """Print broken promises as soon as they are found."""
        while True:
            await asyncio.sleep(CHECK_S)
            for line in self._broken(time.time() - RECENT_S) + await self._twice():
                if line not in self._said:
                    self._said.add(line)
                    self._say(f"BROKEN: {line}")

    def _broken(self, since_s: float) -> list[str]:
        evidence = self._evidence
        evidence.answers = [answer for answer in self._load.answers if answer.sent_s >= since_s]
        evidence.before = Span(0.0, since_s)
        ends = [d for done in evidence.done for d in verdict.ends(done)]
        lines = edge_log.read(self._stack.log("edge-limiter"))
        evidence.degraded = edge_log.degraded(lines, ends, time.time())
        evidence.calls = self._gemini.recorded()
        checks = (verdict.limits, verdict.documents, verdict.availability, verdict.gemini)
        return [line for check in checks for line in check(evidence)]

    async def _twice(self) -> list[str]:
        twice = await record.stored_twice(self._stack)
        return [f"{twice} events are stored twice"] if twice else []

    async def _judge(self) -> int:
        self._broken(self._started_s)
        print("\nWhat must hold")
        findings = await self._findings()
        for name, finding in findings.items():
            print("\n".join(verdict.shown(name, finding)))
        if any(finding.broken for finding in findings.values()):
            return BROKEN
        return INCONCLUSIVE if any(finding.inconclusive for finding in findings.values()) else HOLDS

    async def _findings(self) -> dict[str, Finding]:
        evidence, answers = self._evidence, self._load.answers
        wrong, figures = await record.settled(self._stack, answers)
        busy = sum(is_shed(answer) or verdict.is_starved(evidence, answer) for answer in answers)
        slowness = self._yardstick.slowness(Span(self._started_s, time.time()))
        outages = verdict.unexplained(evidence)
        return {
            "every 200 is in PostgreSQL exactly once": Finding(
                wrong, f"{figures['answered']:,} texts answered, {figures['stored']:,} stored"
            ),
            "no window over its limit, no wrong rejection": Finding(
                verdict.limits(evidence),
                f"{len({a.address for a in answers}):,} addresses; {outages} outages that no fault explains",
            ),
            "every rejection is a problem document": Finding(verdict.documents(evidence), verdict.statuses(answers)),
            "no request failed whose dependencies were up": Finding(
                [*verdict.availability(evidence), *verdict.shed(evidence)],
                f"{len(answers):,} requests; {busy} shed or inconclusive on a machine {slowness:.1f} times slower",
            ),
            "a stopping edge answers accepted requests": Finding(
                verdict.drained(evidence), f"asked to while nothing else broke: {len(verdict.restarts(evidence))} times"
            ),
            "Gemini: within the quota, one call at a time": Finding(
                verdict.gemini(evidence),
                f"{len(evidence.calls)} calls for {sum(a.path.startswith('/analyze') for a in answers):,} requests",
            ),
            "recovered in time from every fault": verdict.recovery(evidence),
            "no process leaked memory, descriptors or tasks": verdict.leaks(self._watch.lives(), self._stack.names),
        }

    def _say(self, text: str) -> None:
        print(f"[{time.time() - self._started_s:6.1f} s] {text}", flush=True)


async def run(options: argparse.Namespace, folder: Path) -> int:
    asyncio.get_running_loop().set_exception_handler(_passed_over)
    gemini = RecordingScript()
    changes = {"EDGE_RATE_LIMIT": str(verdict.LIMIT + 1)} if options.breaks == "over-limit" else {}
    async with rest(gemini) as endpoint:
        stack = Stack(folder, options.port_base, {**ENVIRONMENT, **changes, "GEMINI_ENDPOINT": endpoint})
        try:
            await stack.start()
            return await Run(stack, gemini, options.seed, options.breaks == "drop-event").go(
                schedule(options.seed, options.minutes)
            )
        finally:
            await stack.stop()


def _passed_over(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignore errors that asyncpg leaves unretrieved when its server is killed."""
    if not isinstance(context.get("exception"), ConnectionError):
        loop.default_exception_handler(context)


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that started processes are stopped
    breaks = f" --break {options.breaks}" if options.breaks else ""
    print(f'make chaos ARGS="--seed {options.seed} --minutes {options.minutes:g}{breaks}"')
    print(f"{os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}", flush=True)
    folder = new_folder("chaos")
    status = BROKEN
    try:
        status = asyncio.run(run(options, folder))
    except StartError as error:
        print(error)
    except KeyboardInterrupt:
        print("interrupted")
    if status == BROKEN:
        print(f"\nBROKEN. Seed {options.seed}. Logs are kept in {folder}")
        return status
    shutil.rmtree(folder, ignore_errors=True)
    print("\nAll of it holds." if status == HOLDS else "\nINCONCLUSIVE: nothing broke, but evidence is missing.")
    return status


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="seed of the schedule (random)")
    parser.add_argument("--minutes", type=at_least(1.0), default=5.0, help="length of the run (5)")
    parser.add_argument(
        "--break", dest="breaks", choices=["drop-event", "over-limit"], help="break a promise on purpose"
    )
    add_port_base(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
