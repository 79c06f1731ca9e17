"""Figures of the whole collection for people: reads only, a bounded number of rows."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

from mohe_assets.domain.search_plan import Search, plan_digest
from mohe_assets.store.database import Database, Scope, rows

# Searches and calls come from the checkpoints, which derive them from the ledger with every search:
# reading a million ledger rows with their answers takes too long.
COUNTS = """
SELECT (SELECT count(*) FROM places WHERE region_type = :type) AS places,
       coalesce(sum(searches_done), 0)::bigint AS searches,
       coalesce(sum(calls_used), 0)::bigint AS calls
  FROM batch_checkpoint WHERE batch_name = :batch AND region_type = :type
"""
FAILURES = """
SELECT region_code, region_name, coalesce(failure_kind, '') AS failure_kind, failures, retry_at,
       coalesce(error_message, '') AS error_message
  FROM batch_checkpoint WHERE batch_name = :batch AND region_type = :type AND status = 'FAILED'
 ORDER BY updated_at DESC LIMIT 20
"""
# The latest runs, and every unfinished run.
RUNS = """
SELECT execution_id, status, start_time, end_time, heartbeat_at, total_regions, completed_regions,
       failed_regions, note,
       CASE WHEN status <> 'RUNNING' THEN 'ended'
            WHEN heartbeat_at >= now() - make_interval(secs => :lease_seconds) THEN 'alive'
                ELSE 'silent' END AS life
  FROM batch_execution_metadata
 WHERE batch_name = :batch AND (status = 'RUNNING' OR id IN (
        SELECT id FROM batch_execution_metadata WHERE batch_name = :batch ORDER BY start_time DESC
         LIMIT 5))
 ORDER BY start_time DESC LIMIT 50
"""
# Over a minute, or since the first unfinished run began, if that is less.
RATE = """
WITH span AS (
    SELECT greatest(now() - interval '1 minute', coalesce(min(start_time), '-infinity')) AS since
      FROM batch_execution_metadata WHERE batch_name = :batch AND status = 'RUNNING'
)
SELECT calls, seconds, calls / greatest(1, seconds) AS calls_per_second,
       (SELECT max(answered_at) FROM search_query) AS last_answer_at
  FROM (SELECT coalesce(sum(q.calls), 0)::int AS calls,
        extract(epoch FROM now() - span.since)::float AS seconds
          FROM span
          LEFT JOIN search_query q ON q.answered_at > span.since
              AND q.answered_at > now() - interval '1 minute'  -- for its index
                AND q.batch_name = :batch AND q.region_type = :type
         GROUP BY span.since) answered
"""
BY_SIDO = """
SELECT r.sido_name, count(*) AS regions,
       count(*) FILTER (WHERE c.status = 'COMPLETED' OR c.refining) AS completed,
       coalesce(sum(p.places), 0)::bigint AS places
  FROM batch_checkpoint c
  JOIN region r ON r.region_type = c.region_type AND r.region_code = c.region_code
  LEFT JOIN (SELECT region_type, region_code, count(*) AS places FROM places GROUP BY 1, 2) p
         ON p.region_type = c.region_type AND p.region_code = c.region_code
 WHERE c.batch_name = :batch AND c.region_type = :type
 GROUP BY r.sido_name ORDER BY places DESC, r.sido_name
