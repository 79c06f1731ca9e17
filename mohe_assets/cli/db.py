"""`mohe db`: the database of the settings, embedded or on the user's server."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Annotated, NoReturn

import typer
from psycopg2.extensions import make_dsn, parse_dsn
from sqlalchemy import text

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.env import DAGSTERS_FOLDER, dagster_environment, environment, program
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.postgres import roles, schema
from mohe_assets.postgres.databases import ensure_ready, resolve_urls
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.settings import Settings
from mohe_assets.store.database import Database

commands = typer.Typer(
    help="Start, stop and migrate the database, print its URL, open psql on it.",
    no_args_is_help=True,
)


@commands.command()
def migrate(
    *,
    with_roles: Annotated[
        bool,
        typer.Option(
            "--roles",
            help=f"Also create the roles {roles.COLLECTOR} and {roles.READER} of sql/roles.sql, "
            "with the passwords of MOHE_COLLECTOR_PASSWORD and MOHE_READER_PASSWORD.",
        ),
    ] = False,
) -> None:
    """Bring our schema and Dagster's to the current revision; safe to run at any time."""
    settings = settings_module.load()
    urls = ensure_ready(settings)
    environ = settings_module.command_environment()
    _migrate_dagster(dagster_environment(environ, settings, urls))
    database = Database.connect(urls.data)
    try:
        if with_roles:
            _make_roles(settings, database, urls.dagster)
        else:
            _warn_of_outdated_rights(database, urls.dagster)
        typer.echo(f"{database.where} is at revision {schema.current_revision(database)}.")
    finally:
        database.close()


