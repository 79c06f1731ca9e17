"""A few real regions with their checkpoints, ledger and runs."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Self

from sqlalchemy import Connection, text

from mohe_assets.domain.places import PlaceRecord, RejectedItem
from mohe_assets.domain.regions import RegionList, bundled_snapshot, compare
from mohe_assets.domain.search_plan import Search
from mohe_assets.errors import FailureKind
from mohe_assets.sources.naver_local.plan import base_plan
from mohe_assets.store.checkpoints import Checkpoints, Completion, Lease, PlanDone
from mohe_assets.store.database import Database, Scope, rows
from mohe_assets.store.executions import Executions
from mohe_assets.store.ledger import AttributedPlace, Ledger, StoredSearch, Write
from mohe_assets.store.regions import Regions

KEYWORDS = ("카페", "공원")
CODES = ("11110", "11140", "11170", "11680", "36110", "41111")
BATCH, TYPE = "place-ingestion-batch", "sigungu"
SCOPE = Scope(batch_name=BATCH, region_type=TYPE)
ANSWERED = dt.datetime(2026, 11, 23, 3, tzinfo=dt.UTC)
LATER = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


def place(key: str, **changes: Any) -> PlaceRecord:
    record = PlaceRecord(
        place_key=key,
        name=key,
        category="카페",
        address="서울특별시 강남구 역삼동 1",
        road_address="",
        phone="",
        website_url="",
        latitude=Decimal("37.5"),
        longitude=Decimal("127.0"),
    )
    return replace(record, **changes)


@dataclass(frozen=True, kw_only=True)
class Store:
    """The stores of one batch over a few real regions, with a minute's lease."""

    database: Database
    checkpoints: Checkpoints
    executions: Executions

    @classmethod
    def of(cls, database: Database, codes: Sequence[str] = CODES) -> Self:
        """The regions with these codes, active and PENDING."""
        checkpoints = Checkpoints(
            database=database,
            scope=SCOPE,
            lease_seconds=60,
            max_attempts=3,
            backoff_seconds=60,
        )
        store = cls(
            database=database,
            checkpoints=checkpoints,
            executions=Executions(database=database, scope=SCOPE, lease_seconds=60),
        )
        store.take_over(codes)
        return store

    def take_over(self, codes: Sequence[str]) -> int:
        """The list becomes these regions alone; returns how many checkpoints are new."""
        snapshot = bundled_snapshot()
        kept = tuple(region for region in snapshot.regions if region.region_code in codes)
        listed = RegionList(
            regions=kept, dongs=(), as_of=snapshot.as_of, source="api", rows=len(kept)
        )
        regions = Regions(database=self.database, region_type=TYPE)
        changes = compare(regions.leaf_names(), listed)

        def work(connection: Connection) -> int:
            regions.replace(connection, listed, changes, calls=1, note=None)
            return self.checkpoints.seed(connection)

        return self.database.transaction(work)

    def read(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        return self.database.transaction(lambda connection: rows(connection, sql, **values))

    def execute(self, sql: str, **values: Any) -> None:
        def work(connection: Connection) -> None:
            connection.execute(text(sql), values)

        self.database.transaction(work)

    def row(self, code: str = "11680") -> dict[str, Any]:
        return self.read("SELECT * FROM batch_checkpoint WHERE region_code = :code", code=code)[0]

    def claim(self, code: str = "11680", run_id: str = "run", **how: Any) -> Lease:
        (lease,) = self.checkpoints.claim(run_id, codes=[code], **how)
        return lease

    def ledger(self, run_id: str = "run") -> Ledger:
        return Ledger(checkpoints=self.checkpoints, source="naver-local", run_id=run_id)

    def store(
        self,
        lease: Lease,
        number: int = 0,
        places: Sequence[PlaceRecord | AttributedPlace] = (),
        **changes: Any,
    ) -> Search:
        """Store the search of that number of the plan; places without a region are in 11680."""
        search = plan_of(lease)[number]
        attributed = [
            one
            if isinstance(one, AttributedPlace)
            else AttributedPlace(place=one, region_code="11680")
            for one in places
        ]
        stored = StoredSearch(
            search=search,
            answer={"items": []},
            result_count=len(places),
            calls=1,
            places=attributed,
            set_aside=list[RejectedItem](),
            answered_at=ANSWERED,
        )
        self.write(Write.done(lease, replace(stored, **changes)))
        return search

    def write(self, write: Write) -> tuple[int, ...]:
        """Stores one search, and raises why it could not be."""
        (result,) = self.ledger().write_all([write])
        if isinstance(result, Exception):
            raise result
        return result

    def done(self, lease: Lease) -> tuple[set[tuple[str, str]], int]:
        """The region's finished searches in this round, and the calls spent on it so far."""
        history, calls, _ = self.ledger().begun([lease])[lease.region_code]
        return {(answered.query, answered.sort) for answered in history}, calls

    def complete(self, lease: Lease) -> None:
        """Do the rest of the plan, and complete."""
        done, _ = self.done(lease)
        for number, search in enumerate(plan_of(lease)):
            if search.identity not in done:
                self.store(lease, number)
        self.finish(lease)

    def finish(self, lease: Lease, **how: Any) -> Completion:
        """Completes it if its plan is done. Raises LeaseLost."""
        (completed,) = self.checkpoints.complete(
            [PlanDone(lease=lease, plan=plan_of(lease))], **how
        )
        if isinstance(completed, Exception):
            raise completed
        return completed

    def fail(self, lease: Lease, **how: Any) -> bool:
        return self.checkpoints.fail(lease, kind=FailureKind.TRANSIENT, message="HTTP 500", **how)

    def expire(self) -> None:
        """Time passes: every lease is over."""
        self.execute(
            "UPDATE batch_checkpoint SET lease_expires_at = now() - interval '1 second' "
            "WHERE status = 'PROCESSING'"
        )

    def reclaim(self, *dead_runs: str) -> list[str]:
        return self.database.transaction(
            lambda connection: self.checkpoints.reclaim(connection, dead_runs)
        )

    def everything(self) -> list[Any]:
        """All that a stale worker might have changed."""
        tables = ("batch_checkpoint", "search_query", "places", "batch_execution_metadata")
        return [self.read(f"SELECT * FROM {table} ORDER BY id") for table in tables]


def plan_of(lease: Lease) -> tuple[Search, ...]:
    return base_plan(lease.region_name, KEYWORDS)
