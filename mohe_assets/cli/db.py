"""`mohe db`: the database the settings mean, embedded or a server of one's own."""

import os
import shutil
from typing import Annotated

import typer

from mohe_assets import settings as settings_module
from mohe_assets.databases import locate, prepare
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.platform import Platform
from mohe_assets.store import schema
from mohe_assets.store.database import Database

app = typer.Typer(help="Start, stop and migrate the database, print its URL, open psql on it.", no_args_is_help=True)


@app.command()
def migrate() -> None:
    """Bring the schema to the current revision; safe to run at any time."""
    urls = prepare(settings_module.load())
    database = Database.connect(urls.data)
    try:
        typer.echo(f"{database.where} is at revision {schema.current_revision(database)}.")
    finally:
        database.close()


@app.command()
def start() -> None:
    """Start the embedded PostgreSQL and make sure that both databases and the schema are there."""
    urls = prepare(settings_module.load())
    if urls.embedded is None:
        typer.echo("MOHE_DATABASE_URL names a server of your own; it answers and its schema is current.")
    else:
        typer.echo(f"The embedded PostgreSQL runs in {urls.embedded.data}.")


@app.command()
def stop() -> None:
    """Stop the embedded PostgreSQL; collections that run wait for it, and give up after two minutes."""
    urls = locate(settings_module.load())
    if urls.embedded is None:
        raise DatabaseUnavailable("MOHE_DATABASE_URL names a server of your own; mohe does not stop that one.")
    typer.echo("The embedded PostgreSQL is stopped." if urls.embedded.stop() else "The embedded PostgreSQL was not running.")


@app.command()
def url(
    *, dagster: Annotated[bool, typer.Option("--dagster", help="The URL of Dagster's own database instead.")] = False
) -> None:
    """Print the database's URL, password included, for psql and other tools; starts the embedded server."""
    urls = prepare(settings_module.load())
    typer.echo(urls.dagster if dagster else urls.data)


@app.command()
def reset(*, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete the collected places, the ledger and the checkpoints; the regions stay and start from nothing."""
    settings = settings_module.load()
    with Platform.open(settings) as platform:
        if not yes:
            typer.confirm(f"Delete all places, searches and checkpoints in {platform.database.where}?", abort=True)
        seeded = platform.checkpoints.reset()
    typer.echo(f"{seeded} regions are PENDING and start from nothing.")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(context: typer.Context) -> None:
    """Open psql on the database, with psql's own arguments: mohe db psql -c 'SELECT count(*) FROM places'."""
    urls = prepare(settings_module.load())
    program = shutil.which("psql") or (str(urls.embedded.psql()) if urls.embedded else None)
    if program is None:
        raise DatabaseUnavailable("There is no psql on the PATH; install PostgreSQL's client.")
    os.execv(program, [program, urls.data, *context.args])  # noqa: S606 - psql takes over this process
