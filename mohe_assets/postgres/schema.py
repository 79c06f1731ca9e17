"""Migrate a database to the current schema with Alembic; the schema is the plain SQL of `sql/`.

Alembic is imported by `migrate` only: the import takes 0.1 s, and every command checks the schema.
"""

from pathlib import Path

import psycopg2
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.store.database import Database

# Not Alembic's default, alembic_version, which Dagster uses: both may be in the same database.
VERSION_TABLE = "mohe_schema_version"
# Locks that serialize concurrent migrations. Before the first migration there is no table to lock,
# and no role besides the owner uses the database.
_LOCK_TABLE = f"LOCK TABLE {VERSION_TABLE} IN SHARE ROW EXCLUSIVE MODE"
_LOCK_EMPTY_DATABASE = "SELECT pg_advisory_xact_lock(7310511680)"
_LOCK_NOT_AVAILABLE = "55P03"


_MIGRATIONS = Path(__file__).with_name("migrations")


def migrate(database: Database) -> str:
    """Apply the missing revisions atomically and return the revision reached.

    Repeated and concurrent calls are safe. Raises DatabaseUnavailable, without any change, if the
    tables are in use or contain rows that cannot be migrated.
    """
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    unchanged = f"The database {database.where} was not migrated and is as it was"

    def upgrade(connection: Connection) -> None:
        before = _revision(connection)
        if before == head_revision():
            return  # requires no right to write
        connection.execute(text(_LOCK_EMPTY_DATABASE if before is None else _LOCK_TABLE))
        _refuse_unknown(database, _revision(connection))
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except (DBAPIError, psycopg2.Error) as error:
            # No retry: a lock that is held for half a minute is held for longer.
            if getattr(getattr(error, "orig", error), "pgcode", None) == _LOCK_NOT_AVAILABLE:
                raise DatabaseUnavailable(
                    f"{unchanged}: another program holds its tables locked. Stop every program "
                    "that writes into it, the batch system included, and run `mohe db migrate` "
                    "again."
                ) from None
            raise

    try:
        database.transaction(upgrade, unlimited=True)
    except (DBAPIError, psycopg2.Error) as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0].rstrip(".")
        message = f"{unchanged}: {reason}."
    else:
        return current_revision(database) or ""
    raise DatabaseUnavailable(message)


def current_revision(database: Database) -> str | None:
    """Return the database's revision, None before the first migration."""
    return database.transaction(_revision)


def _revision(connection: Connection) -> str | None:
    if (
        connection.execute(text("SELECT to_regclass(:table)"), {"table": VERSION_TABLE}).scalar()
        is None
    ):
        return None
    version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return None if version is None else str(version)


def _revisions() -> list[str]:
    """Return the known revisions in order; a migration's file is named after its revision."""
    return sorted(
        path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")
    )


def _refuse_unknown(database: Database, revision: str | None) -> None:
    """Raise DatabaseUnavailable for a database that a newer version has migrated."""
    if revision is not None and revision not in _revisions():
        raise DatabaseUnavailable(
            f"The database {database.where} is at revision {revision}, which this version does "
            f"not know (its own is {head_revision()}): a newer version has migrated it; install "
            "that one."
        )


def head_revision() -> str:
    """Return the revision that this version of the package needs."""
    return _revisions()[-1]


def require_current(database: Database) -> None:
    """Raise DatabaseUnavailable, with the action, unless the schema is current."""
    database.check()
    revision, needed = current_revision(database), head_revision()
    if revision != needed:
        _refuse_unknown(database, revision)
        state = f"at revision {revision}" if revision else "empty"
        raise DatabaseUnavailable(
            f"The database {database.where} is {state}, and revision {needed} is needed: "
            "run `mohe db migrate`."
        )