def _migrate_dagster(variables: Mapping[str, str]) -> None:
    """Create Dagster's tables as well, so that later processes need no right to do so."""
    command = [program("dagster"), "instance", "migrate"]
    done = subprocess.run(  # noqa: S603 - our own command
        command,
        env=dict(variables),
        cwd=DAGSTERS_FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        typer.echo(done.stdout, err=True)
        raise DatabaseUnavailable("Dagster's database could not be migrated; the reason is above.")


def _warn_of_outdated_rights(database: Database, dagster_url: str) -> None:
    """Name the rights that an upgrade changed; only sql/roles.sql brings them up to date."""
    dagster = Database.connect(dagster_url)
    try:
        found = {one.where: roles.outdated(one) for one in (database, dagster)}
    finally:
        dagster.close()
    for where, names in found.items():
        if names:
            typer.echo(
                f"The rights of {roles.COLLECTOR} and {roles.READER} in {where} are not those of "
                f"this version: {', '.join(names)}. Run `mohe db migrate --roles`.",
                err=True,
            )


def _make_roles(settings: Settings, database: Database, dagster_url: str) -> None:
    dagster = Database.connect(dagster_url)
    try:
        for one in (database, dagster):
            roles.grant(one)
    finally:
        dagster.close()
    for role, password in (
        (roles.COLLECTOR, settings.collector_password),
        (roles.READER, settings.reader_password),
    ):
        if password is not None:
            roles.set_password(database, role, password.get_secret_value())
        typer.echo(f"Role {role} exists{'' if password else '; its password was not changed'}.")


@commands.command()
def start() -> None:
    """Start the embedded PostgreSQL; create both databases and the schema if they are missing."""
    urls = ensure_ready(settings_module.load())
    if urls.embedded is None:
        typer.echo("MOHE_DATABASE_URL names your own server; it answers and its schema is current.")
    else:
        typer.echo(f"The embedded PostgreSQL runs in {urls.embedded.data}.")


@commands.command()
def stop() -> None:
    """Stop the embedded PostgreSQL. Runs that collect wait two minutes for it, and then fail."""
    urls = resolve_urls(settings_module.load())
    if urls.embedded is None:
        raise DatabaseUnavailable(
            "MOHE_DATABASE_URL names your own server, which mohe does not stop."
        )
    typer.echo(
        "The embedded PostgreSQL is stopped."
        if urls.embedded.stop()
        else "The embedded PostgreSQL was not running."
    )


@commands.command()
def url(
    *,
    dagster: Annotated[
        bool, typer.Option("--dagster", help="The URL of Dagster's own database instead.")
    ] = False,
) -> None:
    """Print the database's URL, password included, for psql and other tools. Starts nothing."""
    urls = resolve_urls(settings_module.load())
    if urls.embedded is not None and urls.embedded.made and not urls.embedded.reachable:
        typer.echo(
            "mohe: The embedded PostgreSQL is not running; `mohe db start` starts it.", err=True
        )
    elif urls.embedded is not None:
        urls.embedded.require_running()
    else:
        database = Database.connect(urls.data)
        try:
            database.check()
        finally:
            database.close()
    typer.echo(urls.dagster if dagster else urls.data)


@commands.command()
def reset(*, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete the collected places, the ledger and the checkpoints; all regions become PENDING.

    Dagster's record of the partitions is deleted as well. If the data comes from the simulator, the
    data of all batches is deleted.
    """
    settings = settings_module.load()
    with App.open(settings) as app:
        if not yes:
            typer.confirm(
                f"Delete all places, searches and checkpoints in {app.database.where}?",
                abort=True,
            )
        seeded = app.reset()
    typer.echo(f"{seeded} regions are PENDING, without any stored search.")
    _wipe_partitions(settings)


def _wipe_partitions(settings: Settings) -> None:
    """Delete Dagster's record of places, so that no partition is shown as materialized."""
    urls = resolve_urls(settings)
    database = Database.connect(urls.dagster)
    try:
        database.check()
        sql = text("SELECT to_regclass('asset_keys')")
        known = database.transaction(lambda connection: connection.execute(sql).scalar())
    finally:
        database.close()
    if known is None:
        return
    from dagster import AssetKey, DagsterInstance  # noqa: PLC0415 - takes seconds

    os.environ.update(environment(settings, urls))
    with DagsterInstance.get() as instance:
        instance.wipe_assets([AssetKey("places")])
    typer.echo(
        "Dagster's record of the asset places is deleted: no partition is shown as materialized."
    )


@commands.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(context: typer.Context) -> None:
    """Open psql on the database, with psql's own arguments: mohe db psql -c 'SELECT count(*) FROM
    places'.
    """
    urls = ensure_ready(settings_module.load())
    program = shutil.which("psql") or (str(urls.embedded.psql()) if urls.embedded else None)
    if program is None:
        raise DatabaseUnavailable("There is no psql on the PATH; install PostgreSQL's client.")
    _become(program, urls.data, context.args)


@commands.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def dump(context: typer.Context) -> None:
    """Write the database with pg_dump, with its own arguments: mohe db dump --format=custom >
    mohe.dump. Owners are left out, so that any role restores it: pg_restore --no-owner --dbname
    URL mohe.dump.
    """
    settings = settings_module.load()
    program = _pg_dump(settings)
    _become(program, ensure_ready(settings).data, ["--no-owner", "--no-privileges", *context.args])


def _become(program: str, url: str, arguments: Sequence[str]) -> NoReturn:
    """Run a client of PostgreSQL in place of this process, with the password in its environment.

    Every account of the machine can read the arguments of a process, and only its own account can
    read the environment.
    """
    parameters = parse_dsn(url)
    password = parameters.pop("password", None)
    variables = {**os.environ, **({} if password is None else {"PGPASSWORD": password})}
    command = [program, make_dsn(**parameters), *arguments]
    os.execve(program, command, variables)  # noqa: S606 - it takes over this process


def _pg_dump(settings: Settings) -> str:
    """Return the embedded server's pg_dump if there is one: it also reads older servers."""
    try:
        return str(EmbeddedServer(home=settings.home).pg_dump())
    except DatabaseUnavailable:
        found = shutil.which("pg_dump")
    if found is None:
        raise DatabaseUnavailable("There is no pg_dump on the PATH; install PostgreSQL's client.")
    return found
