"""Collections of a few regions against the simulator: stored rows, and the regions after each kind
of failure.
"""

import dataclasses
import datetime as dt
import threading
import time
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text

from mohe_assets.app import App
from mohe_assets.clients.http import RetryPolicy
from mohe_assets.collection.region_worker import Outcome, RegionOutcome
from mohe_assets.collection.scheduler import LOCKED_SECONDS
from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.domain.search_plan import Search, SearchResult
from mohe_assets.errors import ApiBlocked, QuotaExhausted
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.api_state import read_state
from mohe_assets.store.database import Database
from mohe_assets_tests.support.collections import CODES, OpenApp, collect, kinds, started
from mohe_assets_tests.support.processes import holding, soon
from mohe_assets_tests.support.regions import keep_checkpoints
from mohe_assets_tests.support.stores import Store

pytestmark = pytest.mark.usefixtures("no_waiting")

GANGNAM = frozenset({"11680"})


@pytest.fixture(scope="module")
def template(regions_template: str) -> str:
    return regions_template


@pytest.fixture
def store(database: Database) -> Store:
    """All regions without their dongs, which a base plan does not need."""
    return Store.of(database, codes=[region.region_code for region in bundled_snapshot().regions])


def execution(store: Store, run_id: str = "run") -> dict[str, Any]:
    return store.read(
        "SELECT * FROM batch_execution_metadata WHERE execution_id = :run", run=run_id
    )[0]


def statuses(store: Store, codes: frozenset[str] = CODES) -> Counter[str]:
    sql = "SELECT status FROM batch_checkpoint WHERE region_code = ANY(:codes)"
    return Counter(row["status"] for row in store.read(sql, codes=sorted(codes)))


def answers(simulator: Simulator) -> dict[str, int]:
    return dict(simulator.stats()["naver"]["answers_per_search"])


class TestGoodDay:
    def test_a_run_completes_its_regions_with_one_call_a_search(
        self, few: App, store: Store, simulator: Simulator
    ) -> None:
        run, outcomes = collect(few)

        assert kinds(outcomes) == {Outcome.COMPLETED: 6}
        assert {one.lease.region_code for one in outcomes} == CODES
        assert (run.halted, run.failed, run.session.declared_dead) == (None, [], False)
        assert statuses(store) == {"COMPLETED": 6}
        seen = simulator.stats()["naver"]
        assert (seen["received"], set(answers(simulator).values())) == (12, {1})
        assert len(answers(simulator)) == 12

        row = execution(store)
        assert (row["status"], row["note"], row["total_regions"], row["completed_regions"]) == (
            "COMPLETED",
            None,
            6,
            6,
        )
        assert (row["calls_used"], row["failed_regions"]) == (12, 0)
        kept = store.read("SELECT count(DISTINCT p) AS n FROM search_query, unnest(place_ids) p")[
            0
        ]["n"]
        assert store.read("SELECT count(*) AS n FROM places") == [{"n": kept}]
        assert kept > 12
        assert store.read(
            "SELECT count(*) AS n FROM batch_checkpoint WHERE reported_at IS NOT NULL"
        ) == [{"n": 6}]
        assert read_state(few.database, few.account).used_today == 12

    def test_a_completion_tells_what_was_found(self, few: App, store: Store) -> None:
        _, (outcome,) = collect(few, GANGNAM)
        told, row = outcome.completion, store.row("11680")
        assert told is not None
        assert (told.places, told.searches, told.calls) == (row["processed_count"], 2, 2)
        assert told.places_new == told.places > 0
        assert told.partition_key == "11680_서울특별시_강남구"

    def test_a_stray_is_kept_with_the_region_of_its_address(
        self, few: App, store: Store, simulator: Simulator
    ) -> None:
        simulator.configure(stray_share=1.0)
        collect(few, GANGNAM)
        assert store.read("SELECT sum(strays)::int AS n FROM search_query")[0]["n"] > 0
        wrong = """SELECT p.address, r.region_name FROM places p JOIN region r
                     USING (region_type, region_code)
                    WHERE NOT starts_with(p.address, r.region_name)"""
        assert store.read(wrong) == []
        assert store.read("SELECT count(DISTINCT region_code) > 1 AS several FROM places") == [
            {"several": True}
        ]

    def test_without_codes_every_due_region_is_taken(self, open_app: OpenApp, store: Store) -> None:
        keep_checkpoints(store.database, CODES)
        _, outcomes = collect(open_app(MOHE_SEARCH_KEYWORDS="카페"), None)
        assert kinds(outcomes) == {Outcome.COMPLETED: 6}

    def test_a_request_from_a_clock_that_is_ahead_collects_a_region_once(self, few: App) -> None:
        ahead = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
        assert kinds(collect(few, GANGNAM, "run", recollect_completed_before=ahead)[1]) == {
            Outcome.COMPLETED: 1
        }

    def test_a_completed_region_is_not_collected_again_unless_it_is_asked_for_afresh(
        self, few: App, store: Store, simulator: Simulator
    ) -> None:
        collect(few, GANGNAM)
        assert collect(few, GANGNAM, "second", force_retry=True)[1] == []
        assert simulator.stats(brief=True)["naver"]["received"] == 2
        asked_at = store.row("11680")["end_time"] + dt.timedelta(microseconds=1)
        assert kinds(collect(few, GANGNAM, "third", recollect_completed_before=asked_at)[1]) == {
            Outcome.COMPLETED: 1
        }
        assert (store.row("11680")["round"], simulator.stats(brief=True)["naver"]["received"]) == (
            2,
            4,
        )

    def test_a_region_that_another_run_holds_is_left_to_it(self, few: App, store: Store) -> None:
        few.executions.start("other")
        store.claim("11680", run_id="other")
        run, outcomes = collect(few)
        assert kinds(outcomes) == {Outcome.COMPLETED: 5}
        assert [(one.region_code, one.run_id) for one in run.not_taken()] == [("11680", "other")]


