"""Figures for monitoring: a few statements per scrape, each with a bounded number of rows."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import ProgrammingError

from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.store.database import Database, Scope, rows

TOTALS = "SELECT * FROM batch_totals WHERE batch_name = :batch AND region_type = :type"
FAILURE_KINDS = """
SELECT coalesce(failure_kind, 'unknown') AS kind, count(*) AS regions FROM batch_checkpoint
 WHERE batch_name = :batch AND region_type = :type AND status = 'FAILED' GROUP BY 1 ORDER BY 1
"""
# A count of a million rows takes a tenth of a second and more; the index has them by region.
PLACES = """
SELECT count(*) AS places, count(*) FILTER (WHERE region_code IS NULL) AS unassigned FROM places
 WHERE region_type = :type
"""
RUNS = """
SELECT status, count(*) AS runs,
       count(*) FILTER (WHERE heartbeat_at < now() - make_interval(secs => :lease_seconds))
           AS silent,
       max(extract(epoch FROM now() - coalesce(heartbeat_at,
                                               start_time)))::float AS oldest_heartbeat_seconds
  FROM batch_execution_metadata WHERE batch_name = :batch GROUP BY 1
"""
REFRESHED = "SELECT max(refreshed_at) AS refreshed_at FROM region_refresh WHERE region_type = :type"
REFUSALS = """
SELECT b.api, coalesce(sum(u.refused_rate), 0)::int AS rate, coalesce(sum(u.refused_quota),
                                                                      0)::int AS quota,
       min(current_pace(b.*, budget_clock())) AS pace
  FROM account_budget(:api, :account) b LEFT JOIN account_usage(:api, :account) u ON true GROUP BY 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """The row of `batch_totals`; all zero while there are no regions."""

    regions: int = 0
    completed: int = 0
    failed: int = 0
    processing: int = 0
    pending: int = 0
    refining: int = 0
    awaiting_retry: int = 0
    given_up: int = 0
    leases_expired: int = 0
    searches_planned: int | None = None
    searches_done: int = 0
    refinements: int = 0
    calls_used: int = 0
    next_retry_at: dt.datetime | None = None
    first_started_at: dt.datetime | None = None
    last_completed_at: dt.datetime | None = None
    working_time: dt.timedelta | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """Runs by status; how many RUNNING ones are `silent`, and the age of their oldest heartbeat."""

    by_status: Mapping[str, int]
    silent: int
    oldest_heartbeat_seconds: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusals:
    """Calls that an API refused since counting began, and the share of the configured rate in
    use.
    """

    rate: int = 0
    quota: int = 0
    pace: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitored:
    """One look at the whole collection."""

    totals: Totals
    failed_by_kind: Mapping[str, int]
    places: int
    places_without_region: int
    runs: Runs
    refreshed_at: dt.datetime | None


def read_monitored(database: Database, scope: Scope, *, lease_seconds: float) -> Monitored:
    """Read everything in one transaction. Raises DatabaseUnavailable."""

    def work(connection: Connection) -> Monitored:
        totals = rows(connection, TOTALS, **scope.values)
        places = rows(connection, PLACES, type=scope.region_type)[0]
        runs = {
            row["status"]: row
            for row in rows(connection, RUNS, batch=scope.batch_name, lease_seconds=lease_seconds)
        }
        running = runs.get("RUNNING", {"silent": 0, "oldest_heartbeat_seconds": None})
        return Monitored(
            totals=Totals(**{name: totals[0][name] for name in Totals.__dataclass_fields__})
            if totals
            else Totals(),
            failed_by_kind={
                row["kind"]: row["regions"]
                for row in rows(connection, FAILURE_KINDS, **scope.values)
            },
            places=places["places"],
            places_without_region=places["unassigned"],
            runs=Runs(
                by_status={status: row["runs"] for status, row in runs.items()},
                silent=running["silent"],
                oldest_heartbeat_seconds=running["oldest_heartbeat_seconds"],
            ),
            refreshed_at=rows(connection, REFRESHED, type=scope.region_type)[0]["refreshed_at"],
        )

    try:
        return database.transaction(work)
    except ProgrammingError:
        message = (
            f"The database {database.where} lacks tables or views of ours: run `mohe db migrate`."
        )
    raise DatabaseUnavailable(message)


def read_refusals(database: Database, api: str, account: str) -> Refusals:
    """Return the refusals of an account; none before its first call."""
    found = database.transaction(
        lambda connection: rows(connection, REFUSALS, api=api, account=account)
    )
    return (
        Refusals(**{name: found[0][name] for name in Refusals.__dataclass_fields__})
        if found
        else Refusals()
    )
