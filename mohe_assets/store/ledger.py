"""The ledger of searches and the places they found: one search is one transaction.

Storing a search upserts its places, writes its ledger row and advances the checkpoint, all or nothing. A search that is
DONE is never overwritten, so a repeat after an unclear commit changes nothing.
"""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from mohe_assets.attribution import RegionIndex
from mohe_assets.places import PlaceRecord, SetAside
from mohe_assets.promise import Tallies
from mohe_assets.refinement import Answered
from mohe_assets.search_plan import Search, Sort, Stage
from mohe_assets.store.checkpoints import Checkpoints, Lease, lease_lost
from mohe_assets.store.database import Refusal, rows, statement


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


class ListChanged(Exception):
    """Another list of regions was taken over since the places were given theirs: nothing was stored."""


def attributed(places: Sequence[PlaceRecord], regions: RegionIndex) -> list[AttributedPlace]:
    """Each place with the region of its address."""
    return [AttributedPlace(place=place, region_code=regions.region_of(place.address)) for place in places]


UPSERT_NEW_PLACES = "SELECT upsert_new_places(CAST(:places AS jsonb), :source, :type, :seen)"


def upsert_new_places(
    connection: Connection, places: Sequence[AttributedPlace], *, source: str, region_type: str, seen: dt.datetime
) -> None:
    """Into a replay's temporary table `new_places`, by the rules of `places`."""
    if places:
        values = {"places": _as_columns(places), "source": source, "type": region_type, "seen": seen}
        connection.execute(statement(UPSERT_NEW_PLACES), values)


def _as_columns(places: Sequence[AttributedPlace]) -> str:
    """JSON of the places with the names of the table's columns, as sql/008_every_search.sql reads them."""
    return _json([_columns(one.place, one.region_code) for one in places])


def _columns(place: PlaceRecord, region_code: str | None) -> dict[str, object]:
    return {
        "naver_place_id": place.place_key,
        "name": place.name,
        "category": place.category,
        "address": place.address,
        "road_address": place.road_address,
        "latitude": str(place.latitude),
        "longitude": str(place.longitude),
        "phone": place.phone,
        "website_url": place.website_url,
        "region_code": region_code,
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def as_noted(set_aside: Sequence[SetAside]) -> list[dict[str, object]]:
    """As the ledger's column `set_aside` keeps it."""
    return [{"position": one.position, "reason": one.reason.value} for one in set_aside]


_STORED = (
    "batch", "type", "code", "round", "attempt", "run_id", "lease_seconds", "source", "query", "sort", "keyword", "dong_name",
    "stage", "status", "calls", "list", "places", "result_count", "strays", "set_aside", "answer", "answered_at", "error",
)  # fmt: skip
STORE_SEARCH = f"SELECT store_search({', '.join(f'p_{name} => %({name})s' for name in _STORED)})"
LIST_HAS_CHANGED, LEASE_IS_LOST = "MH001", "MH002"

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

    def store(self, lease: Lease, stored: StoredSearch, *, list_version: int | None = None) -> tuple[int, ...]:
        """Places, ledger row and checkpoint of one answered search, all or nothing; returns the places' ids in the answer's
        order. Raises LeaseLost, and ListChanged if the regions of `list_version`, by which the places were given theirs,
        are not those of now.
        """
        return self._write(
            lease,
            stored.search,
            status="DONE",
            calls=stored.calls,
            list=list_version,
            places=_as_columns(stored.places),
            result_count=stored.result_count,
            strays=sum(one.region_code != lease.region_code for one in stored.places),
            set_aside=_json(as_noted(stored.set_aside)),
            answer=_json(stored.answer),
            answered_at=stored.answered_at,
        )

    def skip(self, lease: Lease, search: Search, *, calls: int, reason: str) -> None:
        """The API refuses this query for good: it counts as finished, with its reason. Raises LeaseLost."""
        self._write(lease, search, status="SKIPPED", calls=calls, error=reason)

    def failed(self, lease: Lease, search: Search, *, calls: int, reason: str) -> None:
        """The search is still to be done, but what it cost is kept. Raises LeaseLost."""
        self._write(lease, search, status="FAILED", calls=calls, error=reason)

    def _write(self, lease: Lease, search: Search, **columns: object) -> tuple[int, ...]:
        values: dict[str, object] = {
            "list": None, "places": None, "result_count": None, "strays": 0, "set_aside": "[]", "answer": None,
            "answered_at": None, "error": None, "attempt": lease.attempt, "run_id": self.run_id,
            "lease_seconds": self.checkpoints.lease_seconds, "query": search.query, "sort": search.sort.value,
            "keyword": search.keyword, "dong_name": search.dong_name, "stage": search.stage.value,
        }  # fmt: skip
        try:
            ((place_ids,),) = self.checkpoints.database.call(STORE_SEARCH, **{**values, **self._key(lease), **columns})
        except Refusal as refusal:
            if refusal.code == LIST_HAS_CHANGED:
                raise ListChanged from None
            if refusal.code == LEASE_IS_LOST:
                raise lease_lost(lease) from None
            raise
        return tuple(place_ids)

    def _key(self, lease: Lease) -> dict[str, object]:
        return {
            "batch": self.checkpoints.batch_name, "type": self.checkpoints.region_type, "code": lease.region_code,
            "round": lease.round, "source": self.source,
        }  # fmt: skip
