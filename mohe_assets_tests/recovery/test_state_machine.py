"""The checkpoint state machine under random interleavings of workers that freeze, die, wake and
write.

The store runs on PostgreSQL; beside it runs a model of dictionaries that knows who holds what. Time
passes by moving the columns that it would have passed.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, text

from mohe_assets.domain.places import PlaceRecord
from mohe_assets.domain.search_plan import Search
from mohe_assets.errors import FailureKind, LeaseLost
from mohe_assets.sources.naver_local.plan import base_plan
from mohe_assets.store.checkpoints import Checkpoints, Lease, PlanDone
from mohe_assets.store.database import Database, Scope
from mohe_assets.store.executions import Ending, Executions
from mohe_assets.store.ledger import AttributedPlace, Ledger, StoredSearch, Write
from mohe_assets.store.refinement import Refinement
from mohe_assets_tests.support.databases import read

REGIONS = {
    "11110": "서울특별시 종로구",
    "26110": "부산광역시 중구",
    "36110": "세종특별자치시",
    "50110": "제주특별자치도 제주시",
}
KEYWORDS = ("카페", "공원", "서점")
BATCH, TYPE, SOURCE = "stateful", "sigungu", "fake"
SCOPE = Scope(batch_name=BATCH, region_type=TYPE)
LEASE_SECONDS = 60.0
MAX_ATTEMPTS = 3
MOST_WORKERS = 4
FAR_AHEAD = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)

ANY = st.integers(min_value=0, max_value=11)
SEARCH = st.integers(min_value=0, max_value=len(KEYWORDS) - 1)


@dataclass(kw_only=True)
class Row:
    """The model of a region. `done` and `calls` belong to its round."""

    status: str = "PENDING"
    attempt: int = 0
    round: int = 1
    failures: int = 0
    # of a FAILED region, or of a refinement: "later", "due", or "asked", which only a person does
    retry: str = ""
    refining: bool = False
    promises: bool = False
    holder: str | None = None
    expired: bool = False
    done: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    places: set[str] = field(default_factory=set)

    def begin_round(self) -> None:
        self.round += 1
        self.done, self.calls, self.places = {}, 0, set()
        self.refining = self.promises = False
        self.failures = 0

    def force_release(self) -> None:
        self.status, self.holder, self.expired = (
            "COMPLETED" if self.refining else "PENDING",
            None,
            False,
        )
        self.attempt += self.refining
        self.refining = False

    @property
    def base_is_due(self) -> bool:
        return (
            self.status == "PENDING"
            or (self.status == "FAILED" and self.retry == "due")
            or (self.status == "PROCESSING" and not self.refining)
        )

    @property
    def is_refinable(self) -> bool:
        return self.status == "COMPLETED" and self.promises and self.retry != "later"


@dataclass(kw_only=True)
class Run:
    """The model of a run: its row's status, and whether its heartbeat stopped or its process is
    gone.
    """

    status: str = "RUNNING"
    silent: bool = False
    gone: bool = False


@dataclass(kw_only=True)
class FakeWorker:
    """A worker that believes it holds its claims; the store decides whether it still does."""

    run_id: str
    ledger: Ledger
    held: list[Lease] = field(default_factory=list)
    frozen: bool = False

    def write(self, write: Write) -> None:
        (result,) = self.ledger.write_all([write])
        if isinstance(result, Exception):
            raise result


def plan_of(lease: Lease) -> tuple[Search, ...]:
    return base_plan(lease.region_name, KEYWORDS)


def found_by(lease: Lease, number: int) -> list[AttributedPlace]:
    """Two places of one's own, one that every search finds."""
    keys = [f"{lease.region_code}-{number}", f"{lease.region_code}-{number}-b", "everywhere"]
    return [AttributedPlace(place=_place(key), region_code=lease.region_code) for key in keys]


def _place(key: str) -> PlaceRecord:
    return PlaceRecord(
        place_key=key, name=key, category="카페", address="서울특별시 종로구", road_address="",
        latitude=Decimal("37.5"), longitude=Decimal("127.0"), phone="", website_url="",
    )  # fmt: skip


