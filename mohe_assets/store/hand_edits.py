"""Rows that a person may have deleted or edited by hand. The next run repairs most; all are
counted.
"""

from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mohe_assets.store.database import Database, Scope, rows, statement
from mohe_assets.store.transitions import OURS

_LEAVES = "r.region_type = :type AND r.is_leaf AND r.status = 'ACTIVE'"
_CHECKPOINT = (
    "c.batch_name = :batch AND (c.region_type, c.region_code) = (r.region_type, r.region_code)"
)
_DONGS = "(d.region_type, d.region_code) = (r.region_type, r.region_code) AND d.status = 'ACTIVE'"
# The batch system's rows have attempt 0; ours have had a region when they were claimed.
HAND_EDITS = f"""
SELECT (SELECT count(*) FROM region r WHERE {_LEAVES}) AS regions,
       (SELECT count(*) FROM region r WHERE {_LEAVES}
           AND NOT EXISTS (SELECT FROM batch_checkpoint c
                            WHERE {_CHECKPOINT})) AS without_checkpoint,
       (SELECT count(*) FROM region r WHERE {_LEAVES} AND r.region_type = 'sigungu'
           AND NOT EXISTS (SELECT FROM legal_dong d WHERE {_DONGS})) AS without_dongs,
       (SELECT count(*) FROM region r
         WHERE r.region_type = :type AND r.is_leaf AND r.status = 'ABOLISHED'
           AND NOT EXISTS (SELECT FROM region_succession s
                            WHERE (s.region_type, s.old_code)
                                  = (r.region_type, r.region_code))) AS without_successor,
       count(*) FILTER (WHERE unknown.id IS NOT NULL AND c.attempt > 0) AS deleted_regions,
       count(*) FILTER (WHERE unknown.id IS NOT NULL AND c.attempt = 0) AS unknown_regions,
       count(*) FILTER (WHERE c.status = 'COMPLETED' AND c.searches_done > 0 AND NOT EXISTS (
           SELECT FROM search_query q
            WHERE (q.batch_name, q.region_type, q.region_code, q.round)
                  = (c.batch_name, c.region_type, c.region_code, c.round))) AS without_ledger
  FROM batch_checkpoint c
  LEFT JOIN LATERAL (SELECT c.id WHERE NOT EXISTS (
           SELECT FROM region r
            WHERE (r.region_type, r.region_code) = (c.region_type, c.region_code))) unknown ON true
 WHERE {OURS}
"""
# A ledger of a year is read in more time than a person waits for.
MISSING_PLACES = """
SELECT count(*) AS places
  FROM (SELECT DISTINCT unnest(place_ids) AS id FROM search_query WHERE region_type = :type) found
 WHERE NOT EXISTS (SELECT FROM places p WHERE p.id = found.id)
"""
MISSING_PLACES_SECONDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class HandEdits:
    """Rows that are missing or belong to nothing, by number of regions.

    `regions` are all that are to be collected. `deleted_regions` have a checkpoint of ours and no
    row in the table region; `unknown_regions` have never had one.
    """

    regions: int
    without_checkpoint: int
    without_dongs: int
    without_successor: int
    without_ledger: int
    deleted_regions: int
    unknown_regions: int

    @property
    def list_is_incomplete(self) -> bool:
        """A refresh brings back what is missing."""
        return bool(self.without_dongs or self.deleted_regions)


def read_hand_edits(database: Database, scope: Scope) -> HandEdits:
    """Return the edits by one statement, without reading answers."""
    return HandEdits(
        **database.transaction(lambda connection: rows(connection, HAND_EDITS, **scope.values))[0]
    )


def missing_places(database: Database, region_type: str) -> int | None:
    """Return the number of places that searches found and the table lacks; None if counting takes
    too long.
    """

    def work(connection: Connection) -> int:
        connection.execute(statement(f"SET LOCAL statement_timeout = '{MISSING_PLACES_SECONDS}s'"))
        return int(rows(connection, MISSING_PLACES, type=region_type)[0]["places"])

    try:
        return database.transaction(work)
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != "57014":  # query_canceled
            raise
        return None
