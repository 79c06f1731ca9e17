"""A used-up quota or a refused key stops all workers at once, fails no region, and all resume
afterwards.
"""

import datetime as dt

import dagster as dg
import pytest

from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.processes import (
    Collected,
    PageAgrees,
    StartWorker,
    executions,
    run_status,
    statuses,
)
from mohe_assets_tests.support.rate_and_quota import set_noon
from mohe_assets_tests.support.regions import FewRegions

KST = dt.timezone(dt.timedelta(hours=9))
REGIONS = 60
SEARCHES = REGIONS * 2
WORKERS = 3
THREADS = 4


@pytest.mark.parametrize(
    ("theirs", "ours"), [(50, 1_000_000), (1_000_000, 50)], ids=["their count", "our count"]
)
def test_a_used_up_quota_stops_all_workers_as_a_success_and_they_go_on_after_midnight(
    simulator: Simulator,
    database: Database,
    instance: dg.DagsterInstance,
    start_worker: StartWorker,
    few: FewRegions,
    reference: Collected,
    theirs: int,
    ours: int,
    the_page_agrees: PageAgrees,
) -> None:
    codes = few(REGIONS)
    set_noon(database, simulator)
    simulator.configure(daily_quota=theirs, latency_ms=60)
    quota = {"MOHE_DAILY_QUOTA": str(ours)}

    for worker in [start_worker(**quota) for _ in range(WORKERS)]:
        worker.succeed()

    seen = simulator.stats()["naver"]
    assert seen["answered"] == 50
    assert seen["refused_quota"] <= (WORKERS * THREADS if theirs < ours else 0)
    assert set(statuses(database)) == {"COMPLETED", "PENDING"}
    assert [run["status"] for run in executions(database)] == ["COMPLETED"] * WORKERS
    assert {run_status(instance, run["execution_id"]) for run in executions(database)} == {
        dg.DagsterRunStatus.SUCCESS
    }
    assert len(Collected.of(database).searches) == 50

    if theirs < ours:
        start_worker(**quota).succeed()
        assert simulator.stats()["naver"]["received"] == seen["received"], (
            "the day is over for later runs, too"
        )
        # The reset is late: our midnight has passed, theirs has not. One call finds that out.
        set_noon(database, None, days_ahead=2)
        start_worker(**quota).succeed()
        assert simulator.stats()["naver"]["received"] == seen["received"] + 1
    set_noon(database, simulator, days_ahead=4)
    simulator.configure(daily_quota=None)
    start_worker(MOHE_DAILY_QUOTA="1000000").succeed()

    assert statuses(database) == {"COMPLETED": REGIONS}
    assert Collected.of(database) == reference.only(codes)
    assert set(simulator.stats()["naver"]["answers_per_search"].values()) == {1}
    the_page_agrees()


def test_a_refused_secret_costs_one_call_and_fails_no_region(
    simulator: Simulator,
    database: Database,
    instance: dg.DagsterInstance,
    start_worker: StartWorker,
    few: FewRegions,
    reference: Collected,
    the_page_agrees: PageAgrees,
) -> None:
    codes = few(12)
    simulator.configure(latency_ms=50)
    refused = [start_worker(NAVER_CLIENT_SECRET="not-the-secret") for _ in range(WORKERS)]
    for worker in refused:
        assert worker.wait() != 0
        assert "NAVER_CLIENT_ID" in worker.output
        assert "NAVER_CLIENT_SECRET" in worker.output

    assert simulator.stats()["naver"]["received"] == 1
    assert statuses(database) == {"PENDING": 12}
    assert {run["status"] for run in executions(database)} == {"FAILED"}
    assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.FAILURE}
    assert read(database, "SELECT 1 AS found FROM search_query WHERE status = 'DONE'") == []

    start_worker().succeed()

    assert statuses(database) == {"COMPLETED": 12}
    assert Collected.of(database) == reference.only(codes)
    the_page_agrees()
