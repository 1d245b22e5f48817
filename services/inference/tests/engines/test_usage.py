"""Usage of child processes in the metrics."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from inference.engines.usage import ScoringUsage

# Uses 0.2 s of processor time and 64 MiB, then waits.
PROGRAM = """
import sys, time
held = b"x" * (64 << 20)
while time.process_time() < 0.2: pass
print("busy", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        yield process
        process.kill()


def usage() -> tuple[float, float]:
    """Return the processor time and the memory of all children."""
    registry = CollectorRegistry()
    registry.register(ScoringUsage())
    cpu_s = registry.get_sample_value("sluice_inference_scoring_cpu_seconds_total")
    memory_bytes = registry.get_sample_value("sluice_inference_scoring_resident_memory_bytes")
    assert cpu_s is not None and memory_bytes is not None
    return cpu_s, memory_bytes


def test_usage__has_the_time_and_memory_of_a_running_child(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdout is not None
    before_s, _ = usage()  # of a child that has hardly started
    child.stdout.readline()
    cpu_s, memory_bytes = usage()
    assert cpu_s > before_s
    assert memory_bytes > 64 << 20


def test_usage__keeps_the_time_of_an_exited_child(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdout is not None
    child.stdout.readline()
    running_s, _ = usage()
    child.kill()
    child.wait()
    exited_s, _ = usage()
    assert exited_s >= running_s - 0.02  # the kernel counts running processes in ticks of 10 ms
