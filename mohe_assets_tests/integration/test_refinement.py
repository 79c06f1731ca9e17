"""Depth: which regions are searched beyond their base plan, in which order, and how each
interruption leaves them.
"""

import datetime as dt
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.collection.region_worker import (
    SLICE_SEARCHES,
    TALLIES_SEARCHES,
    CachedTallies,
    Outcome,
    RegionOutcome,
)
from mohe_assets.collection.run import CollectionRun
from mohe_assets.collection.scheduler import MOST_REFINED, ClaimFilter
from mohe_assets.domain.search_plan import Tallies
from mohe_assets.errors import FailureKind, LeaseLost
from mohe_assets.simulator.server import Simulator
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import repeated
from mohe_assets_tests.support.regions import keep_checkpoints
from mohe_assets_tests.support.stores import Store

KEYWORDS = ("카페", "음식점", "공원")
CODES = ("11680", "36110", "41135")
LATER = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)

OpenPlatform = Callable[..., App]


@pytest.fixture(scope="module")
def template(regions_template: str) -> str:
    return regions_template


@pytest.fixture
def open_platform(environment: Environment, simulator: Simulator) -> Iterator[OpenPlatform]:
    """Platforms that know three regions with their dongs."""
    del simulator
    opened: list[Any] = []

    def build(**changes: str) -> App:
        variables = {
            **environment,
            "MOHE_SEARCH_KEYWORDS": ",".join(KEYWORDS),
            "MOHE_SEARCHES_IN_FLIGHT": "3",
            **changes,
        }
        opened.append(App.open(settings_module.load(variables)))
        app: App = opened[-1].__enter__()
        if len(opened) == 1:
            keep_checkpoints(app.database, CODES)
        return app

    yield build
    for one in opened:
        one.__exit__(None, None, None)


@pytest.fixture
def app(open_platform: OpenPlatform) -> App:
    return open_platform()


def store_of(app: App) -> Store:
    return Store(database=app.database, checkpoints=app.checkpoints, executions=app.executions)


@pytest.fixture
def store(app: App) -> Store:
    return store_of(app)


def run(app: App, request: ClaimFilter, run_id: str) -> tuple[CollectionRun, list[RegionOutcome]]:
    with app.collection(run_id, request) as collection:
        return collection, list(collection.outcomes())


def collect(app: App, run_id: str = "base") -> None:
    assert {one.outcome for one in run(app, ClaimFilter(), run_id)[1]} == {Outcome.COMPLETED}


def refine(app: App, run_id: str = "deeper") -> tuple[CollectionRun, list[RegionOutcome]]:
    return run(app, ClaimFilter(refine=True), run_id)


def statuses(store: Store) -> Counter[str]:
    return Counter(row["status"] for row in store.read("SELECT status FROM batch_checkpoint"))


def searches(store: Store) -> list[tuple[str, str]]:
    return [
        (row["query"], row["sort"])
        for row in store.read("SELECT query, sort FROM search_query ORDER BY id")
    ]


def places(store: Store) -> int:
    return int(store.read("SELECT count(*) AS n FROM places")[0]["n"])


class _Counted:
    """Stands in for a ledger: how often its tallies were read."""

    reads = 0

    def tallies(self) -> Tallies:
        self.reads += 1
        return {}


def test_what_pays_nationwide_is_read_again_after_so_many_searches_however_fast_they_are() -> None:
    ledger = _Counted()
    tallies = CachedTallies(ledger=ledger)  # type: ignore[arg-type]
    for _ in range(3 * TALLIES_SEARCHES):
        tallies.current()
        tallies.searches += 1
    assert ledger.reads == 3


def test_however_many_searches_may_be_in_flight_most_regions_are_there_to_choose_from(
    environment: Environment, simulator: Simulator
) -> None:
    simulator.configure(latency_ms=20)
    changes = {
        "MOHE_SEARCH_KEYWORDS": "카페",
        "MOHE_SEARCHES_IN_FLIGHT": "150",
        "MOHE_MAX_CALLS_PER_REGION": "4",
    }
    with App.open(settings_module.load({**environment, **changes})) as app:
        collect(app)
        with app.collection("deeper", ClaimFilter(refine=True)) as collection:
            held = [len(collection._scheduler.held) for _ in collection.outcomes()]
    assert len(held) > 256
    assert MOST_REFINED / 2 < max(held) <= MOST_REFINED


