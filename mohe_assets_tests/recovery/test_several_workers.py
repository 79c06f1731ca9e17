"""Several workers on one database and one limit, one of them asleep beyond its lease."""

import signal

import dagster as dg

from mohe_assets.collection.scheduler import INTERRUPTED_FOUND
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.processes import (
    Collected,
    PageAgrees,
    StartWorker,
    backends_waiting,
    executions,
    holding,
    run_status,
    statuses,
    taken_from,
    until,
    written_by,
)
from mohe_assets_tests.support.regions import FewRegions

WORKERS = 3


def test_three_workers_share_the_regions_and_the_rate_and_repeat_nothing(
    simulator: Simulator,
    database: Database,
    database_url: str,
    start_worker: StartWorker,
    few: FewRegions,
    reference: Collected,
    the_page_agrees: PageAgrees,
) -> None:
    codes = few(100)
    simulator.configure(calls_per_second=50, latency_ms=30)
    # They start at the same moment, however long their processes took to start.
    with holding(database_url, "LOCK TABLE batch_execution_metadata IN ACCESS EXCLUSIVE MODE"):
        workers = [start_worker(MOHE_CALLS_PER_SECOND="50") for _ in range(WORKERS)]
        until(lambda: backends_waiting(database_url) == WORKERS, "all workers are at the start")
    for worker in workers:
        worker.succeed()

    assert statuses(database) == {"COMPLETED": 100}
    assert Collected.of(database) == reference.only(codes)
    assert set(simulator.stats()["naver"]["answers_per_search"].values()) == {1}
    assert read(database, "SELECT region_code FROM batch_checkpoint WHERE attempt <> 1") == [], (
        "each was taken once"
    )
    holders = read(
        database,
        "SELECT region_code FROM search_query GROUP BY region_code "
        "HAVING count(DISTINCT run_id) > 1",
    )
    assert holders == []
    shares = [run["completed_regions"] for run in executions(database)]
    assert sum(shares) == 100
    assert min(shares) > 0, "all took part"
    assert simulator.stats()["naver"]["refused_rate"] <= 20, "a tenth; together they know the limit"
    the_page_agrees()


def test_a_worker_that_slept_through_its_lease_writes_nothing_when_it_wakes(
    simulator: Simulator,
    database: Database,
    instance: dg.DagsterInstance,
    start_worker: StartWorker,
    few: FewRegions,
    reference: Collected,
    the_page_agrees: PageAgrees,
) -> None:
    codes = few(40)
    simulator.configure(latency_ms=150)
    short = {"MOHE_LEASE_SECONDS": "4", "MOHE_HEARTBEAT_SECONDS": "0.5"}
    sleeper = start_worker(**short)
    until(lambda: len(Collected.of(database).searches) >= 8, "eight searches")
    sleeper.send(signal.SIGSTOP)
    asleep = executions(database)[0]["execution_id"]
    simulator.configure(latency_ms=1000)
    # Not before: a statement that was on its way when the worker was stopped is still carried out
    # by the server.
    until(lambda: is_silent(database, asleep), "its lease ends")
    held = {
        row["region_code"]
        for row in read(
            database, "SELECT region_code FROM batch_checkpoint WHERE status = 'PROCESSING'"
        )
    }
    assert held
    written = written_by(database, asleep)

    other = start_worker(**short)
    # Woken while there is still much to be had: neither its own regions nor new ones are for it.
    until(lambda: taken_from(database, asleep) >= held, "its regions are somebody else's")
    assert "PENDING" in statuses(database)
    sleeper.send(signal.SIGCONT)
    sleeper.wait()
    simulator.configure(latency_ms=30)
    other.succeed()

    assert INTERRUPTED_FOUND in other.output
    assert written_by(database, asleep) == written
    assert statuses(database) == {"COMPLETED": 40}
    assert Collected.of(database) == reference.only(codes)
    assert [run["status"] for run in executions(database)] == ["INTERRUPTED", "COMPLETED"]
    # Never a failure, which would paint the regions red that it gave up.
    assert run_status(instance, asleep) is dg.DagsterRunStatus.CANCELED
    the_page_agrees()


def is_silent(database: Database, run_id: str) -> bool:
    sql = (
        "SELECT heartbeat_at < now() - interval '2.2 seconds' AS silent "
        "FROM batch_execution_metadata WHERE execution_id = :run"
    )
    return bool(read(database, sql, run=run_id)[0]["silent"])
