from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from chaos import harm
from chaos.faults import Action, Fault, Target
from chaos.gemini import RecordingScript
from chaos.harm import Done, Harm
from chaos.load import Load
from chaos.system.stack import Stack
from chaos.system.yardstick import Yardstick


class Process:
    """A process that ends only when killed."""

    def __init__(self) -> None:
        self.killed = False

    def kill(self) -> None:
        self.killed = True

    def send_signal(self, number: int) -> None:
        pass


@dataclass
class FakeStack:
    """A system that recovers at once."""

    running: dict[str, Process] = field(default_factory=dict)
    proxies: dict[str, Any] = field(default_factory=dict)

    def process(self, name: str) -> Process | None:
        return self.running.get(name)

    def family(self, name: str) -> Sequence[Process]:
        return [self.running[name]] if name in self.running else []


async def done(stack: FakeStack, action: Action, target: Target, gemini: RecordingScript | None = None) -> Done:
    given = (cast(Stack, stack), cast(Load, None), gemini or RecordingScript(), Yardstick())
    inflicted = Harm(*given)

    async def well() -> float:
        return 0.0

    inflicted.well = well  # type: ignore[method-assign]  # what it asks runs nowhere
    [found] = await inflicted.do([Fault(0.0, action, target, 0.0)])
    return found


async def test_kill__ends_what_runs() -> None:
    process = Process()
    assert not (await done(FakeStack({"metrics": process}), "kill", "metrics")).missed
    assert process.killed


async def test_fault_with_nothing_to_break__says_so() -> None:
    found = await done(FakeStack(), "kill", "metrics")
    assert found.missed == "it does not run"
    assert "BROKE NOTHING" in str(found) and not found.is_conclusive


async def test_process_that_does_not_end_when_asked__is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harm, "GIVE_UP_S", 0.0)
    assert "ASKED TO STOP" in (await done(FakeStack({"metrics": Process()}), "restart", "metrics")).wrong


async def test_gemini_that_nobody_called__broke_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harm, "CALL_WITHIN_S", 0.0)
    gemini = RecordingScript()
    assert "not called" in (await done(FakeStack({"analyst": Process()}), "gemini", "analyst", gemini)).missed
    assert gemini.steps == []
