"""`python -m edge_limiter` serves; `python -m edge_limiter migrate` brings its schema up to date."""

import sys

from common.service import command_line
from edge_limiter.app import create_service, migrate_schema
from edge_limiter.settings import EdgeSettings


def main() -> int:
    return command_line("edge-limiter", EdgeSettings, create_service, migrate=migrate_schema)


if __name__ == "__main__":
    sys.exit(main())
