"""`python -m inference`: serves predictions."""

import sys

from common.service import command_line
from inference.app import create_service
from inference.settings import InferenceSettings

if __name__ == "__main__":
    sys.exit(command_line("inference", InferenceSettings, create_service))
