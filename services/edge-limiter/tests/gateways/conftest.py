"""Tests that need a gateway's program; `make test-gateways` runs them."""

import os

collect_ignore_glob = [] if os.environ.get("GATEWAY_TESTS") else ["test_*.py"]
