"""The whole system on one machine: embedded stores, migrations, four services."""
