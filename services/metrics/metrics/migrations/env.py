"""Alembic's entry: runs the revisions on the connection that `common.stores.postgres.migrate` opened."""

from common.stores.postgres import run_env

run_env()