"""


# The ledger is read only for unfinished regions that have searches in it. Regions completed with
# this plan need none; those of the batch system have no plan and no ledger.
REMAINING_WORK = """
WITH regions AS (
    SELECT c.region_code, c.round, c.calls_used, c.status = 'COMPLETED'
        AND c.plan IS NULL AS legacy,
           (c.status = 'COMPLETED' OR c.refining) AND coalesce(c.plan, :plan) = :plan AS finished,
           c.searches_done > c.refinements AS begun, c.status = 'FAILED'
               AND c.retry_at IS NULL AS given_up,
           c.status = 'COMPLETED' AND c.promise = 0 AS refined,
           c.status = 'COMPLETED' AND c.promise = 0 AND c.failures > 0 AS lost
      FROM batch_checkpoint c
      JOIN region r ON r.region_type = c.region_type AND r.region_code = c.region_code
          AND r.status = 'ACTIVE' AND r.is_leaf
     WHERE c.batch_name = :batch AND c.region_type = :type
), done AS (
    SELECT q.region_code, count(*) AS searches
      FROM regions
      JOIN search_query q ON (q.batch_name, q.region_type, q.region_code, q.round)
                             = (:batch, :type, regions.region_code, regions.round)
     WHERE regions.begun AND NOT regions.finished
       AND q.stage = 'base' AND q.status <> 'FAILED' AND q.keyword = ANY(CAST(:words AS text[]))
     GROUP BY q.region_code
)
SELECT count(*) AS regions,
       coalesce(sum(greatest(:keywords - coalesce(done.searches, 0), 0))
                FILTER (WHERE NOT finished AND NOT given_up), 0)::int AS base,
       coalesce(sum(greatest(:calls_per_region - greatest(calls_used, :keywords), 0))
                FILTER (WHERE NOT legacy AND NOT given_up AND NOT refined), 0)::int AS refinement,
       count(*) FILTER (WHERE given_up) AS given_up_regions,
       coalesce(sum(greatest(:keywords - coalesce(done.searches, 0), 0)) FILTER (WHERE given_up),
                0)::int AS given_up_calls,
       count(*) FILTER (WHERE lost) AS refinement_given_up
  FROM regions LEFT JOIN done USING (region_code)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemainingWork:
    """Work that will be tried automatically, over `regions` regions: searches that base plans need,
    and the most that refinement may add. Work that errors ended is counted apart; only `mohe retry`
    restores it.
    """

    regions: int
    base: int
    refinement: int
    given_up_regions: int = 0
    given_up_calls: int = 0
    refinement_given_up: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedRegion:
    """A FAILED region; `retry_at` None means that only a person retries it."""

    region_code: str
    region_name: str
    failure_kind: str
    failures: int
    retry_at: dt.datetime | None
    error_message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """A run of batch_execution_metadata; `life` is 'alive' if its heartbeat is within the lease."""

    execution_id: str
    status: str
    start_time: dt.datetime
    end_time: dt.datetime | None
    heartbeat_at: dt.datetime | None
    total_regions: int
    completed_regions: int
    failed_regions: int
    note: str | None
    life: Literal["alive", "silent", "ended"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """Calls answered in the last `seconds` (a minute at most), and the time of the last answer."""

    calls: int
    seconds: float
    calls_per_second: float
    last_answer_at: dt.datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """Places; searches and calls of the regions' present rounds; the rate; the latest failed
    regions (20 at most), and the latest five runs with all unfinished ones (50 at most).
    """

    places: int
    searches: int
    calls: int
    rate: Rate
    failures: tuple[FailedRegion, ...]
    runs: tuple[RunRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SidoRow:
    """One province: its regions and the places whose address is in them."""

    sido_name: str
    regions: int
    completed: int
    places: int


def read_overview(database: Database, scope: Scope, *, lease_seconds: float) -> Overview:
    """Read everything in one transaction."""

    def work(connection: Connection) -> Overview:
        return Overview(
            **rows(connection, COUNTS, **scope.values)[0],
            rate=Rate(**rows(connection, RATE, **scope.values)[0]),
            failures=tuple(
                FailedRegion(**row) for row in rows(connection, FAILURES, **scope.values)
            ),
            runs=tuple(
                RunRow(**row)
                for row in rows(
                    connection, RUNS, batch=scope.batch_name, lease_seconds=lease_seconds
                )
            ),
        )

    return database.transaction(work)


def remaining_work(
    database: Database,
    scope: Scope,
    plan: Sequence[Search],
    calls_per_region: int,
) -> RemainingWork:
    """Return the remaining work, given the plan of any region."""
    values = {
        **scope.values,
        "keywords": len(plan),
        "words": [search.keyword for search in plan],
        "plan": plan_digest(plan),
        "calls_per_region": calls_per_region,
    }
    return RemainingWork(
        **database.transaction(lambda connection: rows(connection, REMAINING_WORK, **values))[0]
    )


def by_sido(database: Database, scope: Scope) -> list[SidoRow]:
    """Provinces by number of places."""
    return [
        SidoRow(**row)
        for row in database.transaction(
            lambda connection: rows(connection, BY_SIDO, **scope.values)
        )
    ]
