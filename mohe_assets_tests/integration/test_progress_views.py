"""The views for people and monitoring: durations by attempt and round, totals, and planned
searches.
"""

import datetime as dt

from mohe_assets.errors import FailureKind
from mohe_assets.sources.naver_local.plan import base_plan
from mohe_assets.store.database import Database
from mohe_assets.store.executions import Ending
from mohe_assets.store.reads.progress import record_plan
from mohe_assets_tests.support.stores import CODES, KEYWORDS, SCOPE, Store, place

PROGRESS = "SELECT * FROM batch_progress WHERE region_code = '11680'"
MINUTES = dt.timedelta(minutes=1)


def earlier(store: Store, minutes: int) -> None:
    """Move the claims that far into the past."""
    store.execute(
        """UPDATE batch_checkpoint
             SET attempt_started_at = attempt_started_at - make_interval(mins => :minutes),
                                       start_time = start_time - make_interval(mins => :minutes)
            WHERE status = 'PROCESSING'""",
        minutes=minutes,
    )


def test_a_region_that_was_tried_twice_shows_its_last_attempt_and_the_time_of_both(
    database: Database,
) -> None:
    store = Store.of(database)
    record_plan(database, SCOPE, base_plan("", KEYWORDS))
    store.executions.start("run", total=1)
    lease = store.claim()
    store.store(lease, 0, [place("a"), place("b")])
    earlier(store, 10)
    held = store.read(PROGRESS)[0]
    assert (held["lease"], held["run_status"], held["searches_done"], held["searches_planned"]) == (
        "held",
        "RUNNING",
        1,
        2,
    )
    assert 10 * MINUTES <= held["attempt_duration"] <= held["working_time"] < 11 * MINUTES

    store.checkpoints.fail(lease, kind=FailureKind.TRANSIENT, message="HTTP 500")
    failed = store.read(PROGRESS)[0]
    assert (failed["lease"], failed["failure_kind"], failed["failures"], failed["attempt"]) == (
        "free",
        "transient",
        1,
        1,
    )
    assert 10 * MINUTES <= failed["attempt_duration"] == failed["working_time"] < 11 * MINUTES

    again = store.claim(force_retry=True)
    earlier(store, 5)
    store.complete(again)
    store.executions.finish("run", Ending.COMPLETED)
    done = store.read(PROGRESS)[0]
    assert (done["status"], done["attempt"], done["sido_name"], done["is_collected"]) == (
        "COMPLETED",
        2,
        "서울특별시",
        True,
    )
    assert (
        done["searches_done"],
        done["refinements"],
        done["places_found"],
        done["places_in_region"],
    ) == (2, 0, 2, 2)
    assert 5 * MINUTES <= done["attempt_duration"] < 6 * MINUTES
    assert 15 * MINUTES <= done["working_time"] < 16 * MINUTES

    store.checkpoints.new_round()
    anew = store.read(PROGRESS)[0]
    assert (anew["round"], anew["working_time"], anew["elapsed"]) == (2, dt.timedelta(), None)


def test_a_dead_holders_time_ends_with_its_lease(database: Database) -> None:
    store = Store.of(database)
    store.claim()
    earlier(store, 60)
    store.execute(
        "UPDATE batch_checkpoint SET lease_expires_at = now() - interval '50 minutes' "
        "WHERE status = 'PROCESSING'"
    )
    assert store.read(PROGRESS)[0]["lease"] == "expired"
    assert store.read("SELECT leases_expired FROM batch_totals") == [{"leases_expired": 1}]
    database.transaction(lambda connection: store.checkpoints.reclaim(connection, ()))
    found = store.read(PROGRESS)[0]
    assert (found["status"], round(found["working_time"] / MINUTES)) == ("PENDING", 10)


def test_totals_are_over_the_regions_that_are_collected_and_progress_is_over_all(
    database: Database,
) -> None:
    store = Store.of(database)
    record_plan(database, SCOPE, base_plan("", KEYWORDS))
    store.complete(store.claim())
    store.take_over(CODES[:4])
    rows = store.read("SELECT region_code, is_collected FROM batch_progress ORDER BY 1")
    assert [row["is_collected"] for row in rows] == [True] * 4 + [False] * 2
    totals = store.read("SELECT * FROM batch_totals")[0]
    assert (
        totals["regions"],
        totals["completed"],
        totals["pending"],
        totals["searches_planned"],
    ) == (4, 1, 3, 8)
    record_plan(database, SCOPE, base_plan("", (*KEYWORDS, "서점")))
    assert store.read("SELECT searches_planned FROM batch_totals") == [{"searches_planned": 12}]
