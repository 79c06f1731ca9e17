"""Each transition of the checkpoint state machine, and its guard against every other holder."""

import datetime as dt
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Connection, text

from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.errors import FailureKind, LeaseLost
from mohe_assets.store.checkpoints import RETRY_CAP_SECONDS, Lease
from mohe_assets.store.database import Database, Scope
from mohe_assets.store.executions import Ending
from mohe_assets.store.ledger import AttributedPlace, Write
from mohe_assets.store.refinement import Refinement
from mohe_assets_tests.support.stores import CODES, LATER, TYPE, Store, place, plan_of


class TestSeeding:
    def test_every_active_leaf_is_pending_and_a_second_seeding_adds_none(
        self, store: Store
    ) -> None:
        assert store.take_over(CODES) == 0
        assert [
            (row["region_code"], row["status"])
            for row in store.read("SELECT * FROM batch_checkpoint ORDER BY 1")
        ] == [(code, "PENDING") for code in CODES]

    def test_a_city_whose_gu_are_collected_gets_no_checkpoint(self, database: Database) -> None:
        store = Store.of(database, codes=("41110", "41111"))
        assert [
            row["region_code"] for row in store.read("SELECT region_code FROM batch_checkpoint")
        ] == ["41111"]

    def test_seeding_keeps_what_was_collected_and_takes_the_new_name(self, store: Store) -> None:
        store.complete(store.claim())
        store.execute(
            "UPDATE region SET region_name = '서울특별시 새강남구' WHERE region_code = '11680'"
        )
        assert store.database.transaction(store.checkpoints.seed) == 0
        assert (store.row()["region_name"], store.row()["status"]) == (
            "서울특별시 새강남구",
            "COMPLETED",
        )


class TestClaiming:
    def test_a_claim_takes_the_region_with_a_new_attempt_and_a_lease(self, store: Store) -> None:
        lease = store.claim()
        assert lease == Lease(
            region_code="11680",
            region_name="서울특별시 강남구",
            partition_key="11680_서울특별시_강남구",
            attempt=1,
            round=1,
        )
        row = store.row()
        assert (row["status"], row["attempt"], row["run_id"]) == ("PROCESSING", 1, "run")
        # Of the moment at which it got the row, a little later than its transaction began.
        lease_seconds = (row["lease_expires_at"] - row["start_time"]).total_seconds()
        assert lease_seconds == pytest.approx(60, abs=5)

    def test_a_region_that_is_held_cannot_be_claimed(self, store: Store) -> None:
        store.claim()
        assert (
            store.checkpoints.claim(
                "other", codes=["11680"], force_retry=True, recollect_completed_before=LATER
            )
            == []
        )

    def test_many_that_claim_at_once_never_get_the_same_region(self, database: Database) -> None:
        codes = [region.region_code for region in bundled_snapshot().leaves]
        store = Store.of(database, codes=codes)

        def claim_all(run_id: str) -> list[str]:
            mine: list[str] = []
            while found := store.checkpoints.claim(run_id, limit=3):
                mine += [lease.region_code for lease in found]
            return mine

        with ThreadPoolExecutor(8) as threads:
            claimed = Counter(
                code
                for mine in threads.map(claim_all, (f"run-{n}" for n in range(8)))
                for code in mine
            )
        # SKIP LOCKED may leave a claim that finds all it sees locked with nothing, but never gives
        # a region twice.
        assert set(claimed.values()) == {1}
        assert sorted([*claimed, *claim_all("last")]) == codes

    def test_a_claim_does_not_wait_for_one_that_is_under_way(self, store: Store) -> None:
        with store.database.engine.connect() as other, other.begin():
            other.execute(
                text("SELECT 1 FROM batch_checkpoint WHERE region_code = '11110' FOR UPDATE")
            )
            assert [lease.region_code for lease in store.checkpoints.claim("run")] == ["11140"]

    def test_pending_regions_come_first_then_failed_ones_by_their_failures(
        self, store: Store
    ) -> None:
        store.execute("UPDATE batch_checkpoint SET failures = 1 WHERE region_code = '11110'")
        store.execute(
            "UPDATE batch_checkpoint SET status = 'FAILED', retry_at = now(), failures = 2 "
            "WHERE region_code = '11140'"
        )
        store.execute(
            "UPDATE batch_checkpoint SET status = 'FAILED', retry_at = now(), failures = 1 "
            "WHERE region_code = '36110'"
        )
        order = [store.checkpoints.claim("run")[0].region_code for _ in CODES]
        assert order == ["11170", "11680", "41111", "11110", "36110", "11140"]

    def test_only_the_regions_asked_for_are_taken_and_none_a_second_time(
        self, store: Store
    ) -> None:
        found = store.checkpoints.claim(
            "run", limit=9, codes=["36110", "11680", "11110"], without=["11110"]
        )
        assert [lease.region_code for lease in found] == ["11680", "36110"]

    def test_an_abolished_region_is_not_claimed_and_comes_back_with_a_new_round(
        self, store: Store
    ) -> None:
        store.store(store.claim())
        store.expire()
        store.reclaim()
        store.take_over([code for code in CODES if code != "11680"])
        assert store.checkpoints.claim("run", codes=["11680"], force_retry=True) == []
        assert "11680_서울특별시_강남구" not in store.checkpoints.due_keys()
        assert store.checkpoints.due() == len(CODES) - 1

        assert store.take_over(CODES) == 0
        lease = store.claim()
        assert lease.partition_key == "11680_서울특별시_강남구_2"
        assert (lease.round, store.done(lease)) == (2, (set(), 0))
        assert store.read("SELECT round FROM search_query") == [{"round": 1}], "its history is kept"

    def test_a_run_that_was_declared_dead_takes_nothing(self, store: Store) -> None:
        store.executions.start("run")
        store.executions.finish("run", Ending.INTERRUPTED)
        assert store.checkpoints.claim("run", codes=["11680"]) == []

    def test_a_completed_region_is_taken_afresh_only_if_it_was_completed_before_it_was_asked_for(
        self, store: Store
    ) -> None:
        store.complete(store.claim())
        ended = store.row()["end_time"]
        assert store.checkpoints.claim("run", codes=["11680"]) == []
        assert store.checkpoints.claim("run", codes=["11680"], force_retry=True) == []
        assert (
            store.checkpoints.claim("run", codes=["11680"], recollect_completed_before=ended) == []
        )
        lease = store.claim(recollect_completed_before=ended + dt.timedelta(seconds=1))
        assert (lease.attempt, lease.round) == (2, 2)
        row = store.row()
        assert (
            row["searches_done"],
            row["calls_used"],
            row["processed_count"],
            row["end_time"],
        ) == (0, 0, 0, None)
        assert store.done(lease) == (set(), 0)


