"""`python -m analyst`."""

import sys

from analyst.app import create_service, migrate
from analyst.settings import AnalystSettings
from common.service import command_line


def main() -> int:
    return command_line("analyst", AnalystSettings, create_service, migrate=migrate)


if __name__ == "__main__":
    sys.exit(main())
