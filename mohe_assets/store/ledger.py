"""The ledger of searches and the places they found: a search is stored all or nothing, several in
one transaction.

Storing a search upserts its places, writes its ledger row and advances the checkpoint. Searches
that are stored together share a commit; no caller gets its result before it, and a search that
cannot be stored does not prevent the others. A DONE search is never overwritten, so a repeat after
an unclear commit changes nothing.
"""

import datetime as dt
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

import psycopg2
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mohe_assets.domain.attribution import RegionIndex
from mohe_assets.domain.places import PlaceRecord, RejectedItem
from mohe_assets.domain.search_plan import Answered, Search, Tallies
from mohe_assets.store.checkpoints import Checkpoints, Lease, lease_lost
from mohe_assets.store.database import Refusal, rows, statement


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributedPlace:
    """A place and its region; None if neither its addresses nor its point determine it."""

    place: PlaceRecord
    region_code: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSearch:
    """The data of an answered search. `answer` is the body as received."""

    search: Search
    answer: dict[str, Any]
    result_count: int
    calls: int
    places: Sequence[AttributedPlace]
    set_aside: Sequence[RejectedItem]
    answered_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))


class ListChanged(Exception):
    """Another list of regions was taken over since the places were attributed: nothing was
    stored.
    """


def attributed(places: Sequence[PlaceRecord], regions: RegionIndex) -> list[AttributedPlace]:
    """Return each place with its region."""
    return [
        AttributedPlace(
            place=place,
            region_code=regions.region_of(
                place.address,
                road_address=place.road_address,
                point=(place.latitude, place.longitude),
            ),
        )
        for place in places
    ]


UPSERT_NEW_PLACES = "SELECT upsert_new_places(CAST(:searches AS jsonb), :source, :type)"


def upsert_new_places(
    connection: Connection,
    places: Sequence[AttributedPlace],
    *,
    source: str,
    region_type: str,
    seen: dt.datetime,
) -> None:
    """Upsert into a replay's temporary table `new_places`, by the rules of `places`."""
    if places:
        searches = _json([{"answered_at": seen.isoformat(), "places": _as_columns(places)}])
        connection.execute(
            statement(UPSERT_NEW_PLACES),
            {"searches": searches, "source": source, "type": region_type},
        )


def _as_columns(places: Sequence[AttributedPlace]) -> list[dict[str, object]]:
    """Return places with the table's column names, for sql/009_searches_together.sql."""
    return [
        {
            "naver_place_id": one.place.place_key,
            "name": one.place.name,
            "category": one.place.category,
            "address": one.place.address,
            "road_address": one.place.road_address,
            "latitude": str(one.place.latitude),
            "longitude": str(one.place.longitude),
            "phone": one.place.phone,
            "website_url": one.place.website_url,
            "region_code": one.region_code,
        }
        for one in places
    ]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def as_noted(set_aside: Sequence[RejectedItem]) -> list[dict[str, object]]:
    """Return the value of the ledger's column `set_aside`."""
    return [{"position": one.position, "reason": one.reason.value} for one in set_aside]


STORE_SEARCHES = """
SELECT store_search_results(p_batch => %(batch)s, p_type => %(type)s, p_run_id => %(run_id)s,
                            p_lease_seconds => %(lease_seconds)s, p_source => %(source)s,
                            p_searches => %(searches)s)
"""
LIST_HAS_CHANGED, LEASE_IS_LOST = "MH001", "MH002"

BEGUN = """
SELECT q.region_code, q.source, q.status, q.calls, q.query, q.sort, q.keyword, q.stage, q.dong_name,
       coalesce(q.result_count, 0) AS result_count, q.place_ids, q.failed_rounds,
       ARRAY(SELECT p.category FROM unnest(q.place_ids) WITH ORDINALITY AS found (id, position)
               JOIN places p ON p.id = found.id ORDER BY found.position) AS categories
  FROM unnest(CAST(:codes AS text[]), CAST(:rounds AS integer[])) AS held (code, round)
  JOIN search_query q ON q.batch_name = :batch AND q.region_type = :type
      AND q.region_code = held.code AND q.round = held.round
 ORDER BY q.answered_at, q.id
"""
TALLIES = """
SELECT stage, keyword, count(*) AS calls, sum(novel) AS new FROM search_query
 WHERE batch_name = :batch AND region_type = :type AND source = :source AND status = 'DONE'
   AND stage <> 'base'
 GROUP BY stage, keyword
"""
# A region that is held by this attempt; its ledger may be changed.
_HELD = """EXISTS (SELECT FROM batch_checkpoint c
                WHERE (c.batch_name, c.region_type, c.region_code, c.attempt, c.status)
                      = (:batch, :type, :code, :attempt, 'PROCESSING'))"""