class TestGoingDeeper:
    def test_completed_regions_are_searched_further_and_bring_more_places_for_each_call_once(
        self, open_platform: OpenPlatform, simulator: Simulator
    ) -> None:
        app = open_platform(MOHE_MAX_CALLS_PER_REGION="60")
        store = store_of(app)
        collect(app)
        before = places(store)
        collection, outcomes = refine(app)
        assert (collection.halted, collection.failed) == (None, [])
        assert {one.outcome for one in outcomes} == {Outcome.REFINED}
        assert statuses(store) == {"COMPLETED": 3}
        assert places(store) > 2 * before
        for row in store.read("SELECT * FROM batch_checkpoint"):
            assert row["refinements"] == row["searches_done"] - len(KEYWORDS) > 0
            assert row["calls_used"] <= 60
            assert not row["refining"]
        answers = simulator.stats()["naver"]["answers_per_search"]
        assert repeated(answers) == 0
        assert len(answers) == len(searches(store))
        run_row = store.read(
            "SELECT * FROM batch_execution_metadata WHERE execution_id = 'deeper'"
        )[0]
        assert (run_row["status"], run_row["completed_regions"], run_row["failed_regions"]) == (
            "COMPLETED",
            3,
            0,
        )
        assert run_row["calls_used"] == sum(
            row["refinements"] for row in store.read("SELECT refinements FROM batch_checkpoint")
        )

    def test_only_what_came_back_full_is_refined(self, open_platform: OpenPlatform) -> None:
        app = open_platform(MOHE_MAX_CALLS_PER_REGION="40")
        store = store_of(app)
        collect(app)
        refine(app)
        rows = store.read("SELECT region_code, keyword, stage, result_count FROM search_query")
        full = {
            (row["region_code"], row["keyword"])
            for row in rows
            if row["stage"] == "base" and row["result_count"] == 5
        }
        deeper = {(row["region_code"], row["keyword"]) for row in rows if row["stage"] != "base"}
        assert deeper
        assert deeper <= full

    def test_a_second_refinement_finds_nothing_left_within_the_budget(
        self, open_platform: OpenPlatform
    ) -> None:
        app = open_platform(MOHE_MAX_CALLS_PER_REGION="30")
        collect(app)
        refine(app)
        before = searches(store_of(app))
        assert refine(app, "again")[1] == []
        assert searches(store_of(app)) == before
        assert not app.refinement.backlog().has_work

    def test_the_most_promising_region_comes_first(self, app: App, store: Store) -> None:
        collect(app)
        for code, expected_gain in zip(CODES, (1.5, 3.5, 2.5), strict=True):
            store.execute(
                "UPDATE batch_checkpoint SET promise = :expected_gain WHERE region_code = :code",
                expected_gain=expected_gain,
                code=code,
            )
        app.executions.start("deeper")
        claimed = [app.refinement.claim("deeper") for _ in range(4)]
        assert [[one.region_code for one in found] for found in claimed] == [
            ["36110"],
            ["41135"],
            ["11680"],
            [],
        ]
        assert app.refinement.backlog().refining == 3

    @pytest.mark.parametrize(
        "waits",
        [
            "status = 'PENDING'",
            "status = 'FAILED', retry_at = now() - interval '1 second'",
            "status = 'PROCESSING', lease_expires_at = now() + interval '1 minute'",
        ],
    )
    def test_a_region_that_waits_for_its_base_plan_has_precedence(
        self, app: App, store: Store, waits: str
    ) -> None:
        collect(app)
        assert app.refinement.backlog().has_work
        store.execute(f"UPDATE batch_checkpoint SET {waits} WHERE region_code = '36110'")
        assert app.refinement.claim("deeper") == []
        assert not app.refinement.backlog().has_work

    def test_a_failed_region_whose_time_has_not_come_holds_nothing_up(
        self, app: App, store: Store
    ) -> None:
        collect(app)
        store.execute(
            "UPDATE batch_checkpoint SET status = 'FAILED', retry_at = now() + interval '1 hour' "
            "WHERE region_code = '36110'"
        )
        assert len(app.refinement.claim("deeper")) == 1

    def test_regions_of_the_batch_system_which_have_no_ledger_are_left_as_they_are(
        self, app: App, store: Store
    ) -> None:
        store.execute("UPDATE batch_checkpoint SET status = 'COMPLETED', end_time = now()")
        assert app.reopen_regions_with_old_plan() == []
        assert refine(app)[1] == []
        assert searches(store) == []