class TestHolding:
    def test_every_stored_search_renews_the_lease_and_derives_the_counters(
        self, store: Store
    ) -> None:
        lease = store.claim()
        store.expire()
        store.store(lease, 0, [place("a"), place("b")], calls=3)
        row = store.row()
        assert (row["searches_done"], row["calls_used"], row["processed_count"]) == (1, 3, 2)
        assert store.reclaim() == []

    def test_a_heartbeat_renews_what_is_still_held_and_nothing_else(self, store: Store) -> None:
        held, lost = store.claim("11680"), store.claim("11110")
        store.expire()
        store.execute("UPDATE batch_checkpoint SET attempt = 2 WHERE region_code = '11110'")
        assert store.checkpoints.renew([held, lost]) == 1
        assert store.checkpoints.renew([]) == 0
        assert store.reclaim() == ["11110"]

    def test_a_worker_that_slept_through_its_lease_writes_nothing_at_all(
        self, store: Store
    ) -> None:
        stale = store.claim(run_id="sleeper")
        store.expire()
        assert store.reclaim() == ["11680"]
        fresh = store.claim(run_id="successor")
        store.store(fresh, 0, [place("a")])
        before = store.everything()

        search = plan_of(stale)[1]
        with pytest.raises(LeaseLost, match="서울특별시 강남구"):
            store.store(stale, 1, [place("a", name="changed"), place("b")])
        with pytest.raises(LeaseLost):
            store.write(Write.skipped(stale, search, calls=1, reason="SE01"))
        with pytest.raises(LeaseLost):
            store.write(Write.failed(stale, search, calls=1, reason="HTTP 500"))
        with pytest.raises(LeaseLost):
            store.finish(stale)
        assert store.fail(stale) is False
        assert store.checkpoints.release(stale) is False
        assert store.checkpoints.renew([stale]) == 0
        assert store.everything() == before

    def test_the_same_attempt_writes_nothing_after_its_region_was_taken_back(
        self, store: Store
    ) -> None:
        lease = store.claim()
        store.expire()
        store.reclaim()
        before = store.everything()
        with pytest.raises(LeaseLost):
            store.store(lease, 0, [place("a")])
        assert store.everything() == before


