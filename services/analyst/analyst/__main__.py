"""`python -m analyst`."""

import sys

from analyst.app import create_service, migrate
from analyst.settings import AnalystSettings
from common.service import command_line

if __name__ == "__main__":
    sys.exit(command_line("analyst", AnalystSettings, create_service, migrate=migrate))
