"""`mohe prune`: delete old data now, as the daily job `maintenance` does."""

import os
from typing import Annotated

import typer

from mohe_assets.cli.env import environment
from mohe_assets.cli.recovery import opened
from mohe_assets.postgres.databases import resolve_urls


def prune(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how much would be deleted; delete nothing.")
    ] = False,
) -> None:
    """Delete searches of old rounds and Dagster's old runs, by MOHE_KEEP_LEDGER_DAYS and
    MOHE_KEEP_RUN_DAYS.

    Places, the last two rounds of every region, and the runs behind the UI's partitions stay.
    """
    from dagster import DagsterInstance  # noqa: PLC0415 - loading it takes a second

    from mohe_assets.defs.runtime import retention  # noqa: PLC0415

    with opened() as app:
        os.environ.update(environment(app.settings, resolve_urls(app.settings)))
        with DagsterInstance.get() as instance:
            pruned = retention.prune(instance, app, dry_run=dry_run)
    typer.echo(retention.pruned_sentence(pruned, dry_run=dry_run))