class TestTogether:
    """The searches of a region are made several at a time, and regions one after the other."""

    WORDS = ("카페", "공원", "서점", "요가", "미술관", "영화관", "박물관", "갤러리")

    def test_the_searches_of_a_single_region_are_made_at_the_same_time(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        simulator.configure(latency_ms=300)
        _, (outcome,) = collect(
            open_app(MOHE_SEARCH_KEYWORDS=",".join(self.WORDS), MOHE_SEARCHES_IN_FLIGHT="8"),
            GANGNAM,
        )
        assert outcome.outcome is Outcome.COMPLETED
        moments = simulator.stats(moments=True)["naver"]["answered_at"]
        assert len(moments) == 8
        # One after the other the seven that follow the first would take 1.8 s between them.
        assert moments[-1] - moments[1] < 1.5
        row = store.row()
        assert (row["searches_done"], row["calls_used"]) == (8, 8)
        novel = store.read(
            "SELECT sum(novel)::int AS novel, sum(new_places)::int AS fresh FROM search_query"
        )[0]
        assert novel == {"novel": row["processed_count"], "fresh": row["processed_count"]}

    def test_regions_are_worked_off_one_after_the_other_so_that_few_are_half_done(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        simulator.configure(latency_ms=50)
        app = open_app(MOHE_SEARCH_KEYWORDS=",".join(self.WORDS), MOHE_SEARCHES_IN_FLIGHT="4")
        with started(app, CODES) as run, closing(run.outcomes()) as outcomes:
            next(outcomes)
            held = statuses(store)["PROCESSING"]
            begun = store.read("SELECT count(DISTINCT region_code) AS n FROM search_query")[0]["n"]
        assert held <= 4
        assert begun <= 5, "side by side all six would have been begun, and none be complete"

    def test_a_search_that_fails_is_set_aside_and_all_others_of_its_region_are_stored(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        simulator.configure(latency_ms=30)
        simulator.add_faults(
            [{"api": "naver", "fault": "wrong_shape", "query_contains": "강남구 요가"}]
        )
        app = open_app(MOHE_SEARCH_KEYWORDS=",".join(self.WORDS), MOHE_SEARCHES_IN_FLIGHT="3")
        assert kinds(collect(app, GANGNAM)[1]) == {Outcome.FAILED: 1}
        kept = store.read("SELECT count(*) AS n FROM search_query WHERE status = 'DONE'")[0]["n"]
        assert (store.row()["failure_kind"], store.row()["searches_done"], kept) == (
            "answer_changed",
            7,
            7,
        )
        simulator.clear_faults()
        assert kinds(collect(app, GANGNAM, "again", force_retry=True)[1]) == {Outcome.COMPLETED: 1}
        assert set(answers(simulator).values()) == {1}

    def test_they_do_not_spend_more_on_a_region_than_it_may_have(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        app = open_app(
            MOHE_SEARCH_KEYWORDS=",".join(self.WORDS),
            MOHE_SEARCHES_IN_FLIGHT="8",
            MOHE_MAX_CALLS_PER_REGION="5",
        )
        assert kinds(collect(app, GANGNAM)[1]) == {Outcome.FAILED: 1}
        assert (store.row()["failure_kind"], store.row()["calls_used"]) == ("call_budget", 5)
        assert simulator.stats(brief=True)["naver"]["received"] == 5


class TestBadDays:
    def test_a_quota_that_ends_in_the_middle_releases_the_rest_and_they_go_on_afterwards(
        self, few: App, store: Store, simulator: Simulator
    ) -> None:
        simulator.add_faults([{"api": "naver", "fault": "quota", "from_call": 6}])
        run, outcomes = collect(few)

        assert isinstance(run.halted, QuotaExhausted)
        assert Outcome.FAILED not in kinds(outcomes)
        assert statuses(store).keys() == {"PENDING", "COMPLETED"}
        assert (execution(store)["status"], execution(store)["note"]) == (
            "COMPLETED",
            str(run.halted),
        )
        received = simulator.stats(brief=True)["naver"]["received"]
        assert 6 <= received <= 5 + 3

        again, outcomes = collect(few, run_id="same day")
        assert isinstance(again.halted, QuotaExhausted)
        assert simulator.stats(brief=True)["naver"]["received"] == received, (
            "nothing is asked on a day that is over"
        )
        assert Outcome.COMPLETED not in kinds(outcomes)

        store.execute(
            "CREATE OR REPLACE FUNCTION budget_clock() RETURNS timestamptz LANGUAGE sql VOLATILE"
            " AS $$ SELECT clock_timestamp() + interval '2 days' $$"
        )
        simulator.clear_faults()
        collect(few, run_id="next day")
        assert statuses(store) == {"COMPLETED": 6}
        assert store.read("SELECT count(*) AS n FROM search_query WHERE status = 'DONE'") == [
            {"n": 12}
        ]

    def test_a_region_that_fails_does_not_keep_the_others_from_being_collected(
        self, few: App, store: Store, simulator: Simulator
    ) -> None:
        simulator.add_faults(
            [{"api": "naver", "fault": "system_error", "query_contains": "강남구 공원"}]
        )
        run, outcomes = collect(few)

        assert kinds(outcomes) == {Outcome.COMPLETED: 5, Outcome.FAILED: 1}
        row = store.row("11680")
        assert (row["status"], row["failure_kind"], row["failures"], row["searches_done"]) == (
            "FAILED",
            "transient",
            1,
            1,
        )
        assert "SE99" in row["error_message"]
        assert row["retry_at"] is not None
        assert row["calls_used"] == 1 + RetryPolicy().attempts, (
            "the calls of the failed search are paid, too"
        )
        assert [one.lease.region_code for one in run.failed] == ["11680"]
        assert execution(store)["status"] == "FAILED"

        simulator.clear_faults()
        assert collect(few, run_id="early")[1] == []
        assert kinds(collect(few, run_id="asked", force_retry=True)[1]) == {Outcome.COMPLETED: 1}
        assert answers(simulator)["서울특별시 강남구 카페|random"] == 1

    def test_a_persons_run_tries_a_region_that_fails_once(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        # The first of them, so that others are claimed after it.
        simulator.add_faults(
            [{"api": "naver", "fault": "system_error", "query_contains": "종로구 공원"}]
        )
        app = open_app(MOHE_SEARCHES_IN_FLIGHT="1")
        _, outcomes = collect(app, force_retry=True)
        assert kinds(outcomes) == {Outcome.COMPLETED: 5, Outcome.FAILED: 1}
        assert (store.row("11110")["failures"], store.row("11110")["attempt"]) == (1, 1)

    def test_a_run_in_which_a_region_failed_is_failed_although_the_quota_ended_it(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        simulator.add_faults(
            [{"api": "naver", "fault": "system_error", "query_contains": "종로구 공원"}]
        )
        simulator.add_faults([{"api": "naver", "fault": "quota", "from_call": 10}])
        run, outcomes = collect(open_app(MOHE_SEARCHES_IN_FLIGHT="1"))
        assert isinstance(run.halted, QuotaExhausted)
        assert kinds(outcomes)[Outcome.FAILED] == 1
        assert (execution(store)["status"], execution(store)["note"]) == (
            "FAILED",
            "1 region failed",
        )

    def test_an_answer_of_another_shape_fails_the_region_without_being_asked_for_again(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        simulator.add_faults(
            [{"api": "naver", "fault": "wrong_shape", "query_contains": "강남구 카페"}]
        )
        collect(open_app(MOHE_SEARCHES_IN_FLIGHT="1"), GANGNAM)
        assert (store.row()["status"], store.row()["failure_kind"], store.row()["calls_used"]) == (
            "FAILED",
            "answer_changed",
            2,
        )

    def test_a_query_the_api_refuses_is_skipped_and_its_region_completed(
        self, few: App, store: Store, simulator: Simulator
    ) -> None:
        simulator.add_faults(
            [{"api": "naver", "fault": "bad_query", "query_contains": "강남구 카페"}]
        )
        assert kinds(collect(few)[1]) == {Outcome.COMPLETED: 6}
        (skipped,) = store.read("SELECT * FROM search_query WHERE status <> 'DONE'")
        assert (skipped["status"], skipped["query"], skipped["calls"]) == (
            "SKIPPED",
            "서울특별시 강남구 카페",
            1,
        )
        assert "SE01" in skipped["error_message"]

    def test_items_that_are_garbage_are_set_aside_with_their_reasons_and_the_rest_is_stored(
        self, few: App, store: Store, simulator: Simulator
    ) -> None:
        simulator.configure(katech_share=1.0, place_name_share=1.0)
        _, outcomes = collect(few)
        assert kinds(outcomes) == {Outcome.COMPLETED: 6}
        sql = (
            "SELECT one->>'reason' AS reason, count(*) AS n "
            "FROM search_query, jsonb_array_elements(set_aside) one GROUP BY 1"
        )
        aside = {row["reason"]: row["n"] for row in store.read(sql)}
        assert aside.keys() == {"katech_coordinates", "place_name"}
        counted = """SELECT sum(result_count)::int AS answered,
                            sum(cardinality(place_ids) + jsonb_array_length(set_aside))::int AS told
                            FROM search_query"""
        assert len({*store.read(counted)[0].values()}) == 1
        assert sum(one.completion.set_aside for one in outcomes if one.completion) == sum(
            aside.values()
        )
        assert store.read("SELECT count(*) > 0 AS some FROM places") == [{"some": True}]

    def test_a_wrong_secret_costs_one_call_and_fails_no_region(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        run, outcomes = collect(open_app(NAVER_CLIENT_SECRET="recognisable-wrong-secret"))
        assert isinstance(run.halted, ApiBlocked)
        assert simulator.stats(brief=True)["naver"]["received"] == 1
        assert set(kinds(outcomes)) <= {Outcome.RELEASED}
        assert statuses(store) == {"PENDING": 6}
        note = execution(store)["note"]
        assert execution(store)["status"] == "FAILED"
        assert "NAVER_CLIENT_SECRET" in note
        assert "recognisable-wrong-secret" not in note

        collect(open_app(), run_id="with the right one")
        assert statuses(store) == {"COMPLETED": 6}

    def test_a_region_over_its_calls_fails_for_good_until_a_person_asks(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        collect(open_app(MOHE_MAX_CALLS_PER_REGION="1"), GANGNAM)
        row = store.row()
        assert (row["status"], row["failure_kind"], row["calls_used"], row["retry_at"]) == (
            "FAILED",
            "call_budget",
            1,
            None,
        )
        assert "MOHE_MAX_CALLS_PER_REGION" in row["error_message"]
        assert collect(open_app(), GANGNAM, "later")[1] == []
        assert kinds(collect(open_app(), GANGNAM, "asked", force_retry=True)[1]) == {
            Outcome.COMPLETED: 1
        }
        assert simulator.stats(brief=True)["naver"]["received"] == 2

    def test_our_own_bug_sets_its_region_apart_and_ends_the_run_loudly(
        self, few: App, store: Store
    ) -> None:
        with started(few, CODES) as run:
            run.work = dataclasses.replace(run.work, source=Broken(run.work.source))
            with pytest.raises(ZeroDivisionError):
                list(run.outcomes())
        row = store.row("11680")
        assert (row["status"], row["failure_kind"]) == ("FAILED", "internal")
        assert "ZeroDivisionError" in row["error_message"]
        assert "PROCESSING" not in statuses(store)
        assert execution(store)["status"] == "INTERRUPTED"


@dataclasses.dataclass(frozen=True)
class Broken:
    """A source with a bug that one region meets."""

    source: Any
    name: str = "naver-local"
    licence: Any = None

    def probe_search(self, *, without: str) -> Any:
        return self.source.probe_search(without=without)

    def plan(self, region_name: str) -> Any:
        return self.source.plan(region_name)

    def refinement_plan(self, *known: Any) -> Any:
        return self.source.refinement_plan(*known)

    async def perform(self, search: Search) -> SearchResult:
        if "강남구" in search.query:
            raise ZeroDivisionError
        answer: SearchResult = await self.source.perform(search)
        return answer


class TestInterruptions:
    def test_closing_the_iterator_gives_back_what_is_held_and_the_next_run_repeats_no_search(
        self, few: App, store: Store, simulator: Simulator
    ) -> None:
        simulator.configure(latency_ms=150)
        with started(few, CODES) as run, closing(run.outcomes()) as outcomes:
            first = next(outcomes)
        assert first.outcome is Outcome.COMPLETED
        assert statuses(store).keys() == {"COMPLETED", "PENDING"}
        assert (execution(store)["status"], execution(store)["note"]) == ("INTERRUPTED", "stopped")

        collect(few, run_id="next")
        assert statuses(store) == {"COMPLETED": 6}
        assert set(answers(simulator).values()) == {1}
        assert len(answers(simulator)) == 12

    def test_outcomes_that_come_faster_than_they_are_reported_are_given_together(
        self, few: App, store: Store, simulator: Simulator
    ) -> None:
        simulator.configure(latency_ms=150)
        with started(few, CODES) as run, closing(run.batches()) as batches:
            first = next(batches)
            soon(lambda: statuses(store) == {"COMPLETED": 6}, "the collection goes on meanwhile")
            soon(
                lambda: not any(thread.name == "collect" for thread in threading.enumerate()),
                "all is reached",
            )
            assert (
                store.read("SELECT 1 AS told FROM batch_checkpoint WHERE reported_at IS NOT NULL")
                == []
            )
            rest = next(batches)
            assert list(batches) == []
        assert {one.lease.region_code for one in first + rest} == CODES
        assert store.read(
            "SELECT count(*) AS n FROM batch_checkpoint WHERE reported_at IS NOT NULL"
        ) == [{"n": 6}]

    def test_what_a_caller_did_not_report_is_offered_to_others(
        self, few: App, store: Store
    ) -> None:
        with started(few, GANGNAM) as run, closing(run.outcomes()) as outcomes:
            next(outcomes)
        assert store.row()["reported_at"] is None
        assert [one.region_code for one in few.checkpoints.completions()] == ["11680"]

    def test_keywords_added_to_a_region_that_is_under_way_cost_only_the_new_searches(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        simulator.add_faults([{"api": "naver", "fault": "wrong_shape", "query_contains": "공원"}])
        collect(open_app(), GANGNAM)
        simulator.clear_faults()
        collect(open_app(MOHE_SEARCH_KEYWORDS="카페,서점"), GANGNAM, "later", force_retry=True)
        once = {"서울특별시 강남구 카페|random": 1, "서울특별시 강남구 서점|random": 1}
        assert answers(simulator) == {**once, "부산광역시 해운대구 카페|random": 1}, (
            "and one that shows that the API is well"
        )
        assert store.row()["status"] == "COMPLETED"

    def test_a_batch_is_not_over_while_a_due_region_is_locked_for_a_moment(
        self, open_app: OpenApp, store: Store
    ) -> None:
        keep_checkpoints(store.database, GANGNAM)
        app = open_app()
        with app.database.engine.begin() as connection:
            connection.execute(text("SELECT 1 FROM batch_checkpoint FOR UPDATE"))
            with started(app, None) as run, closing(run.outcomes()) as outcomes:
                found = threading.Thread(target=lambda: seen.extend(outcomes))
                seen: list[RegionOutcome] = []
                found.start()
                time.sleep(2 * LOCKED_SECONDS)
                connection.rollback()
                found.join()
        assert kinds(seen) == {Outcome.COMPLETED: 1}
        assert (execution(store)["status"], execution(store)["note"]) == ("COMPLETED", None)

    def test_a_region_that_was_lost_is_collected_by_the_same_batch(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        simulator.configure(latency_ms=150)
        keep_checkpoints(store.database, CODES)
        app = open_app(MOHE_SEARCHES_IN_FLIGHT="1")
        with started(app, None) as run, closing(run.outcomes()) as outcomes:
            seen = [next(outcomes)]
            held = store.read(
                "SELECT region_code FROM batch_checkpoint WHERE status = 'PROCESSING'"
            )
            app.checkpoints.force_release([row["region_code"] for row in held])
            seen += outcomes
        assert statuses(store) == {"COMPLETED": 6}
        assert kinds(seen)[Outcome.COMPLETED] == 6

    def test_a_run_takes_back_what_a_dead_run_holds_before_it_ends(
        self, open_app: OpenApp, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        keep_checkpoints(store.database, CODES)
        app = open_app()
        app.executions.start("dead")
        store.claim("11680", run_id="dead")
        store.execute(
            "UPDATE batch_execution_metadata SET heartbeat_at = now() - interval '1 hour'"
        )
        _, outcomes = collect(app, None)
        assert kinds(outcomes) == {Outcome.COMPLETED: 6}
        assert execution(store, "dead")["status"] == "INTERRUPTED"
        assert "중단된 배치 발견 - 자동 재시작합니다" in caplog.text

    def test_a_run_that_was_declared_dead_while_it_worked_ends_and_says_so(
        self, open_app: OpenApp, store: Store, simulator: Simulator
    ) -> None:
        simulator.configure(latency_ms=150)
        app = open_app(MOHE_HEARTBEAT_SECONDS="0.2", MOHE_SEARCHES_IN_FLIGHT="1")
        with started(app, None) as run:
            outcomes = run.outcomes()
            next(outcomes)
            store.execute(
                "UPDATE batch_execution_metadata SET heartbeat_at = now() - interval '1 hour'"
            )
            store.execute("UPDATE batch_execution_metadata SET status = 'INTERRUPTED'")
            left = list(outcomes)
        assert run.session.declared_dead
        assert len(left) < 250
        assert execution(store)["status"] == "INTERRUPTED"
        assert (
            store.read("SELECT 1 AS held FROM batch_checkpoint WHERE status = 'PROCESSING'") == []
        )

    def test_a_run_whose_lease_may_be_over_asks_nothing_until_it_has_heard_whether_it_still_lives(
        self, open_app: OpenApp, simulator: Simulator
    ) -> None:
        simulator.configure(latency_ms=50)
        app = open_app(
            MOHE_HEARTBEAT_SECONDS="0.2", MOHE_LEASE_SECONDS="2", MOHE_SEARCHES_IN_FLIGHT="1"
        )

        def received() -> int:
            return int(simulator.stats(brief=True)["naver"]["received"])

        with started(app, None) as run, closing(run.outcomes()) as outcomes:
            next(outcomes)
            # As if the network were gone: no heartbeat comes through, while answers do, and are
            # stored.
            with app.database.engine.begin() as connection:
                connection.execute(text("SELECT 1 FROM batch_execution_metadata FOR UPDATE"))
                time.sleep(2.5)
                before = received()
                time.sleep(0.5)
                after = received()
            soon(lambda: received() > after, "it lives, and goes on")
        assert before == after

    def test_a_run_takes_none_of_its_own_regions_back_after_their_table_was_locked_for_long(
        self, open_app: OpenApp, simulator: Simulator, store: Store, database_url: str
    ) -> None:
        simulator.configure(latency_ms=50)
        # A lease and a half, as 90 s are of a minute.
        app = open_app(MOHE_HEARTBEAT_SECONDS="0.2", MOHE_LEASE_SECONDS="2")
        with started(app, None) as run, closing(run.outcomes()) as outcomes:
            next(outcomes)
            with holding(database_url, "LOCK TABLE batch_checkpoint IN ACCESS EXCLUSIVE MODE"):
                time.sleep(3)
            # Another process looks at that very moment.
            reaped = app.executions.reap_dead_runs(app.checkpoints)
            left = list(outcomes)
        assert (reaped.dead_runs, reaped.regions) == ((), ())
        assert {one.outcome for one in left} == {Outcome.COMPLETED}
        ended = execution(store)
        assert (ended["status"], ended["note"]) == ("COMPLETED", None)
        assert store.read("SELECT 1 AS due FROM batch_checkpoint WHERE status <> 'COMPLETED'") == []


class TestBeforeABatch:
    def test_auto_initialization_empties_everything_and_says_so(
        self, few: App, open_app: OpenApp, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        collect(few, GANGNAM)
        open_app(BATCH_AUTO_INITIALIZATION="true").prepare_batch()
        assert "BATCH_AUTO_INITIALIZATION is true" in caplog.text
        assert store.read("SELECT count(*) AS n FROM places") == [{"n": 0}]
        assert (store.row()["status"], store.row()["attempt"]) == ("PENDING", 0)

    def test_without_checkpoints_every_region_is_collected_anew(
        self, few: App, open_app: OpenApp, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        collect(few, GANGNAM)
        open_app(CHECKPOINT_ENABLED="false").prepare_batch()
        assert "CHECKPOINT_ENABLED is false" in caplog.text
        assert (store.row()["status"], store.row()["round"]) == ("PENDING", 2)

    def test_by_default_nothing_is_lost(self, few: App, store: Store) -> None:
        collect(few, GANGNAM)
        before = store.everything()
        few.prepare_batch()
        assert store.everything() == before
