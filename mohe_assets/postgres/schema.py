"""Brings a database to the current schema with Alembic; the schema itself is the plain SQL under
`sql/`.

Alembic is imported by what migrates. Whether a database is current is asked by every command, for
which a tenth of a second is much.
"""

from pathlib import Path

import psycopg2
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.store.database import Database

# Alembic's own default, alembic_version, is what Dagster uses: the two would read each other's
# revisions if a person keeps both in one database.
VERSION_TABLE = "mohe_schema_version"
# Two processes that migrate at once queue up here instead of colliding half-way. Before the first
# migration there is no table to lock, and no role besides the owner has anything to look for in the
# database.
_LOCK_TABLE = f"LOCK TABLE {VERSION_TABLE} IN SHARE ROW EXCLUSIVE MODE"
_LOCK_EMPTY_DATABASE = "SELECT pg_advisory_xact_lock(7310511680)"
_LOCK_NOT_AVAILABLE = "55P03"


_MIGRATIONS = Path(__file__).with_name("migrations")


def migrate(database: Database) -> str:
    """Applies what is missing, all of it or nothing; returns the revision reached. Safe to run
    again and at once.

    Raises DatabaseUnavailable when the tables are in use, or hold what cannot be taken over;
    nothing has changed then.
    """
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    def upgrade(connection: Connection) -> None:
        before = _revision(connection)
        if before == head_revision():
            return  # takes no right to change anything
        connection.execute(text(_LOCK_EMPTY_DATABASE if before is None else _LOCK_TABLE))
        _refuse_unknown(database, _revision(connection))
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except (DBAPIError, psycopg2.Error) as error:
            # Not tried again: whoever holds a table for half a minute holds it for longer.
            if getattr(getattr(error, "orig", error), "pgcode", None) == _LOCK_NOT_AVAILABLE:
                raise DatabaseUnavailable(_in_use(database)) from None
            raise

    try:
        database.transaction(upgrade, unlimited=True)
    except (DBAPIError, psycopg2.Error) as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0].rstrip(".")
        message = f"{_as_before(database)}: {reason}."
    else:
        return current_revision(database) or ""
    raise DatabaseUnavailable(message)


def _as_before(database: Database) -> str:
    return f"The database {database.where} was not migrated and is as it was"


def _in_use(database: Database) -> str:
    return (
        f"{_as_before(database)}: another program holds its tables locked. "
        "Stop whatever collects into it, the batch system included, and run `mohe db migrate` again."
    )


def current_revision(database: Database) -> str | None:
    """The database's revision, None before the first migration."""
    return database.transaction(_revision)


def _revision(connection: Connection) -> str | None:
    if (
        connection.execute(text("SELECT to_regclass(:table)"), {"table": VERSION_TABLE}).scalar()
        is None
    ):
        return None
    found: str | None = connection.execute(
        text(f"SELECT version_num FROM {VERSION_TABLE}")
    ).scalar()
    return found


def _revisions() -> list[str]:
    """Those this version knows, in order: a migration's file is named after its revision."""
    return sorted(
        path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")
    )


def _refuse_unknown(database: Database, found: str | None) -> None:
    """A newer version has migrated it: nothing this one knows leads from there."""
    if found is not None and found not in _revisions():
        raise DatabaseUnavailable(
            f"The database {database.where} is at revision {found}, which this version does not know (its own is "
            f"{head_revision()}): a newer version has migrated it; install that one."
        )


def head_revision() -> str:
    """The revision this version of the package needs."""
    return _revisions()[-1]


def require_current(database: Database) -> None:
    """Raises DatabaseUnavailable with what to do unless the schema is the one this version needs."""
    database.check()
    found, needed = current_revision(database), head_revision()
    if found != needed:
        _refuse_unknown(database, found)
        state = f"at revision {found}" if found else "empty"
        raise DatabaseUnavailable(
            f"The database {database.where} is {state}, and revision {needed} is needed: run `mohe db migrate`."
        )
