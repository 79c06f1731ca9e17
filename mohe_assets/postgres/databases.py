"""Resolve the settings to database URLs, and make the databases ready for use."""

import os
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, ProgrammingError

from mohe_assets.errors import DatabaseUnavailable, NotPermitted
from mohe_assets.postgres import schema
from mohe_assets.postgres.embedded import DAGSTER_DATABASE, DATA_DATABASE, SUPERUSER, EmbeddedServer
from mohe_assets.settings import Settings
from mohe_assets.store.database import LOSS_NOTICED, Database
from mohe_assets.store.database_url import DatabaseUrl
from mohe_assets.store.sqlstate import NO_SUCH_DATABASE, first_line, sqlstate

# Variables of libpq that an embedded server's URL overrides or does not need.
HARMLESS = ("PGHOST", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGPASSFILE", "PGDATA")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseUrls:
    """URLs of the data and of Dagster's storage.

    `embedded` is the server of the data, None if MOHE_DATABASE_URL names another server; Dagster's
    storage can be elsewhere.
    """

    data: str
    dagster: str
    embedded: EmbeddedServer | None


def resolve_urls(settings: Settings) -> DatabaseUrls:
    """Return the URLs that the settings name. Starts nothing."""
    embedded = EmbeddedServer(home=settings.home)
    named = settings.database_url.get_secret_value() if settings.database_url else None
    dagster = (
        settings.dagster_database_url.get_secret_value() if settings.dagster_database_url else None
    )
    # `mohe env` exports the embedded server's own URL, which counts as the embedded server.
    if named is None or _is_of(embedded, named, DATA_DATABASE):
        if dagster is None or _is_of(embedded, dagster, DAGSTER_DATABASE):
            dagster = embedded.url(DAGSTER_DATABASE)
        return DatabaseUrls(data=embedded.url(DATA_DATABASE), dagster=dagster, embedded=embedded)
    storage = (
        DatabaseUrl.parse(dagster)
        if dagster
        else DatabaseUrl.parse(named).sibling(DAGSTER_DATABASE)
    )
    # Dagster connects with the options of its URL only. Without these, a run that loses its
    # connection would wait for 15 minutes.
    if not storage.is_local:
        storage = storage.with_defaults(LOSS_NOTICED)
    return DatabaseUrls(data=named, dagster=str(storage), embedded=None)


def _is_of(embedded: EmbeddedServer, url: str, database: str) -> bool:
    there = make_url(url)
    folder = there.query.get("host", "")
    return (
        (there.username, there.host, there.database) == (SUPERUSER, None, database)
        and isinstance(folder, str)
        and embedded.listens_in(folder)
    )


def redirecting_variables(environ: Iterable[str]) -> list[str]:
    """Return the PG* variables that libpq would apply in spite of an embedded server's URL."""
    return sorted(name for name in environ if name.startswith("PG") and name not in HARMLESS)


def ignore_redirecting_variables(
    urls: DatabaseUrls, environ: MutableMapping[str, str] = os.environ
) -> None:
    """Remove these variables, meant for other servers, from an environment (by default our own).

    Does nothing if the database is not embedded.
    """
    if urls.embedded is not None:
        for name in redirecting_variables(environ):
            del environ[name]


def ensure_ready(settings: Settings) -> DatabaseUrls:
    """Start the embedded server, create Dagster's database and migrate the schema, if needed."""
    urls = resolve_urls(settings)
    ignore_redirecting_variables(urls)
    if urls.embedded is not None:
        urls.embedded.start()
        urls = resolve_urls(settings)  # the first start may have chosen a folder for the socket
    else:
        _ensure_database(urls.dagster, beside=urls.data)
    database = Database.connect(urls.data)
    try:
        database.check()
        schema.migrate(database)
    finally:
        database.close()
    return urls


def require_ready(settings: Settings) -> DatabaseUrls:
    """Return the checked databases; for processes whose database role may not migrate."""
    urls = running(settings)
    database = Database.connect(urls.data)
    try:
        require_current(database, settings, urls)
    finally:
        database.close()
    return urls


def running(settings: Settings) -> DatabaseUrls:
    """Return the databases; makes the embedded server ready if it does not run.

    Raises DatabaseUnavailable if it belongs to another account.
    """
    urls = resolve_urls(settings)
    ignore_redirecting_variables(urls)
    if urls.embedded is not None and not (urls.embedded.made and urls.embedded.reachable):
        return ensure_ready(settings)
    return urls


def only_look(settings: Settings) -> DatabaseUrls:
    """Return the databases without starting, creating or migrating anything.

    Raises DatabaseUnavailable, with the command to run, if the embedded server does not run.
    """
    urls = resolve_urls(settings)
    ignore_redirecting_variables(urls)
    if urls.embedded is not None:
        urls.embedded.require_running()
    return urls


def require_current(database: Database, settings: Settings, urls: DatabaseUrls) -> None:
    """Make an embedded database current; raise DatabaseUnavailable for an outdated other one."""
    try:
        schema.require_current(database)
    except DatabaseUnavailable:
        if urls.embedded is None:
            raise
    else:
        return
    ensure_ready(settings)
    schema.require_current(database)


def _ensure_database(url: str, *, beside: str) -> None:
    """Create Dagster's database if it is missing."""
    wanted, there = Database.connect(url), Database.connect(beside)
    name, missing = DatabaseUrl.parse(url).database, False
    try:
        try:
            wanted.engine.connect().close()
        except OperationalError as error:
            missing = sqlstate(error) == NO_SUCH_DATABASE
        if not missing:
            wanted.check()
            return
        there.check()
        quoted = there.engine.dialect.identifier_preparer.quote(name)
        # UTF8, because events contain any name. UTC, because Dagster writes times of runs in the
        # session's zone and reads them as UTC.
        there.execute_alone(
            f"CREATE DATABASE {quoted} "
            "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        there.execute_alone(f"ALTER DATABASE {quoted} SET timezone TO 'UTC'")
        # A pooler caches for some seconds that there was no such database.
        wanted.transaction(lambda connection: connection.execute(text("SELECT 1")))
    except (ProgrammingError, NotPermitted) as error:
        reason = error.state if isinstance(error, NotPermitted) else first_line(error)
        message = (
            f"Dagster's database {name!r} is missing and cannot be created ({reason.rstrip('.')}); "
            "create it, or set MOHE_DAGSTER_DATABASE_URL."
        )
    else:
        return
    finally:
        wanted.close()
        there.close()
    raise DatabaseUnavailable(message)
