"""The users of the load test report no failure on the real system. Another file tests the objectives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from system import System
from users import answers

RARE = ("Attacker", "Dashboard", "Follower", "ThresholdEditor")  # one in a hundred users, and exactly one here
ANSWERED = {"Predictor", "OfficeWorker", "BatchPredictor", "Attacker", "Dashboard", "Analyst", "ThresholdEditor"}
LOADTESTS = Path(__file__).parents[1] / "loadtests"


@pytest.mark.parametrize(("shape", "run_time"), [("ramp", "6s"), ("soak", "2s"), ("spike", "12s")])
def test_users_of_the_load_test__find_no_fault(system: System, tmp_path: Path, shape: str, run_time: str) -> None:
    """Locust checks a shape once a second, and later on a busy machine. All users must have started even then."""
    files = f"{LOADTESTS / 'locustfile.py'},{LOADTESTS / 'shapes' / shape}.py"
    token = system.service("edge_limiter").environ()["EDGE_ADMIN_TOKEN"]
    command = [sys.executable, "-m", "locust", "-f", files, "--headless", "--host", system.url, "--only-summary"]
    command += ["--users", "52", "--spawn-rate", "52", "--run-time", run_time, "--stop-timeout", "10", "--think-s", "1"]
    command += ["--answers", str(tmp_path), f"--admin-token={token}"]
    command += ["--config-users", json.dumps([{"user_class_name": name, "fixed_count": 1} for name in RARE])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr  # 1 after any failure
    found = list(answers.read(tmp_path))
    assert {one.user for one in found} == ANSWERED
    assert "/metrics/stream, message" in ended.stdout + ended.stderr  # stream messages are not answers
    assert any(one.status == 200 and one.policy == "predict" for one in found)
