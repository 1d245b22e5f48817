"""Cross-checks between the Kubernetes resources of a rendered overlay, which schemas and linters cannot make."""
