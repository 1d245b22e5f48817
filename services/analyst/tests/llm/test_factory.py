"""Which SDK opens, and the error if it cannot."""

import subprocess
import sys

import pytest

MISSING = """
import sys
sys.modules[sys.argv[2]] = None  # as if it were not installed
from analyst.llm.factory import open_client
from common.runtime.settings import StartError
try:
    open_client(sys.argv[1], "key", "model", "")
except StartError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(("sdk", "module"), [("genai", "google.genai"), ("generativeai", "google.generativeai")])
def test_sdk_that_is_not_installed__stops_the_start_with_the_cure(sdk: str, module: str) -> None:
    command = [sys.executable, "-c", MISSING, sdk, module]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert f"GEMINI_SDK={sdk} is not installed: pip install google-{sdk}" in ended.stderr
    assert ended.returncode == 1
