"""Tests that need kustomize and the schemas of Kubernetes; `make k8s-check` runs them."""

import os

collect_ignore_glob = [] if os.environ.get("K8S_TESTS") else ["test_*.py"]
