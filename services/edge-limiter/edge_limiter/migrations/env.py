"""Runs the revisions of schema `edge`."""

from common.postgres import run_env

run_env()