_ITS_SEARCHES = (
    "(q.batch_name, q.region_type, q.region_code, q.round) = (:batch, :type, :code, :round)"
)
# A search that failed while others were answered is made again, or skipped with its reason: when it
# failed often enough, or at once if the API refuses the query.
COUNT_FAILURES = f"""
UPDATE search_query q
   SET failed_rounds = q.failed_rounds + 1,
       status = CASE WHEN f.refused OR q.failed_rounds + 1 >= :max_attempts THEN 'SKIPPED'
           ELSE 'FAILED' END,
       answered_at = coalesce(q.answered_at, now())
  FROM jsonb_to_recordset(CAST(:failed AS jsonb)) AS f (query text, sort text, refused boolean)
 WHERE {_ITS_SEARCHES} AND (q.query, q.sort, q.source) = (f.query, f.sort, :source)
   AND q.status = 'FAILED' AND {_HELD}
"""
SKIPPED = f"""
SELECT count(*) AS skipped FROM search_query q
 WHERE {_ITS_SEARCHES} AND q.stage = 'base' AND q.status = 'SKIPPED'
"""
# Searches without a place are made again; the answer is kept until then.
ASK_AGAIN = f"""
UPDATE search_query q SET status = 'FAILED', error_message = :reason
 WHERE {_ITS_SEARCHES} AND q.source = :source AND q.status <> 'FAILED' AND q.place_ids = '{{}}'
   AND {_HELD}
"""
# Repeated, it shows whether the API is at fault: it had as many places as an answer has.
KNOWN_SEARCH = """
SELECT query, sort, keyword, stage, dong_name FROM search_query
 WHERE source = :source AND status = 'DONE' AND cardinality(place_ids) > 2 AND region_code <> :code
 ORDER BY answered_at DESC LIMIT 1
"""


