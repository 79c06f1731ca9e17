"""The ledger of searches and the places they found: one search is one transaction.

Storing a search upserts its places, writes its ledger row and advances the checkpoint, all or nothing. A search that is
DONE is never overwritten, so a repeat after an unclear commit changes nothing.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg2.extras import Json
from sqlalchemy import Connection, text

from mohe_assets.attribution import RegionIndex
from mohe_assets.places import PlaceRecord, SetAside
from mohe_assets.promise import Tallies
from mohe_assets.refinement import Answered
from mohe_assets.search_plan import Search, Sort, Stage
from mohe_assets.store.checkpoints import Checkpoints, Lease
from mohe_assets.store.database import rows
from mohe_assets.store.lifecycle import HOLD_LIST


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributedPlace:
    """A place and the region of its address (None: the address names no known region)."""

    place: PlaceRecord
    region_code: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSearch:
    """What one answered search brings to the database. `answer` is the body as it came."""

    search: Search
    answer: dict[str, Any]
    result_count: int
    calls: int
    places: Sequence[AttributedPlace]
    set_aside: Sequence[SetAside]
    answered_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))


def attributed(places: Sequence[PlaceRecord], regions: RegionIndex) -> list[AttributedPlace]:
    """Each place with the region of its address."""
    return [AttributedPlace(place=place, region_code=regions.region_of(place.address)) for place in places]


_KEPT_IF_LEFT_OUT = ("road_address", "phone", "website_url")
_ITS_TEXT = ("name", "category", "address", *_KEPT_IF_LEFT_OUT)
_ORDER = ("last_seen_at", *_ITS_TEXT)
_NEWER = f"({', '.join(f'excluded.{name}' for name in _ORDER)}) > ({', '.join(f'known.{name}' for name in _ORDER)})"


def _choose(column: str) -> str:
    new, old = f"excluded.{column}", f"known.{column}"
    if column in _KEPT_IF_LEFT_OUT:
        new, old = f"coalesce(nullif({new}, ''), {old})", f"coalesce(nullif({old}, ''), {new})"
    elif column == "region_code":
        new, old = f"coalesce({new}, {old})", f"coalesce({old}, {new})"
    return f"{column} = CASE WHEN {_NEWER} THEN {new} ELSE {old} END"


# A run may know an older list than the database: a code that is no leaf any more is not written, whatever it knows.
# Whatever order answers are stored in, the newest wins, and of two at the same moment the one whose text sorts last. What
# it leaves out is kept of the other; that alone remembers no moment, so three answers of which the newest leaves something
# out have to come in order to agree on it.
UPSERT_PLACES = f"""
INSERT INTO %s AS known (naver_place_id, name, category, address, road_address, latitude, longitude, phone,
                         website_url, region_code, source, region_type, first_seen_at, last_seen_at)
SELECT p.key, p.name, p.category, p.address, p.road, p.latitude, p.longitude, p.phone, p.website,
       (SELECT r.region_code FROM region r WHERE r.region_type = :type AND r.region_code = p.region AND r.status = 'ACTIVE'
           AND r.is_leaf),
       CAST(:source AS text), CAST(:type AS text), CAST(:seen AS timestamptz), CAST(:seen AS timestamptz)
  FROM unnest(CAST(:keys AS text[]), CAST(:names AS text[]), CAST(:categories AS text[]), CAST(:addresses AS text[]),
              CAST(:roads AS text[]), CAST(:latitudes AS numeric[]), CAST(:longitudes AS numeric[]),
              CAST(:phones AS text[]), CAST(:websites AS text[]), CAST(:regions AS text[]))
       AS p (key, name, category, address, road, latitude, longitude, phone, website, region)
ON CONFLICT (naver_place_id) DO UPDATE
   SET {", ".join(_choose(column) for column in (*_ITS_TEXT, "region_code"))},
       first_seen_at = least(known.first_seen_at, excluded.first_seen_at),
       last_seen_at = greatest(known.last_seen_at, excluded.last_seen_at)