class TestCompleting:
    def test_a_region_is_completed_once_the_ledger_has_its_plan(self, store: Store) -> None:
        lease = store.claim()
        store.store(lease, 0, [place("a"), place("b")])
        store.store(lease, 1, [place("b"), place("c")], calls=2)
        store.finish(lease)
        row = store.row()
        assert (row["status"], row["processed_count"], row["searches_done"], row["calls_used"]) == (
            "COMPLETED",
            3,
            2,
            3,
        )
        assert row["lease_expires_at"] is None
        assert row["end_time"] >= row["start_time"]

    @pytest.mark.parametrize("last", ["missing", "failed"])
    def test_a_region_that_lacks_a_search_of_its_plan_is_not_completed(
        self, store: Store, last: str
    ) -> None:
        lease = store.claim()
        store.store(lease, 0)
        if last == "failed":
            store.write(Write.failed(lease, plan_of(lease)[1], calls=4, reason="HTTP 500"))
        with pytest.raises(LeaseLost):
            store.finish(lease)
        assert store.row()["status"] == "PROCESSING"

    def test_a_search_the_api_refuses_for_good_does_not_keep_a_region_open(
        self, store: Store
    ) -> None:
        lease = store.claim()
        store.store(lease, 0)
        store.write(Write.skipped(lease, plan_of(lease)[1], calls=1, reason="SE01"))
        store.finish(lease)
        assert (store.row()["status"], store.row()["searches_done"]) == ("COMPLETED", 2)

    def test_a_search_of_an_earlier_round_does_not_count(self, store: Store) -> None:
        store.complete(store.claim())
        store.checkpoints.new_round()
        lease = store.claim()
        with pytest.raises(LeaseLost):
            store.finish(lease)

    def test_completing_again_after_an_unclear_commit_is_content(self, store: Store) -> None:
        lease = store.claim()
        store.complete(lease)
        before = store.row()
        store.finish(lease)
        assert store.row() == before

    def test_success_forgets_the_failures_before_it(self, store: Store) -> None:
        store.fail(store.claim())
        store.complete(store.claim(force_retry=True))
        row = store.row()
        assert (row["failures"], row["error_message"], row["failure_kind"], row["retry_at"]) == (
            0,
            None,
            None,
            None,
        )


class TestFailing:
    def test_a_failure_keeps_its_reason_and_what_was_stored(self, store: Store) -> None:
        lease = store.claim()
        store.store(lease, 0, [place("a")])
        assert store.fail(lease) is True
        row = store.row()
        assert (row["status"], row["error_message"], row["failure_kind"]) == (
            "FAILED",
            "HTTP 500",
            "transient",
        )
        assert (row["searches_done"], row["processed_count"], row["lease_expires_at"]) == (
            1,
            1,
            None,
        )
        again = store.claim(force_retry=True)
        assert (again.attempt, again.round) == (2, 1)
        assert len(store.done(again)[0]) == 1

    def test_the_wait_doubles_and_ends_at_the_last_attempt_until_a_person_asks(
        self, store: Store
    ) -> None:
        waits: list[float | None] = []
        for _ in range(3):
            store.fail(store.claim())
            row = store.row()
            waits.append(row["retry_at"] and (row["retry_at"] - row["end_time"]).total_seconds())
            store.execute(
                "UPDATE batch_checkpoint SET retry_at = now() - interval '1 second' "
                "WHERE retry_at IS NOT NULL"
            )
        assert waits == [60, 120, None]
        assert store.checkpoints.claim("run", codes=["11680"]) == []
        assert store.checkpoints.progress().given_up == 1

        assert store.checkpoints.retry(["11110"]) == []
        assert store.checkpoints.retry(["11680"]) == ["11680"]
        assert (store.row()["status"], store.row()["failures"]) == ("PENDING", 0)
        assert store.claim().attempt == 4

    def test_a_failed_region_is_not_claimed_before_its_time_but_by_a_person(
        self, store: Store
    ) -> None:
        store.fail(store.claim())
        assert store.checkpoints.claim("run", codes=["11680"]) == []
        assert store.checkpoints.due() == len(CODES) - 1
        assert store.claim(force_retry=True).attempt == 2

    def test_the_wait_is_never_longer_than_its_cap(self, store: Store) -> None:
        patient = replace(store.checkpoints, max_attempts=1_000)
        for failures in (9, 500):
            store.execute(
                "UPDATE batch_checkpoint SET failures = :n, status = 'PENDING'", n=failures
            )
            patient.fail(store.claim(), kind=FailureKind.TRANSIENT, message="x")
            row = store.row()
            assert (row["retry_at"] - row["end_time"]).total_seconds() == RETRY_CAP_SECONDS

    def test_a_final_failure_is_left_to_a_person(self, store: Store) -> None:
        store.fail(store.claim(), final=True)
        assert store.row()["retry_at"] is None
        assert store.checkpoints.retry() == ["11680"]

    def test_what_belongs_to_the_same_transaction_is_rolled_back_with_it(
        self, store: Store
    ) -> None:
        def spoil(connection: Connection) -> None:
            connection.execute(text("SELECT * FROM nowhere"))

        lease = store.claim()
        before = store.row()
        with pytest.raises(Exception, match="nowhere"):
            store.fail(lease, also=spoil)
        assert store.row() == before


