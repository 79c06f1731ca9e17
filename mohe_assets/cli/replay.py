"""`mohe replay`: places rebuilt from the raw answers, after a change of how they are read."""

from typing import Annotated

import typer

from mohe_assets.cli.recovery import opened


def replay(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would change; change nothing.")
    ] = False,
) -> None:
    """Rebuild places from the answers in the ledger. Sends no call; all or nothing; not beside a
    run.
    """
    with opened() as app:
        done = app.replay(dry_run=dry_run)
    would = "would be " if dry_run else ""
    typer.echo(
        f"{done.searches:,} searches read again, {done.places:,} places: "
        f"{done.added:,} {would}added, {done.removed:,} {would}removed, {done.changed:,} {would}changed; "
        f"{done.set_aside:,} items set aside."
    )