class TestInterruptions:
    def test_a_quota_that_ends_leaves_all_completed_and_the_next_run_goes_on(
        self, open_platform: OpenPlatform, simulator: Simulator
    ) -> None:
        few = open_platform(MOHE_DAILY_QUOTA="12")
        store = store_of(few)
        collect(few)
        collection, _ = refine(few)
        assert collection.halted is not None
        assert statuses(store) == {"COMPLETED": 3}
        assert len(searches(store)) == 12
        refine(open_platform(MOHE_MAX_CALLS_PER_REGION="30"), "tomorrow")
        assert statuses(store) == {"COMPLETED": 3}
        assert repeated(simulator.stats()["naver"]["answers_per_search"]) == 0
        assert len(searches(store)) > 12

    def test_a_stop_gives_back_completed_regions(self, app: App, store: Store) -> None:
        collect(app)
        with app.collection("deeper", ClaimFilter(refine=True)) as collection:
            outcomes = collection.outcomes()
            next(outcomes)
            outcomes.close()
        assert statuses(store) == {"COMPLETED": 3}
        assert store.read(
            "SELECT count(*) AS n FROM batch_checkpoint WHERE refining OR lease_expires_at IS "
            "NOT NULL"
        ) == [{"n": 0}]

    def test_a_refinement_that_died_is_taken_back_and_keeps_its_promise(
        self, app: App, store: Store
    ) -> None:
        collect(app)
        app.executions.start("dies")
        (lease,) = app.refinement.claim("dies")
        before = store.row(lease.region_code)
        assert store.reclaim("dies") == [lease.region_code]
        after = store.row(lease.region_code)
        assert (after["status"], after["refining"], after["promise"]) == (
            "COMPLETED",
            False,
            before["promise"],
        )
        with pytest.raises(LeaseLost):
            app.refinement.settle(lease, expected_gain=0, also=lambda _: None)
        assert store.row(lease.region_code)["promise"] == before["promise"]

    def test_a_failure_leaves_the_region_completed_with_the_reason_and_postpones_it(
        self, app: App, store: Store
    ) -> None:
        collect(app)
        app.executions.start("deeper")
        (lease,) = app.refinement.claim("deeper")
        assert app.checkpoints.fail(lease, kind=FailureKind.TRANSIENT, message="HTTP 503")
        row = store.row(lease.region_code)
        assert (row["status"], row["error_message"], row["failures"]) == (
            "COMPLETED",
            "HTTP 503",
            1,
        )
        assert row["retry_at"] is not None
        others = {one.region_code for one in app.refinement.claim("deeper", 10)}
        assert others == set(CODES) - {lease.region_code}

    def test_an_api_that_fails_for_one_region_does_not_fail_the_run(
        self, open_platform: OpenPlatform, simulator: Simulator
    ) -> None:
        app = open_platform(MOHE_MAX_CALLS_PER_REGION="30")
        store = store_of(app)
        collect(app)
        simulator.add_faults([{"api": "naver", "fault": "wrong_shape", "query_contains": "강남구"}])
        collection, outcomes = refine(app)
        assert collection.failed == []
        assert {one.lease.region_code for one in outcomes if one.outcome is Outcome.RELEASED} == {
            "11680"
        }
        assert statuses(store) == {"COMPLETED": 3}
        assert store.row("11680")["error_message"]


class TestPrecedenceOfPeople:
    def test_a_person_who_wants_a_region_afresh_takes_it_from_its_refinement(
        self, app: App, store: Store
    ) -> None:
        collect(app)
        app.executions.start("deeper")
        (refining,) = app.refinement.claim("deeper")
        code = refining.region_code
        assert app.checkpoints.claim("base", codes=[code], force_retry=True) == [], (
            "only when asked for afresh"
        )
        app.executions.start("person")
        (afresh,) = app.checkpoints.claim("person", codes=[code], recollect_completed_before=LATER)
        assert (afresh.round, store.row(code)["refining"]) == (2, False)
        with pytest.raises(LeaseLost):
            store.store(refining)

    def test_a_new_round_begins_for_regions_under_refinement_too(
        self, app: App, store: Store
    ) -> None:
        collect(app)
        app.executions.start("deeper")
        (refining,) = app.refinement.claim("deeper")
        assert sorted(app.checkpoints.new_round()) == sorted(CODES)
        assert statuses(store) == {"PENDING": 3}
        with pytest.raises(LeaseLost):
            store.store(refining)


class TestAChangedKeywordList:
    def test_only_what_is_new_is_searched_and_the_round_stays(
        self, open_platform: OpenPlatform, simulator: Simulator
    ) -> None:
        first = open_platform()
        store = store_of(first)
        collect(first)
        before = searches(store)
        more = open_platform(MOHE_SEARCH_KEYWORDS=",".join([*KEYWORDS, "서점"]))
        assert sorted(more.reopen_regions_with_old_plan()) == sorted(CODES)
        assert more.reopen_regions_with_old_plan() == [], "once"
        assert statuses(store) == {"PENDING": 3}
        collect(more, "with one more")
        assert len(searches(store)) == len(before) + 3
        assert {row["round"] for row in store.read("SELECT round FROM batch_checkpoint")} == {1}
        assert repeated(simulator.stats()["naver"]["answers_per_search"]) == 0

    def test_the_same_words_in_another_order_or_fewer_of_them_cost_no_call(
        self, open_platform: OpenPlatform, simulator: Simulator
    ) -> None:
        first = open_platform()
        collect(first)
        calls = simulator.stats(brief=True)["naver"]["received"]
        assert (
            open_platform(
                MOHE_SEARCH_KEYWORDS=",".join(reversed(KEYWORDS))
            ).reopen_regions_with_old_plan()
            == []
        )
        fewer = open_platform(MOHE_SEARCH_KEYWORDS=KEYWORDS[0])
        assert len(fewer.reopen_regions_with_old_plan()) == 3
        collect(fewer, "with fewer")
        assert simulator.stats(brief=True)["naver"]["received"] == calls


def test_threads_that_share_a_country_never_refine_one_region_at_once(
    app: App, store: Store
) -> None:
    collect(app)
    app.executions.start("deeper")
    claimed: list[str] = []

    def take() -> None:
        while found := app.refinement.claim("deeper"):
            claimed.extend(one.region_code for one in found)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(CODES)
    assert statuses(store) == {"PROCESSING": 3}
    assert SLICE_SEARCHES > 1
