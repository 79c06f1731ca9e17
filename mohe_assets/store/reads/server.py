"""What `mohe doctor` reads of the PostgreSQL server."""

import datetime as dt
from dataclasses import dataclass

from mohe_assets.store.database import Database, rows

SERVER = """
SELECT current_setting('server_version_num')::int / 10000 AS major,
       current_setting('server_version') AS version,
       pg_size_pretty(pg_database_size(current_database())) AS size,
       current_setting('transaction_read_only') = 'on' AS read_only,
       current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int AS connections,
       (SELECT sum(numbackends)::int FROM pg_stat_database) AS used
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server's version, the size of the database, and its connections."""

    major: int
    version: str
    size: str
    read_only: bool
    connections: int
    used: int


def read_server(database: Database) -> Server:
    """Read version, size and connections. Raises DatabaseUnavailable."""
    return Server(**database.transaction(lambda connection: rows(connection, SERVER))[0])


def read_clock(database: Database) -> dt.datetime:
    """Return the time by the server's clock. Raises DatabaseUnavailable."""
    found = database.transaction(lambda c: rows(c, "SELECT clock_timestamp() AS now"))[0]
    now: dt.datetime = found["now"]
    return now
