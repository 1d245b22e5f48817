"""Tests that run pods with podman; `make test-pods` runs them."""

import os

collect_ignore_glob = [] if os.environ.get("POD_TESTS") else ["test_*.py"]