class Collection(RuleBasedStateMachine):
    """Workers on one database, and the model of its content."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.checkpoints = Checkpoints(
            database=self.database, scope=SCOPE, lease_seconds=LEASE_SECONDS,
            max_attempts=MAX_ATTEMPTS, backoff_seconds=3_600,
        )  # fmt: skip
        self.executions = Executions(
            database=self.database, scope=SCOPE, lease_seconds=LEASE_SECONDS
        )
        self.refinement = Refinement(checkpoints=self.checkpoints, calls_per_region=1_000_000)
        self.rows = {code: Row() for code in REGIONS}
        self.runs: dict[str, Run] = {}
        self.totals: dict[str, tuple[int, int]] = {}
        self.workers: list[FakeWorker] = []

    @initialize()
    def begin(self) -> None:
        for table in ("places", "search_query", "batch_checkpoint", "batch_execution_metadata"):
            self.execute(f"DELETE FROM {table}")
        self.database.transaction(self.checkpoints.seed)
        self.start_worker()
        self.start_worker()

    # --- workers come, claim and work

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule()
    def start_worker(self) -> None:
        run_id = f"run-{len(self.runs)}"
        self.executions.start(run_id)
        self.runs[run_id] = Run()
        self.totals[run_id] = (0, 0)
        self.workers.append(
            FakeWorker(
                run_id=run_id,
                ledger=Ledger(checkpoints=self.checkpoints, source=SOURCE, run_id=run_id),
            )
        )

    @precondition(lambda self: self.awake())
    @rule(
        who=ANY,
        force_retry=st.booleans(),
        afresh=st.booleans(),
        one=st.none() | st.sampled_from(sorted(REGIONS)),
    )
    def claim(self, who: int, *, force_retry: bool, afresh: bool, one: str | None) -> None:
        worker = self.pick(who)
        codes = None if one is None else {one}
        found = self.checkpoints.claim(
            worker.run_id,
            codes=codes,
            force_retry=force_retry,
            recollect_completed_before=FAR_AHEAD if afresh else None,
        )
        claimable = {
            code
            for code, row in self.rows.items()
            if (one is None or code == one)
            and (
                row.status == "PENDING"
                or (row.status == "FAILED" and (force_retry or row.retry == "due"))
                or (row.status == "COMPLETED" and afresh)
                or (row.refining and afresh)
            )
        }
        if self.runs[worker.run_id].status != "RUNNING":
            assert not found, "a run that was declared dead takes nothing"
            return
        assert bool(found) == bool(claimable), (found, claimable)
        for lease in found:
            assert lease.region_code in claimable
            row = self.rows[lease.region_code]
            if row.status == "COMPLETED" or row.refining:
                row.begin_round()
            row.status, row.holder, row.expired, row.attempt, row.retry = (
                "PROCESSING",
                worker.run_id,
                False,
                row.attempt + 1,
                "",
            )
            assert (lease.attempt, lease.round) == (row.attempt, row.round)
            worker.held.append(lease)

    @precondition(
        lambda self: self.awake() and not any(row.base_is_due for row in self.rows.values())
    )
    @rule(who=ANY)
    def claim_for_refinement(self, who: int) -> None:
        worker = self.pick(who)
        found = self.refinement.claim(worker.run_id)
        if self.runs[worker.run_id].status != "RUNNING":
            assert found == [], "a run that was declared dead takes nothing"
            return
        refinable = {code for code, row in self.rows.items() if row.is_refinable}
        assert len(found) == min(1, len(refinable))
        for lease in found:
            row = self.rows[lease.region_code]
            assert lease.region_code in refinable
            row.status, row.holder, row.expired, row.attempt, row.retry = (
                "PROCESSING",
                worker.run_id,
                False,
                row.attempt + 1,
                "",
            )
            row.refining = True
            worker.held.append(lease)

    @precondition(lambda self: self.awake())
    @rule(who=ANY)
    def a_base_plan_has_precedence(self, who: int) -> None:
        if any(row.base_is_due for row in self.rows.values()):
            assert self.refinement.claim(self.pick(who).run_id) == []

    @precondition(lambda self: any(row.refining for row in self.rows.values()) and self.believers())
    @rule(who=ANY, which=ANY, more=st.booleans())
    def settle(self, who: int, which: int, *, more: bool) -> None:
        worker, lease = self.pick_lease(who, which)
        row = self.rows[lease.region_code]
        refines = row.refining
        with self.refused_unless_held(worker, lease, and_also=refines):
            self.refinement.settle(lease, expected_gain=float(more), also=self.tally(worker))
        if self.holds(worker, lease) and refines:
            row.status, row.holder, row.failures, row.refining, row.promises = (
                "COMPLETED",
                None,
                0,
                False,
                more,
            )
            worker.held.remove(lease)
        self.note_totals(worker)

    @precondition(lambda self: self.awake())
    @rule(who=ANY)
    def finish_all_base_plans(self, who: int) -> None:
        """Refinement begins when none is left, which few examples would reach by themselves."""
        worker = self.pick(who)
        for code in REGIONS:
            self.claim(self.workers.index(worker), force_retry=True, afresh=False, one=code)
        if self.runs[worker.run_id].status == "RUNNING":
            while mine := [lease for lease in worker.held if self.holds(worker, lease)]:
                self.run(self.workers.index(worker), worker.held.index(mine[0]))

    @precondition(lambda self: self.believers())
    @rule(who=ANY, which=ANY, number=SEARCH)
    def store_a_search(self, who: int, which: int, number: int) -> None:
        worker, lease = self.pick_lease(who, which)
        search, places = plan_of(lease)[number], found_by(lease, number)
        stored = StoredSearch(
            search=search,
            answer={"items": number},
            result_count=3,
            calls=1,
            places=places,
            set_aside=(),
            answered_at=dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
        )
        with self.refused_unless_held(worker, lease):
            worker.write(Write.done(lease, stored))
        self.note_search(
            worker, lease, search, "DONE", calls=1, places={one.place.place_key for one in places}
        )

    @precondition(lambda self: self.believers())
    @rule(
        who=ANY,
        which=ANY,
        number=SEARCH,
        calls=st.integers(min_value=1, max_value=4),
        refused=st.booleans(),
    )
    def a_search_fails(
        self, who: int, which: int, number: int, calls: int, *, refused: bool
    ) -> None:
        worker, lease = self.pick_lease(who, which)
        search = plan_of(lease)[number]
        made = Write.skipped if refused else Write.failed
        with self.refused_unless_held(worker, lease):
            worker.write(made(lease, search, calls=calls, reason="made up"))
        self.note_search(
            worker, lease, search, "SKIPPED" if refused else "FAILED", calls=calls, places=set()
        )

    @precondition(lambda self: self.believers())
    @rule(who=ANY, which=ANY)
    def complete(self, who: int, which: int) -> None:
        worker, lease = self.pick_lease(who, which)
        row = self.rows[lease.region_code]
        finished = sum(status != "FAILED" for status in row.done.values()) == len(KEYWORDS)
        with self.refused_unless_held(worker, lease, and_also=finished):
            done = PlanDone(lease=lease, plan=plan_of(lease), expected_gain=1)
            (completed,) = self.checkpoints.complete([done], also=self.tally(worker))
            if isinstance(completed, Exception):
                raise completed
        if self.holds(worker, lease) and finished:
            row.status, row.holder, row.failures, row.refining, row.promises = (
                "COMPLETED",
                None,
                0,
                False,
                True,
            )
            worker.held.remove(lease)
        self.note_totals(worker)

    @precondition(lambda self: self.believers())
    @rule(who=ANY, which=ANY)
    def run(self, who: int, which: int) -> None:
        """Do the work of an uninterrupted worker; without this few examples would complete a
        region.
        """
        worker, lease = self.pick_lease(who, which)
        for number in range(len(KEYWORDS)):
            self.store_a_search(self.workers.index(worker), worker.held.index(lease), number)
        self.complete(self.workers.index(worker), worker.held.index(lease))

    @precondition(lambda self: self.believers())
    @rule(who=ANY, which=ANY, final=st.booleans())
    def fail(self, who: int, which: int, *, final: bool) -> None:
        worker, lease = self.pick_lease(who, which)
        held = self.holds(worker, lease)
        before = self.written()
        done = self.checkpoints.fail(
            lease,
            kind=FailureKind.TRANSIENT,
            message="made up",
            final=final,
            also=self.tally(worker),
        )
        assert done == held
        assert self.written() == before
        worker.held.remove(lease)
        if held:
            row = self.rows[lease.region_code]
            row.status, row.holder, row.failures = (
                "COMPLETED" if row.refining else "FAILED",
                None,
                row.failures + 1,
            )
            is_last = not row.refining and (final or row.failures >= MAX_ATTEMPTS)
            row.retry, row.refining = "asked" if is_last else "later", False
        self.note_totals(worker)

    @precondition(lambda self: self.believers())
    @rule(who=ANY, which=ANY)
    def release(self, who: int, which: int) -> None:
        worker, lease = self.pick_lease(who, which)
        held = self.holds(worker, lease)
        assert self.checkpoints.release(lease) == held
        worker.held.remove(lease)
        if held:
            self.rows[lease.region_code].force_release()

    @precondition(lambda self: self.awake())
    @rule(who=ANY)
    def pulse(self, who: int) -> None:
        worker = self.pick(who)
        held = [lease for lease in worker.held if self.holds(worker, lease)]
        assert self.checkpoints.renew(worker.held) == len(held)
        for lease in held:
            self.rows[lease.region_code].expired = False
        run = self.runs[worker.run_id]
        assert self.executions.heartbeat(worker.run_id) == (run.status == "RUNNING")
        run.silent = False
        if run.status != "RUNNING":
            self.replace(worker)

    @precondition(lambda self: len(self.awake()) > 1)
    @rule(who=ANY)
    def finish(self, who: int) -> None:
        worker = self.pick(who)
        for lease in list(worker.held):
            self.release(self.workers.index(worker), worker.held.index(lease))
        run = self.runs[worker.run_id]
        assert self.executions.finish(worker.run_id, Ending.COMPLETED) == (run.status == "RUNNING")
        self.note_totals(worker)
        run.status = "COMPLETED" if run.status == "RUNNING" else run.status
        self.replace(worker)

    # --- what happens to them

    @precondition(lambda self: len(self.awake()) > 1)
    @rule(who=ANY, beyond_its_lease=st.booleans())
    def freeze(self, who: int, *, beyond_its_lease: bool) -> None:
        worker = self.pick(who)
        worker.frozen = True
        if beyond_its_lease:
            self.be_silent(worker)

    @precondition(lambda self: any(worker.frozen for worker in self.workers))
    @rule(who=ANY)
    def wake(self, who: int) -> None:
        frozen = [worker for worker in self.workers if worker.frozen]
        frozen[who % len(frozen)].frozen = False

    @precondition(lambda self: self.awake())
    @rule(who=ANY)
    def a_slow_answer_outlasts_the_leases(self, who: int) -> None:
        self.expire_leases(self.pick(who))

    @precondition(lambda self: self.believers() and len(self.awake()) > 1)
    @rule(who=ANY, which=ANY, its_run_too=st.booleans())
    def lose_everything_while_asleep(self, who: int, which: int, *, its_run_too: bool) -> None:
        """The whole story at once, since few examples would find it: the leases end, another takes
        the regions over.
        """
        sleeper, _ = self.pick_lease(who, which)
        if its_run_too:
            self.be_silent(sleeper)
        else:
            self.expire_leases(sleeper)
        self.bury_the_dead()
        others = [self.workers.index(worker) for worker in self.awake() if worker is not sleeper]
        for lease in sleeper.held:
            self.claim(
                others[which % len(others)], force_retry=False, afresh=False, one=lease.region_code
            )

    @precondition(lambda self: len(self.awake()) > 1)
    @rule(who=ANY, on_this_machine=st.booleans())
    def die(self, who: int, *, on_this_machine: bool) -> None:
        worker = self.workers[who % len(self.workers)]
        self.replace(worker)
        if on_this_machine:
            # The pid belongs to another process now: the start time differs.
            self.execute(
                "UPDATE batch_execution_metadata SET process_started = process_started - 1000 "
                "WHERE execution_id = :run",
                run=worker.run_id,
            )
            self.runs[worker.run_id].gone = True
        else:
            self.be_silent(worker)

    @precondition(lambda self: self.somebody_is_overdue())
    @rule()
    def bury_the_dead(self) -> None:
        dead = self.dead_runs()
        regions = {
            code
            for code, row in self.rows.items()
            if row.holder is not None and (row.expired or row.holder in dead)
        }
        reaped = self.executions.reap_dead_runs(self.checkpoints)
        assert set(reaped.dead_runs) == dead
        assert set(reaped.regions) == regions
        for name in dead:
            self.runs[name].status = "INTERRUPTED"
        for code in regions:
            self.rows[code].force_release()

    @precondition(lambda self: any(row.retry == "later" for row in self.rows.values()))
    @rule()
    def the_time_to_retry_comes(self) -> None:
        self.execute(
            "UPDATE batch_checkpoint SET retry_at = now() - interval '1 second' WHERE retry_at IS "
            "NOT NULL"
        )
        for row in self.rows.values():
            row.retry = "due" if row.retry == "later" else row.retry

    @precondition(lambda self: any(row.status == "FAILED" for row in self.rows.values()))
    @rule(one=st.none() | st.sampled_from(sorted(REGIONS)))
    def a_person_retries(self, one: str | None) -> None:
        expected = {
            code
            for code, row in self.rows.items()
            if row.status == "FAILED" and one in (None, code)
        }
        assert set(self.checkpoints.retry(None if one is None else [one])) == expected
        for code in expected:
            self.rows[code].status, self.rows[code].failures, self.rows[code].retry = (
                "PENDING",
                0,
                "",
            )

    @precondition(lambda self: any(row.status == "COMPLETED" for row in self.rows.values()))
    @rule(also_unfinished=st.booleans())
    def a_new_round_begins(self, *, also_unfinished: bool) -> None:
        wanted = {"COMPLETED", "PENDING", "FAILED"} if also_unfinished else {"COMPLETED"}
        expected = {code for code, row in self.rows.items() if row.status in wanted or row.refining}
        assert set(self.checkpoints.new_round(also_unfinished=also_unfinished)) == expected
        for code in expected:
            row = self.rows[code]
            row.begin_round()
            row.status, row.failures, row.retry, row.holder, row.expired = (
                "PENDING",
                0,
                "",
                None,
                False,
            )

    # --- what has to hold after every step

    @invariant()
    def every_row_is_where_the_model_has_it(self) -> None:
        for row in self.checkpoint_rows():
            model = self.rows[row["region_code"]]
            assert (row["status"], row["attempt"], row["round"]) == (
                model.status,
                model.attempt,
                model.round,
            ), row
            assert (row["failures"], row["calls_used"]) == (model.failures, model.calls), row
            assert (row["refining"], row["promise"] > 0) == (model.refining, model.promises), row
            assert row["searches_done"] == sum(
                status != "FAILED" for status in model.done.values()
            ), row
            assert row["processed_count"] == len(model.places), row

    @invariant()
    def at_most_one_worker_holds_a_region(self) -> None:
        for row in self.checkpoint_rows():
            beliefs = [
                lease
                for worker in self.workers
                for lease in worker.held
                if lease.region_code == row["region_code"]
            ]
            valid = [
                lease
                for lease in beliefs
                if lease.attempt == row["attempt"] and row["status"] == "PROCESSING"
            ]
            assert len(valid) <= 1

    @invariant()
    def no_region_is_out_of_reach(self) -> None:
        for row in self.checkpoint_rows():
            assert row["status"] in {"PENDING", "PROCESSING", "COMPLETED", "FAILED"}
            # A lease ends by itself, whether its holder lives or not.
            assert (row["status"] == "PROCESSING") == (row["lease_expires_at"] is not None), row
            assert row["status"] in {"FAILED", "COMPLETED"} or row["retry_at"] is None, row

    @invariant()
    def counters_are_what_the_ledger_says(self) -> None:
        wrong = read(
            self.database,
            """SELECT c.region_code
                 FROM batch_checkpoint c
                 LEFT JOIN search_query q USING (batch_name, region_type, region_code, round)
                GROUP BY c.id
               HAVING c.searches_done <> count(*) FILTER (WHERE q.status IN ('DONE', 'SKIPPED'))
                   OR c.calls_used <> coalesce(sum(q.calls), 0)
                   OR c.processed_count <>
                      (SELECT count(DISTINCT p) FROM search_query s, unnest(s.place_ids) p
                        WHERE s.region_code = c.region_code AND s.round = c.round)
                   OR c.status = 'COMPLETED'
                      AND count(q.id) FILTER (WHERE q.status <> 'FAILED') <> :searches""",
            searches=len(KEYWORDS),
        )
        assert wrong == []

    @invariant()
    def runs_have_the_totals_of_their_checkpoints(self) -> None:
        for row in read(self.database, "SELECT * FROM batch_execution_metadata"):
            name = row["execution_id"]
            assert row["status"] == self.runs[name].status, row
            assert (row["completed_regions"], row["failed_regions"]) == self.totals[name], row
            assert row["total_regions"] >= row["completed_regions"] + row["failed_regions"], row

    # --- the model's own business

    def replace(self, worker: FakeWorker) -> None:
        """One goes, another comes: without workers nothing would happen any more."""
        self.workers.remove(worker)
        self.start_worker()

    def dead_runs(self) -> set[str]:
        return {
            name
            for name, run in self.runs.items()
            if run.status == "RUNNING" and (run.silent or run.gone)
        }

    def somebody_is_overdue(self) -> bool:
        return bool(self.dead_runs()) or any(row.expired for row in self.rows.values())

    def awake(self) -> list[FakeWorker]:
        return [worker for worker in self.workers if not worker.frozen]

    def believers(self) -> list[FakeWorker]:
        return [worker for worker in self.awake() if worker.held]

    def pick(self, who: int) -> FakeWorker:
        preferred = self.workers[who % len(self.workers)]
        return preferred if not preferred.frozen else self.awake()[who % len(self.awake())]

    def pick_lease(self, who: int, which: int) -> tuple[FakeWorker, Lease]:
        preferred = self.workers[who % len(self.workers)]
        able = self.believers()
        worker = preferred if preferred in able else able[who % len(able)]
        return worker, worker.held[which % len(worker.held)]

    def holds(self, worker: FakeWorker, lease: Lease) -> bool:
        row = self.rows[lease.region_code]
        return row.holder == worker.run_id and row.attempt == lease.attempt

    @contextmanager
    def refused_unless_held(
        self, worker: FakeWorker, lease: Lease, *, and_also: bool = True
    ) -> Iterator[None]:
        """A write by another worker is LeaseLost, and leaves places and ledger unchanged."""
        if self.holds(worker, lease) and and_also:
            yield
            return
        before = self.written()
        with pytest.raises(LeaseLost):
            yield
        assert self.written() == before

    def note_search(
        self,
        worker: FakeWorker,
        lease: Lease,
        search: Search,
        status: str,
        *,
        calls: int,
        places: set[str],
    ) -> None:
        row = self.rows[lease.region_code]
        if not self.holds(worker, lease):
            return
        row.expired = False
        if row.done.get(search.query, "FAILED") == "FAILED":
            row.done[search.query] = status
            row.calls += calls
            row.places |= places

    def note_totals(self, worker: FakeWorker) -> None:
        sql = """SELECT count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
                        count(*) FILTER (WHERE status = 'FAILED') AS failed
                   FROM batch_checkpoint WHERE run_id = :run"""
        row = read(self.database, sql, run=worker.run_id)[0]
        self.totals[worker.run_id] = (row["completed"], row["failed"])

    def tally(self, worker: FakeWorker) -> Callable[[Connection], None]:
        return lambda connection: self.executions.tally(connection, worker.run_id)

    def be_silent(self, worker: FakeWorker) -> None:
        self.execute(
            "UPDATE batch_execution_metadata SET heartbeat_at = now() - interval '1 hour' "
            "WHERE execution_id = :run",
            run=worker.run_id,
        )
        self.runs[worker.run_id].silent = True
        self.expire_leases(worker)

    def expire_leases(self, worker: FakeWorker) -> None:
        """So long ago that they are not left to a holder that lives, either."""
        self.execute(
            """UPDATE batch_checkpoint SET lease_expires_at = now() - interval '1 day'
                WHERE run_id = :run AND status = 'PROCESSING'""",
            run=worker.run_id,
        )
        for row in self.rows.values():
            row.expired = row.expired or row.holder == worker.run_id

    def checkpoint_rows(self) -> list[dict[str, Any]]:
        return read(self.database, "SELECT * FROM batch_checkpoint")

    def written(self) -> list[dict[str, Any]]:
        """Everything a worker brings."""
        sql = """SELECT (SELECT string_agg(p::text, E'\\n' ORDER BY p.id) FROM places p) AS places,
                        (SELECT string_agg(q::text, E'\\n' ORDER BY q.id)
                        FROM search_query q) AS ledger"""
        return read(self.database, sql)

    def execute(self, sql: str, **values: object) -> None:
        self.database.transaction(lambda connection: connection.execute(text(sql), values))


def test_no_interleaving_of_workers_loses_repeats_or_strands_a_region(database: Database) -> None:
    sql = """INSERT INTO region (region_type, region_code, region_name, sido_name, sigungu_name,
               parent_code, is_leaf,
                                 partition_key, source, as_of)
             VALUES (:type, :code, :name, 'x', 'x', '00', true, :code, 'api', '2026-11-23')"""
    regions = [{"type": TYPE, "code": code, "name": name} for code, name in REGIONS.items()]
    database.transaction(
        lambda connection: connection.execute(text("DELETE FROM batch_checkpoint"))
    )
    database.transaction(lambda connection: connection.execute(text("DELETE FROM legal_dong")))
    database.transaction(lambda connection: connection.execute(text("DELETE FROM region")))
    database.transaction(lambda connection: connection.execute(text(sql), regions))
    machine = type("Machine", (Collection,), {"database": database})
    bounded = settings(
        derandomize=True, database=None, deadline=None, max_examples=50, stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=bounded)
