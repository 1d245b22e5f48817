"""Runs the revisions of schema `edge`."""

from common.stores.migrations import run_env

run_env()
