"""The edge: exact limits per client in front of a strict reverse proxy."""
