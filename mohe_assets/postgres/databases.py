"""Which databases the settings mean, and making them usable. Nothing is opened or started when
imported.
"""

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

# Variables of libpq that an embedded server's URL overrides, or that it never asks for.
HARMLESS = ("PGHOST", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGPASSFILE", "PGDATA")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseUrls:
    """Where the data and Dagster's own storage are, and the embedded server if they are in it."""

    data: str
    dagster: str
    embedded: EmbeddedServer | None


def resolve_urls(settings: Settings) -> DatabaseUrls:
    """The databases the settings mean. Nothing is started."""
    embedded = EmbeddedServer(home=settings.home)
    named = settings.database_url.get_secret_value() if settings.database_url else None
    dagster = (
        settings.dagster_database_url.get_secret_value() if settings.dagster_database_url else None
    )
    # `mohe env` exports the embedded server's own URL: naming it is still meaning it.
    if named is None or _names(embedded, named, DATA_DATABASE):
        if dagster is None or _names(embedded, dagster, DAGSTER_DATABASE):
            dagster = embedded.url(DAGSTER_DATABASE)
        return DatabaseUrls(data=embedded.url(DATA_DATABASE), dagster=dagster, embedded=embedded)
    storage = (
        DatabaseUrl.parse(dagster)
        if dagster
        else DatabaseUrl.parse(named).sibling(DAGSTER_DATABASE)
    )
    # Dagster connects with what its URL says and nothing else: a run cut off from it would wait for
    # a quarter of an hour.
    if not storage.is_local:
        storage = storage.with_defaults(LOSS_NOTICED)
    return DatabaseUrls(data=named, dagster=str(storage), embedded=None)


def _names(embedded: EmbeddedServer, url: str, database: str) -> bool:
    there = make_url(url)
    folder = there.query.get("host", "")
    return (
        (there.username, there.host, there.database) == (SUPERUSER, None, database)
        and isinstance(folder, str)
        and embedded.listens_in(folder)
    )


def redirecting_variables(environ: Iterable[str]) -> list[str]:
    """PG* variables that libpq would follow past an embedded server's URL."""
    return sorted(name for name in environ if name.startswith("PG") and name not in HARMLESS)


def ignore_redirecting_variables(
    urls: DatabaseUrls, environ: MutableMapping[str, str] = os.environ
) -> None:
    """Remove them from an environment, this process's by default, if the database is the embedded
    one.

    They are meant for servers of a person's own.
    """
    if urls.embedded is not None:
        for name in redirecting_variables(environ):
            del environ[name]


def ensure_ready(settings: Settings) -> DatabaseUrls:
    """Makes both databases usable: embedded server running, Dagster's database there, schema
    current.
    """
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
    """The databases, checked: for processes that may run many times over, with a role that may not
    migrate.
    """
    urls = running(settings)
    database = Database.connect(urls.data)
    try:
        require_current(database, settings, urls)
    finally:
        database.close()
    return urls


def running(settings: Settings) -> DatabaseUrls:
    """The databases; the embedded server is made ready if it does not run.

    DatabaseUnavailable if it belongs to another account.
    """
    urls = resolve_urls(settings)
    ignore_redirecting_variables(urls)
    if urls.embedded is not None and not (urls.embedded.made and urls.embedded.reachable):
        return ensure_ready(settings)
    return urls


def only_look(settings: Settings) -> DatabaseUrls:
    """The databases as they are; starts, makes and migrates nothing.

    DatabaseUnavailable, with the command that does, if the embedded server does not run.
    """
    urls = resolve_urls(settings)
    ignore_redirecting_variables(urls)
    if urls.embedded is not None:
        urls.embedded.require_running()
    return urls


def require_current(database: Database, settings: Settings, urls: DatabaseUrls) -> None:
    """A server of a person's own is left as it is, with a sentence what to do; the embedded one is
    made ready.
    """
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
        # UTF8, because events hold any name. UTC, because Dagster writes its runs' times as the
        # session's local ones and reads them as UTC.
        there.execute_alone(
            f"CREATE DATABASE {quoted} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        there.execute_alone(f"ALTER DATABASE {quoted} SET timezone TO 'UTC'")
        # A pooler remembers for some seconds that there was no such database.
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