RETURNING known.id, known.naver_place_id, (known.xmax = 0) AS is_new
"""


def upsert_places(
    connection: Connection,
    places: Sequence[AttributedPlace],
    *,
    source: str,
    region_type: str,
    seen: dt.datetime,
    table: str = "places",
) -> list[dict[str, Any]]:
    """id, naver_place_id and is_new of each place. `table` is `places`, or one of the same columns."""
    if not places:
        return []
    # By key, so that two searches with common places lock them in the same order.
    places = sorted(places, key=lambda one: one.place.place_key)
    return rows(connection, UPSERT_PLACES % table, **_columns(places), source=source, type=region_type, seen=seen)


def _columns(places: Sequence[AttributedPlace]) -> dict[str, object]:
    records = [one.place for one in places]
    return {
        "keys": [record.place_key for record in records],
        "names": [record.name for record in records],
        "categories": [record.category for record in records],
        "addresses": [record.address for record in records],
        "roads": [record.road_address for record in records],
        "latitudes": [record.latitude for record in records],
        "longitudes": [record.longitude for record in records],
        "phones": [record.phone for record in records],
        "websites": [record.website_url for record in records],
        "regions": [one.region_code for one in places],
    }


def set_aside_json(set_aside: Sequence[SetAside]) -> Json:
    """As the ledger's column `set_aside` keeps it."""
    return Json([{"position": one.position, "reason": one.reason.value} for one in set_aside])


WRITE_LEDGER = """
INSERT INTO search_query AS known
       (batch_name, region_type, region_code, round, source, query, sort, keyword, dong_name, stage, status, attempt,
        run_id, calls, result_count, place_ids, novel, new_places, strays, set_aside, answer, error_message, answered_at)
VALUES (:batch, :type, :code, :round, :source, :query, :sort, :keyword, :dong_name, :stage, :status, :attempt,
        :run_id, :calls, :result_count, CAST(:place_ids AS bigint[]),
        (SELECT count(DISTINCT p) FROM unnest(CAST(:place_ids AS bigint[])) p
          WHERE NOT EXISTS (SELECT FROM search_query q
                             WHERE q.batch_name = :batch AND q.region_type = :type AND q.region_code = :code
                               AND q.round = :round AND p = ANY(q.place_ids))), :new_places, :strays, :set_aside, :answer,
        :error_message, :answered_at)
ON CONFLICT (batch_name, region_type, region_code, round, source, query, sort) DO UPDATE
   SET status = excluded.status, attempt = excluded.attempt, run_id = excluded.run_id,
       calls = known.calls + excluded.calls, result_count = excluded.result_count, place_ids = excluded.place_ids,
       novel = excluded.novel, new_places = excluded.new_places, strays = excluded.strays, set_aside = excluded.set_aside,
       answer = excluded.answer, error_message = excluded.error_message, answered_at = excluded.answered_at
 WHERE known.status = 'FAILED'
"""

