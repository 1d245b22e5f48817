"""The edge: who is calling, whether they may, and a strict reverse proxy."""
