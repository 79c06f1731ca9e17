"""Which databases the settings mean, and making them usable. Nothing is opened or started when
imported.
"""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from mohe_assets.errors import DatabaseUnavailable, NotPermitted
from mohe_assets.postgres import schema
from mohe_assets.postgres.embedded import DAGSTER_DATABASE, DATA_DATABASE, EmbeddedServer
from mohe_assets.settings import Settings
from mohe_assets.store.database import LOSS_NOTICED, Database
from mohe_assets.store.database_url import DatabaseUrl, canonical
from mohe_assets.store.sqlstate import NO_SUCH_DATABASE, first_line, sqlstate


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
    if named is None or named == canonical(embedded.url(DATA_DATABASE)):
        own = embedded.url(DAGSTER_DATABASE)
        return DatabaseUrls(
            data=embedded.url(DATA_DATABASE), dagster=dagster or own, embedded=embedded
        )
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


def ensure_ready(settings: Settings) -> DatabaseUrls:
    """Makes both databases usable: embedded server running, Dagster's database there, schema
    current.
    """
    urls = resolve_urls(settings)
    if urls.embedded is not None:
        urls.embedded.start()
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
    urls = resolve_urls(settings)
    database = Database.connect(urls.data)
    try:
        require_current(database, settings, urls)
    finally:
        database.close()
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
