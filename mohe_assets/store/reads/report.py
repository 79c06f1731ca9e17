"""Data of the collection report: the state of every region, and the growth of calls and places."""

import datetime as dt
from dataclasses import dataclass

from mohe_assets.store.database import Database, Scope, rows

# Points of a curve; the picture cannot show more.
TIMELINE_POINTS = 240

REGIONS = """
SELECT c.region_code, c.region_name, r.sido_name, c.status, coalesce(p.places, 0) AS places,
       coalesce(c.failure_kind, '') AS failure_kind, c.failures, c.retry_at,
       coalesce(c.error_message, '') AS error_message
  FROM batch_checkpoint c
  JOIN region r ON r.region_type = c.region_type AND r.region_code = c.region_code
      AND r.status = 'ACTIVE' AND r.is_leaf
  LEFT JOIN (SELECT region_type, region_code, count(*) AS places FROM places GROUP BY 1, 2) p
         ON p.region_type = c.region_type AND p.region_code = c.region_code
 WHERE c.batch_name = :batch AND c.region_type = :type
 ORDER BY c.region_code
"""
TIMELINE = """
WITH made AS (
    SELECT coalesce(answered_at, created_at) AS at, calls, new_places
      FROM search_query WHERE batch_name = :batch AND region_type = :type
), span AS (
    SELECT min(at) AS first, greatest(extract(epoch FROM max(at) - min(at)), 1) / :points AS seconds
     FROM made
)
SELECT max(at) AS at, sum(calls)::bigint AS calls, sum(new_places)::bigint AS new_places
  FROM made, span
 GROUP BY floor(extract(epoch FROM at - first) / seconds)
 ORDER BY 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionRow:
    """A region with its checkpoint; `places` are those whose address is in it."""

    region_code: str
    region_name: str
    sido_name: str
    status: str
    places: int
    failure_kind: str
    failures: int
    retry_at: dt.datetime | None
    error_message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelineRow:
    """Calls made and places first found between the row before and `at`."""

    at: dt.datetime
    calls: int
    new_places: int


def read_regions(database: Database, scope: Scope) -> list[RegionRow]:
    """All regions that are collected, by code; abolished ones are history."""
    return [
        RegionRow(**row)
        for row in database.transaction(
            lambda connection: rows(connection, REGIONS, **scope.values)
        )
    ]


def read_timeline(database: Database, scope: Scope) -> list[TimelineRow]:
    """The whole time of collecting in a bounded number of steps."""
    values = {**scope.values, "points": TIMELINE_POINTS}
    return [
        TimelineRow(**row)
        for row in database.transaction(lambda connection: rows(connection, TIMELINE, **values))
    ]
