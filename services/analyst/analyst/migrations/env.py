"""Alembic's entry: runs the revisions on the connection that `common.postgres.migrate` opened."""

from common.postgres import run_env

run_env()
