"""Alembic's entry: runs the revisions on the connection that `common.stores.migrations.migrate` opened."""

from common.stores.migrations import run_env

run_env()