class TestGivingBack:
    def test_a_released_region_is_pending_with_what_it_has(self, store: Store) -> None:
        lease = store.claim()
        search = store.store(lease)
        assert store.checkpoints.release(lease) is True
        row = store.row()
        assert (row["status"], row["lease_expires_at"], row["failures"]) == ("PENDING", None, 0)
        assert store.done(store.claim())[0] == {search.identity}

    def test_only_expired_leases_are_taken_back(self, store: Store) -> None:
        store.claim("11680")
        assert store.reclaim() == []
        store.expire()
        store.claim("11110")
        assert store.reclaim() == ["11680"]
        assert (store.row("11680")["status"], store.row("11110")["status"]) == (
            "PENDING",
            "PROCESSING",
        )

    def test_the_regions_of_a_dead_run_are_taken_back_before_their_leases_end(
        self, store: Store
    ) -> None:
        store.claim("11680", run_id="dead")
        store.claim("11110", run_id="alive")
        assert store.reclaim("dead") == ["11680"]

    def test_a_processing_region_without_a_lease_is_taken_back(self, store: Store) -> None:
        store.execute(
            "UPDATE batch_checkpoint SET status = 'PROCESSING' WHERE region_code = '11680'"
        )
        assert store.reclaim() == ["11680"]

    def test_completed_and_failed_regions_are_never_taken_back(self, store: Store) -> None:
        store.complete(store.claim("11680"))
        store.fail(store.claim("11110"))
        assert store.reclaim("run") == []


class TestRounds:
    def test_a_new_round_makes_completed_regions_pending_and_keeps_their_history(
        self, store: Store
    ) -> None:
        store.complete(store.claim("11680"))
        store.fail(store.claim("11110"))
        store.claim("11140")
        assert store.checkpoints.new_round() == ["11680"]
        row = store.row()
        assert (row["status"], row["round"], row["attempt"], row["searches_done"]) == (
            "PENDING",
            2,
            1,
            0,
        )
        assert store.read("SELECT count(*) AS n FROM search_query") == [{"n": 2}]

    @pytest.mark.parametrize("how", ["new_round", "claim", "new life"])
    def test_however_a_new_round_begins_it_keeps_nothing_of_the_one_before(
        self, store: Store, how: str
    ) -> None:
        store.complete(store.claim())
        store.execute("""UPDATE batch_checkpoint SET failures = 3, promise = 4, refinements = 2,
                           reported_at = now(),
                         retry_at = now(), error_message = 'HTTP 500', failure_kind = 'transient'
                          WHERE region_code = '11680'""")
        if how == "new_round":
            store.checkpoints.new_round(["11680"])
        elif how == "claim":
            store.claim(recollect_completed_before=LATER)
        else:
            store.take_over([code for code in CODES if code != "11680"])
            store.take_over(CODES)
        row = store.row()
        assert (row["round"], row["refining"]) == (2, False)
        zero = {
            "failures",
            "promise",
            "refinements",
            "searches_done",
            "calls_used",
            "processed_count",
        }
        assert {name: row[name] for name in zero} == dict.fromkeys(zero, 0)
        empty = {"retry_at", "error_message", "failure_kind", "reported_at", "end_time"}
        assert {name: row[name] for name in empty} == dict.fromkeys(empty)

    def test_a_region_collected_again_has_all_its_attempts_whatever_its_refinement_used_up(
        self, store: Store
    ) -> None:
        refinement = Refinement(checkpoints=store.checkpoints, calls_per_region=400)
        for code in CODES:
            store.complete(store.claim(code))
        store.execute("UPDATE batch_checkpoint SET promise = 1 WHERE region_code = '11680'")
        store.executions.start("deeper")
        for _ in range(store.checkpoints.max_attempts):
            store.execute(
                "UPDATE batch_checkpoint SET promise = 1, retry_at = NULL "
                "WHERE region_code = '11680'"
            )
            (refining,) = refinement.claim("deeper")
            store.fail(refining)
        store.fail(store.claim(recollect_completed_before=LATER))
        row = store.row()
        assert (row["status"], row["failures"]) == ("FAILED", 1)
        assert row["retry_at"] is not None, "it is tried again by itself"

    def test_a_round_from_nothing_leaves_only_what_is_held(self, store: Store) -> None:
        store.complete(store.claim("11680"))
        store.fail(store.claim("11110"))
        store.claim("11140")
        assert sorted(store.checkpoints.new_round(also_unfinished=True)) == [
            code for code in CODES if code != "11140"
        ]
        assert store.checkpoints.progress().pending == len(CODES) - 1

    def test_a_reset_empties_this_batch_and_seeds_it_again(self, store: Store) -> None:
        store.store(store.claim(), 0, [place("a")])
        assert store.checkpoints.reset() == len(CODES)
        assert store.read("SELECT * FROM places") == store.read("SELECT * FROM search_query") == []
        assert store.row()["attempt"] == 0


