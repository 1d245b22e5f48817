"""Sluice on one machine: embedded stores, migrations and the four services."""