DONE = """
SELECT query, sort FROM search_query
 WHERE batch_name = :batch AND region_type = :type AND region_code = :code AND round = :round AND source = :source
   AND status <> 'FAILED'
"""
HISTORY = """
SELECT q.query, q.sort, q.keyword, q.stage, q.dong_name, coalesce(q.result_count, 0) AS result_count, q.place_ids,
       ARRAY(SELECT p.category FROM unnest(q.place_ids) WITH ORDINALITY AS found (id, position)
               JOIN places p ON p.id = found.id ORDER BY found.position) AS categories
  FROM search_query q
 WHERE q.batch_name = :batch AND q.region_type = :type AND q.region_code = :code AND q.round = :round AND q.source = :source
   AND q.status <> 'FAILED'
 ORDER BY q.answered_at, q.id
"""
TALLIES = """
SELECT stage, keyword, count(*) AS calls, sum(novel) AS new FROM search_query
 WHERE batch_name = :batch AND region_type = :type AND source = :source AND status = 'DONE' AND stage <> 'base'
 GROUP BY stage, keyword
"""
CALLS_SPENT = """
SELECT coalesce(sum(calls), 0)::int AS calls FROM search_query
 WHERE batch_name = :batch AND region_type = :type AND region_code = :code AND round = :round
"""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The searches of one run. `source` names the place source they were made with."""

    checkpoints: Checkpoints
    source: str
    run_id: str

    def done(self, lease: Lease) -> tuple[frozenset[tuple[str, str]], int]:
        """(query, sort) of the region's finished searches in this round, and the calls spent on it so far."""

        def work(connection: Connection) -> tuple[frozenset[tuple[str, str]], int]:
            found = rows(connection, DONE, **self._key(lease))
            calls = rows(connection, CALLS_SPENT, **self._key(lease))[0]["calls"]
            return frozenset((row["query"], row["sort"]) for row in found), calls

        return self.checkpoints.database.transact(work)

    def history(self, lease: Lease) -> list[Answered]:
        """The region's finished searches of this round, in the order in which they were made."""
        found = self.checkpoints.database.transact(lambda connection: rows(connection, HISTORY, **self._key(lease)))
        return [
            Answered(
                query=row["query"],
                sort=Sort(row["sort"]),
                keyword=row["keyword"],
                stage=Stage(row["stage"]),
                dong_name=row["dong_name"],
                result_count=row["result_count"],
                place_ids=tuple(row["place_ids"]),
                categories=tuple(row["categories"]),
            )
            for row in found
        ]

    def tallies(self) -> Tallies:
        """What refinements brought nationwide so far, by stage and keyword: calls and places new to their region and round."""
        values = {"batch": self.checkpoints.batch_name, "type": self.checkpoints.region_type, "source": self.source}
        found = self.checkpoints.database.transact(lambda connection: rows(connection, TALLIES, **values))
        return {(Stage(row["stage"]), row["keyword"]): (row["calls"], row["new"]) for row in found}

    def store(self, lease: Lease, stored: StoredSearch) -> tuple[int, ...]:
        """Places, ledger row and checkpoint of one answered search, all or nothing; returns the places' ids in the answer's
        order. Raises LeaseLost.
        """

        def work(connection: Connection) -> tuple[int, ...]:
            connection.execute(text(HOLD_LIST))
            found = upsert_places(
                connection,
                stored.places,
                source=self.source,
                region_type=self.checkpoints.region_type,
                seen=stored.answered_at,
            )
            ids = {row["naver_place_id"]: row["id"] for row in found}
            place_ids = [ids[one.place.place_key] for one in stored.places]
            self._write(
                connection,
                lease,
                stored.search,
                status="DONE",
                calls=stored.calls,
                result_count=stored.result_count,
                place_ids=place_ids,
                new_places=sum(bool(row["is_new"]) for row in found),
                strays=sum(one.region_code != lease.region_code for one in stored.places),
                set_aside=set_aside_json(stored.set_aside),
                answer=Json(stored.answer),
                answered_at=stored.answered_at,
            )
            return tuple(place_ids)

        return self.checkpoints.database.transact(work)

    def skip(self, lease: Lease, search: Search, *, calls: int, reason: str) -> None:
        """The API refuses this query for good: it counts as finished, with its reason. Raises LeaseLost."""
        self.checkpoints.database.transact(
            lambda connection: self._write(connection, lease, search, status="SKIPPED", calls=calls, error_message=reason)
        )

    def failed(self, lease: Lease, search: Search, *, calls: int, reason: str) -> None:
        """The search is still to be done, but what it cost is kept. Raises LeaseLost."""
        self.checkpoints.database.transact(
            lambda connection: self._write(connection, lease, search, status="FAILED", calls=calls, error_message=reason)
        )

    def _write(self, connection: Connection, lease: Lease, search: Search, **columns: object) -> None:
        values: dict[str, object] = {
            "result_count": None, "place_ids": [], "new_places": 0, "strays": 0, "set_aside": Json([]), "answer": None,
            "error_message": None, "answered_at": None,
        }  # fmt: skip
        values |= {"query": search.query, "sort": search.sort.value, "keyword": search.keyword}
        values |= {"dong_name": search.dong_name, "stage": search.stage.value, "attempt": lease.attempt}
        values |= {"run_id": self.run_id, **self._key(lease), **columns}
        connection.execute(text(WRITE_LEDGER), values)
        self.checkpoints.advance(connection, lease)

    def _key(self, lease: Lease) -> dict[str, object]:
        return {
            "batch": self.checkpoints.batch_name, "type": self.checkpoints.region_type, "code": lease.region_code,
            "round": lease.round, "source": self.source,
        }  # fmt: skip
