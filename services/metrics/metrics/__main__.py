"""Runs the metrics service, or its migrations."""

import sys

from common.service import command_line
from metrics.app import create_service, migrate
from metrics.settings import MetricsSettings


def main() -> int:
    return command_line("metrics", MetricsSettings, create_service, migrate=migrate)


if __name__ == "__main__":
    sys.exit(main())
