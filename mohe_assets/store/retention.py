"""Retention of the ledger, and the size of the databases."""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

from mohe_assets.store.database import Database, rows, statement

# Searches deleted in one transaction: some milliseconds, in which no collection waits for a row.
DELETED_AT_ONCE = 1_000
# Growth per day uses measurements at least this far apart, and at most this old.
SHORTEST_SPAN = dt.timedelta(hours=12)
LONGEST_SPAN_DAYS = 30

DatabaseName = Literal["data", "dagster"]

# Resume and refinement read the present round, the checks compare it with the round before.
_EXPIRED = """
  FROM batch_checkpoint c
  JOIN search_query q ON (q.batch_name, q.region_type, q.region_code)
                         = (c.batch_name, c.region_type, c.region_code) AND q.round < c.round - 1
 WHERE coalesce(q.answered_at, q.created_at) < clock_timestamp() - make_interval(days => :days)
"""
COUNT_EXPIRED = f"SELECT count(*) AS searches {_EXPIRED}"
DELETE_EXPIRED = f"""
DELETE FROM search_query WHERE id IN (SELECT q.id {_EXPIRED} LIMIT {DELETED_AT_ONCE})
"""
# Nothing is deleted on the day of the upgrade: a person can still change the setting.
BEGINS_AT = "SELECT min(measured_at) + interval '1 day' AS at FROM database_size"
SIZE = "SELECT pg_database_size(current_database()) AS bytes"
NOTE_SIZE = "INSERT INTO database_size (database, bytes) VALUES (:name, :bytes)"
EARLIER_SIZE = f"""
SELECT bytes, clock_timestamp() - measured_at AS span FROM database_size
 WHERE database = :name AND measured_at > clock_timestamp() - interval '{LONGEST_SPAN_DAYS} days'
   AND measured_at <= clock_timestamp()
 ORDER BY measured_at LIMIT 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseSize:
    """A database's size now, null if it cannot be read, and its mean growth per day over the last
    month; null until there is a measurement of half a day ago.
    """

    name: DatabaseName
    bytes: int | None
    growth_per_day: int | None


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Retention of the ledger in `database`, which also has the sizes of Dagster's database."""

    database: Database

    def begins_at(self) -> dt.datetime:
        """Return the time before which nothing may be deleted."""
        found = self.database.transaction(lambda c: rows(c, BEGINS_AT))[0]["at"]
        return found if found is not None else dt.datetime.max.replace(tzinfo=dt.UTC)

    def expired_searches(self, days: int) -> int:
        """Return the searches of rounds before the previous one that are older."""
        return int(
            self.database.transaction(lambda c: rows(c, COUNT_EXPIRED, days=days))[0]["searches"]
        )

    def delete_searches(self, days: int) -> int:
        """Delete them, a few in each transaction; places stay. Return their number."""

        def work(connection: Connection) -> int:
            return connection.execute(statement(DELETE_EXPIRED), {"days": days}).rowcount

        deleted = 0
        while found := self.database.transaction(work):
            deleted += found
        return deleted

    def note_size(self, name: DatabaseName, measured: Database) -> None:
        """Measure a database."""
        values = {"name": name, "bytes": measured_bytes(measured)}
        self.database.transaction(lambda c: c.execute(statement(NOTE_SIZE), values))

    def size(self, name: DatabaseName, now: int | None) -> DatabaseSize:
        """Return the size with its growth since the earliest measurement of the last month."""
        found = self.database.transaction(lambda c: rows(c, EARLIER_SIZE, name=name))
        if now is None or not found or found[0]["span"] < SHORTEST_SPAN:
            return DatabaseSize(name=name, bytes=now, growth_per_day=None)
        growth = (now - found[0]["bytes"]) / (found[0]["span"] / dt.timedelta(days=1))
        return DatabaseSize(name=name, bytes=now, growth_per_day=round(growth))


def measured_bytes(database: Database) -> int:
    """The size of a database on its server's disk."""
    return int(database.transaction(lambda c: rows(c, SIZE))[0]["bytes"])
