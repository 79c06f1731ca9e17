"""Databases of tests: a server of the chosen version, copies of templates, and SQL on them."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.store.database import Database, rows

DEBIAN_BINARIES = "/usr/lib/postgresql/{}/bin"
# The first query of the batch system's manual.
PROGRESS_QUERY = """
SELECT COUNT(*) AS total_regions,
       COUNT(CASE WHEN status = 'COMPLETED' THEN 1 END) AS completed,
       COUNT(CASE WHEN status = 'FAILED' THEN 1 END) AS failed,
       COUNT(CASE WHEN status = 'PROCESSING' THEN 1 END) AS processing,
       COUNT(CASE WHEN status = 'PENDING' THEN 1 END) AS pending
FROM batch_checkpoint WHERE batch_name = 'place-ingestion-batch';
"""


@dataclass(frozen=True, kw_only=True)
class DebianServer(EmbeddedServer):
    """The same cluster settings on the binaries of a Debian package."""

    major: str

    def _binaries(self) -> Path:
        return Path(DEBIAN_BINARIES.format(self.major))


def server_in(home: Path, major: str | None) -> EmbeddedServer:
    """Return the embedded server, or Debian's of this major version."""
    if major is None:
        return EmbeddedServer(home=home)
    server = DebianServer(home=home, major=major)
    if not server.psql().exists():
        raise pytest.UsageError(
            f"--postgres {major}: install the Debian package postgresql-{major}."
        )
    return server


def administer(admin: Database, sql: str) -> None:
    """Execute a statement that is not allowed in a transaction, such as CREATE DATABASE."""
    admin.transaction(lambda connection: connection.execute(text(sql)), autocommit=True)


@contextmanager
def copied(admin: Database, template: str) -> Iterator[str]:
    """Copy a database; yield the copy's name and drop it afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    administer(admin, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield name
    finally:
        administer(admin, f"DROP DATABASE {name} WITH (FORCE)")


def read(database: Database, sql: str, **values: Any) -> list[dict[str, Any]]:
    return database.transaction(lambda connection: rows(connection, sql, **values))


def execute(database: Database, sql: str, **values: object) -> None:
    database.transaction(lambda connection: connection.execute(text(sql), values))


@contextmanager
def statements() -> Iterator[list[str]]:
    """Record the statements of every engine of this process, Dagster's own included."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)