class TestReporting:
    def test_a_completion_tells_what_its_ledger_has(self, store: Store) -> None:
        lease = store.claim()
        stray = AttributedPlace(place=place("stray"), region_code="11110")
        own = AttributedPlace(place=place("own"), region_code="11680")
        store.store(lease, 0, places=[stray, own], result_count=5, calls=2)
        store.store(lease, 1, [place("own")])
        store.finish(lease)
        (told,) = store.checkpoints.completions()
        assert (
            told.places,
            told.places_new,
            told.out_of_region,
            told.searches,
            told.saturated,
        ) == (
            2,
            2,
            1,
            2,
            1,
        )
        assert (told.calls, told.set_aside, told.run_id, told.attempt) == (3, 0, "run", 1)
        assert told.seconds >= 0

    def test_a_completion_is_offered_until_it_was_reported(self, store: Store) -> None:
        store.executions.start("run")
        store.complete(store.claim())
        assert store.checkpoints.completions() == [], "its own run reports it"
        store.executions.finish("run", Ending.COMPLETED)
        found = store.checkpoints.completions()
        assert [one.region_code for one in found] == ["11680"]
        store.checkpoints.mark_reported(found)
        assert store.checkpoints.completions() == []

    def test_an_old_report_does_not_mark_a_newer_completion(self, store: Store) -> None:
        store.complete(store.claim())
        old = store.checkpoints.completions()
        store.complete(store.claim(recollect_completed_before=LATER))
        store.checkpoints.mark_reported(old)
        assert [one.round for one in store.checkpoints.completions()] == [2]

    def test_progress_counts_every_status(self, store: Store) -> None:
        store.complete(store.claim("11110"))
        store.fail(store.claim("11140"))
        store.claim("11170")
        progress = store.checkpoints.progress()
        assert (
            progress.total,
            progress.completed,
            progress.failed,
            progress.processing,
            progress.pending,
        ) == (6, 1, 1, 1, 3)
        assert progress.next_retry_at == store.row("11140")["retry_at"]
        standing = store.checkpoints.statuses(["11170", "11110", "99999"])
        assert [(one.region_code, one.status, one.run_id) for one in standing] == [
            ("11110", "COMPLETED", "run"),
            ("11170", "PROCESSING", "run"),
        ]

    def test_two_batches_over_the_same_regions_do_not_meet(self, store: Store) -> None:
        other = replace(
            store.checkpoints, scope=Scope(batch_name="another-batch", region_type=TYPE)
        )
        assert store.database.transaction(other.seed) == len(CODES)
        store.complete(store.claim())
        assert other.progress().completed == 0
        assert len(other.claim("other", codes=["11680"])) == 1
