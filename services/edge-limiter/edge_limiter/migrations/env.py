"""Runs the revisions of schema `edge`."""

from common.stores.postgres import run_env

run_env()
