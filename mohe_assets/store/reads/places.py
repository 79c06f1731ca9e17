"""Reads the places for publication: all of them in one snapshot, a batch at a time."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, text

from mohe_assets.store.database import Database, rows

BATCH_ROWS = 10_000

# The count and the latest change alone would miss a row whose transaction began before the last one
# counted and ended after it: updated_at is the time a transaction begins. The sum sees it. Renamed
# regions change what is published, too.
DIGEST = """
SELECT count(*) AS places, max(updated_at) AS last_change,
       md5(concat_ws(' ', count(*), max(extract(epoch FROM updated_at)),
                     sum(extract(epoch FROM updated_at)),
           (SELECT string_agg(concat_ws('|', region_type, region_code, region_name, sido_name), ','
                              ORDER BY region_type, region_code) FROM region))) AS digest
  FROM places
"""
# "C": byte order, independent of the server's language.
PLACES = """
SELECT p.naver_place_id, p.name, p.category, p.address, p.road_address,
       p.latitude::float8 AS latitude,
       p.longitude::float8 AS longitude, p.phone, p.website_url, p.region_code, r.region_name,
       r.sido_name,
       p.first_seen_at, p.last_seen_at
  FROM places p LEFT JOIN region r USING (region_type, region_code)
 ORDER BY p.naver_place_id COLLATE "C"
"""
# The session idles while a batch is written; five seconds, which is meant for frozen processes, may
# be short on a slow disk.
PATIENCE = "SET LOCAL idle_in_transaction_session_timeout = '60s'"

Batches = Iterator[list[dict[str, Any]]]
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacesDigest:
    """Equal digests mean that no published value changed."""

    places: int
    last_change: dt.datetime | None
    digest: str


def read_digest(database: Database) -> PlacesDigest:
    """One pass over the places; a million take about a second."""
    return database.transaction(_digest, unlimited=True)


def read_places(database: Database, consume: Callable[[PlacesDigest, Batches], _T]) -> _T:
    """Return the result of `consume` on all places by `naver_place_id`, and their digest in the
    same snapshot. `consume` starts again when the connection is lost.
    """

    def work(connection: Connection) -> _T:
        connection.execute(text(PATIENCE))
        return consume(_digest(connection), _batches(connection))

    return database.transaction(work, unlimited=True, snapshot=True)


def _digest(connection: Connection) -> PlacesDigest:
    return PlacesDigest(**rows(connection, DIGEST)[0])


def _batches(connection: Connection) -> Batches:
    streaming = {"stream_results": True, "yield_per": BATCH_ROWS}
    with connection.execute(text(PLACES), execution_options=streaming) as result:
        for batch in result.mappings().partitions(BATCH_ROWS):
            yield [dict(row) for row in batch]
