"""`mohe replay`: rebuild places from the stored responses, after the parser has changed."""

from typing import Annotated

import typer

from mohe_assets.cli.recovery import opened


def replay(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how much would change; change nothing.")
    ] = False,
) -> None:
    """Rebuild places from the answers in the ledger, without a call and in one transaction. Refused
    while a run collects.
    """
    with opened() as app:
        done = app.replay(dry_run=dry_run)
    would = "would be " if dry_run else ""
    typer.echo(
        f"{done.searches:,} searches read again, {done.places:,} places: "
        f"{done.added:,} {would}added, {done.removed:,} {would}removed, "
        f"{done.changed:,} {would}changed; {done.set_aside:,} items set aside."
    )
