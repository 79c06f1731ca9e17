"""Dagster's instance on a test's database."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from mohe_assets.cli.env import environment as dagster_environment
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.settings import Settings


@contextmanager
def dagster_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open the instance as workers see it: its configuration reads the environment."""
    variables = dagster_environment(settings, resolve_urls(settings))
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with dg.DagsterInstance.from_config(variables["DAGSTER_HOME"]) as instance:
            yield instance
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