class Begun(NamedTuple):
    """A region's round so far: its finished searches in order, all calls, and failed searches."""

    history: list[Answered]
    calls: int
    failed: set[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedSearch:
    """A search that failed, with its retries, after `calls` calls.

    `failed_at` is on the monotonic clock; `refused`: the API refuses this query for good.
    """

    search: Search
    failed_at: float
    reason: str
    calls: int
    refused: bool
    answer_changed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """A search to be stored. `stored` is set when it is DONE, `reason` otherwise.

    `list_version` is the list of regions by which its places were attributed; None: the current
    list.
    """

    lease: Lease
    search: Search
    status: Literal["DONE", "SKIPPED", "FAILED"]
    calls: int
    stored: StoredSearch | None = None
    reason: str | None = None
    list_version: int | None = None

    @classmethod
    def done(cls, lease: Lease, stored: StoredSearch, *, list_version: int | None = None) -> Self:
        """The search was answered."""
        return cls(
            lease=lease,
            search=stored.search,
            status="DONE",
            calls=stored.calls,
            stored=stored,
            list_version=list_version,
        )

    @classmethod
    def skipped(cls, lease: Lease, search: Search, *, calls: int, reason: str) -> Self:
        """The API refuses this query for good: it counts as finished, with its reason."""
        return cls(lease=lease, search=search, status="SKIPPED", calls=calls, reason=reason)

    @classmethod
    def failed(cls, lease: Lease, search: Search, *, calls: int, reason: str) -> Self:
        """The search is still to be made, but its cost is kept."""
        return cls(lease=lease, search=search, status="FAILED", calls=calls, reason=reason)


# The ids of a stored search's places in its answer's order, or the reason it was not stored.
Written = tuple[int, ...] | Exception


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The searches of one run. `source` is the name of their source."""

    checkpoints: Checkpoints
    source: str
    run_id: str

    def begun(self, leases: Collection[Lease]) -> dict[str, Begun]:
        """Return the round so far, by region code."""
        found = {lease.region_code: Begun([], 0, set()) for lease in leases}
        held = {
            "codes": [lease.region_code for lease in leases],
            "rounds": [lease.round for lease in leases],
        }
        for row in self._read(BEGUN, **held) if leases else ():
            begun = found[row["region_code"]]
            if row["source"] == self.source and row["status"] == "FAILED":
                begun.failed.add((row["query"], row["sort"]))
            elif row["source"] == self.source:
                begun.history.append(
                    Answered(
                        query=row["query"],
                        sort=row["sort"],
                        keyword=row["keyword"],
                        stage=row["stage"],
                        dong_name=row["dong_name"],
                        result_count=row["result_count"],
                        place_ids=tuple(row["place_ids"]),
                        categories=tuple(row["categories"]),
                    )
                )
            found[row["region_code"]] = begun._replace(calls=begun.calls + row["calls"])
        return found

    def tallies(self) -> Tallies:
        """Return the calls and new places of refinement nationwide, by stage and keyword.

        New means new to the region and round.
        """
        found = self._read(TALLIES, source=self.source)
        return {(row["stage"], row["keyword"]): (row["calls"], row["new"]) for row in found}

    def count_failures(self, lease: Lease, failed: Sequence[FailedSearch]) -> int:
        """Count an attempt for each of these searches; return how many of the base plan are skipped
        for good.
        """
        values = {
            "code": lease.region_code,
            "round": lease.round,
            "attempt": lease.attempt,
            "source": self.source,
            "max_attempts": self.checkpoints.max_attempts,
            "failed": _json(
                [
                    {
                        "query": one.search.query,
                        "sort": one.search.sort,
                        "refused": one.refused,
                    }
                    for one in failed
                ]
            ),
        }

        def work(connection: Connection) -> int:
            if failed:
                connection.execute(
                    statement(COUNT_FAILURES), {**self.checkpoints.scope.values, **values}
                )
            return int(
                rows(connection, SKIPPED, **self.checkpoints.scope.values, **values)[0]["skipped"]
            )

        return self.checkpoints.database.transaction(work)

    def ask_again(self, lease: Lease, reason: str) -> None:
        """Have the searches of this round without a place made again."""
        values = {
            "code": lease.region_code,
            "round": lease.round,
            "attempt": lease.attempt,
            "source": self.source,
        }

        def work(connection: Connection) -> None:
            connection.execute(
                statement(ASK_AGAIN), {**self.checkpoints.scope.values, **values, "reason": reason}
            )

        self.checkpoints.database.transaction(work)

    def known_search(self, *, without: str) -> Search | None:
        """Return the latest search of another region that was answered with places, or None."""
        found = self._read(KNOWN_SEARCH, source=self.source, code=without)
        return Search(**found[0]) if found else None

    def write_all(self, writes: Sequence[Write]) -> list[Written]:
        """Store these searches, in one transaction if all can be stored; return the result of each.

        A result is the ids of the places, or the reason it was not stored: LeaseLost, ListChanged,
        or its own error when stored alone. The others are stored in any case. Raises
        DatabaseUnavailable and NotPermitted.
        """
        results: dict[int, Written] = {}
        while left := [number for number in range(len(writes)) if number not in results]:
            try:
                results |= zip(left, self._store([writes[number] for number in left]), strict=True)
            except Refusal as refusal:
                refused = {
                    number: reason
                    for number in left
                    if (reason := _refused(writes[number], refusal))
                }
                if not refused:
                    raise
                results |= refused
            except (
                psycopg2.Error,
                DBAPIError,
                ValueError,
            ) as error:  # ValueError: text that cannot be sent at all
                results |= (
                    {left[0]: error}
                    if len(left) == 1
                    else {number: self.write_all([writes[number]])[0] for number in left}
                )
        return [results[number] for number in range(len(writes))]

    def _store(self, writes: Sequence[Write]) -> list[tuple[int, ...]]:
        found = self.checkpoints.database.call(
            STORE_SEARCHES,
            **self.checkpoints.scope.values,
            run_id=self.run_id,
            lease_seconds=self.checkpoints.lease_seconds,
            source=self.source,
            searches=_json([_as_search(write) for write in writes]),
        )
        return [tuple(place_ids) for (place_ids,) in found]

    def _read(self, sql: str, **values: object) -> list[dict[str, Any]]:
        return self.checkpoints.database.transaction(
            lambda connection: rows(connection, sql, **self.checkpoints.scope.values, **values)
        )


def _refused(write: Write, refusal: Refusal) -> Exception | None:
    """Return the reason this search was not stored, if the refusal concerns it."""
    if refusal.code == LIST_HAS_CHANGED and write.list_version is not None:
        return ListChanged()
    held = f"{write.lease.region_code}:{write.lease.attempt}"  # as in the error's DETAIL
    if refusal.code == LEASE_IS_LOST and held in refusal.detail.split(","):
        return lease_lost(write.lease)
    return None


def _as_search(write: Write) -> dict[str, object]:
    """Return an element of `p_searches`, for sql/009_searches_together.sql."""
    lease, search, stored = write.lease, write.search, write.stored
    answered: dict[str, object] = {"strays": 0, "set_aside": []}
    if stored is not None:
        answered = {
            "places": _as_columns(stored.places),
            "result_count": stored.result_count,
            "strays": sum(one.region_code != lease.region_code for one in stored.places),
            "set_aside": as_noted(stored.set_aside),
            "answer": stored.answer,
            "answered_at": stored.answered_at.isoformat(),
        }
    return {
        "code": lease.region_code,
        "round": lease.round,
        "attempt": lease.attempt,
        "query": search.query,
        "sort": search.sort,
        "keyword": search.keyword,
        "dong_name": search.dong_name,
        "stage": search.stage,
        "status": write.status,
        "calls": write.calls,
        "error": write.reason,
        "list": write.list_version,
        **answered,
    }
