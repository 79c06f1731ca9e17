"""SIGTERM and SIGINT: all held regions are released at once, and the next run continues."""

import signal
import time

import dagster as dg
import pytest

from mohe_assets.collection.scheduler import INTERRUPTED_FOUND
from mohe_assets.defs.runtime.console_logger import STOPPED
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.processes import (
    Collected,
    PageAgrees,
    StartWorker,
    executions,
    repeated,
    run_status,
    statuses,
    until,
)
from mohe_assets_tests.support.regions import FewRegions

ENOUGH_REGIONS = 40
THREADS = 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_worker_told_to_stop_gives_its_regions_back_within_ten_seconds(
    simulator: Simulator,
    database: Database,
    instance: dg.DagsterInstance,
    start_worker_from_a_shell: StartWorker,
    few: FewRegions,
    reference: Collected,
    number: signal.Signals,
    the_page_agrees: PageAgrees,
) -> None:
    codes = few(ENOUGH_REGIONS)
    simulator.configure(latency_ms=100)
    worker = start_worker_from_a_shell()
    until(lambda: statuses(database).get("COMPLETED", 0) >= 6, "six completions")
    told_at = time.monotonic()
    worker.send(number)
    worker.wait()
    seconds = time.monotonic() - told_at

    assert seconds < 10
    left = statuses(database)
    assert set(left) == {"COMPLETED", "PENDING"}, left
    stopped = executions(database)[0]
    assert stopped["status"] == "INTERRUPTED", stopped
    assert stopped["completed_regions"] == left["COMPLETED"]
    assert run_status(instance, stopped["execution_id"]) is dg.DagsterRunStatus.CANCELED

    following = start_worker_from_a_shell().succeed()

    assert STOPPED in worker.output
    assert "Stack Trace" not in worker.output
    assert following.output.count(INTERRUPTED_FOUND) == 1
    assert f"(실행 {stopped['execution_id']}, 지역 {left['PENDING']}개)" in following.output
    assert statuses(database) == {"COMPLETED": ENOUGH_REGIONS}
    assert Collected.of(database) == reference.only(codes)
    assert repeated(simulator.stats()["naver"]["answers_per_search"]) <= THREADS
    the_page_agrees()


def test_a_worker_that_waits_for_a_hanging_api_stops_in_time_too(
    simulator: Simulator,
    database: Database,
    start_worker_from_a_shell: StartWorker,
    few: FewRegions,
    the_page_agrees: PageAgrees,
) -> None:
    few(8)
    simulator.add_faults([{"api": "naver", "fault": "hang", "seconds": 60, "from_call": 3}])
    worker = start_worker_from_a_shell(MOHE_HTTP_TIMEOUT_SECONDS="50")
    until(
        lambda: simulator.stats(brief=True)["naver"]["faulted"] >= THREADS,
        "every thread waits for an answer",
    )
    told_at = time.monotonic()
    worker.send(signal.SIGTERM)
    worker.wait()

    assert time.monotonic() - told_at < 10
    assert "PROCESSING" not in statuses(database)
    assert executions(database)[0]["status"] == "INTERRUPTED"
    the_page_agrees()


def test_a_second_signal_while_it_stops_leaves_nothing_held(
    simulator: Simulator,
    database: Database,
    start_worker_from_a_shell: StartWorker,
    few: FewRegions,
) -> None:
    few(8)
    simulator.add_faults([{"api": "naver", "fault": "hang", "seconds": 60, "from_call": 3}])
    worker = start_worker_from_a_shell(MOHE_HTTP_TIMEOUT_SECONDS="50")
    until(
        lambda: simulator.stats(brief=True)["naver"]["faulted"] >= THREADS,
        "every thread waits for an answer",
    )
    worker.send(signal.SIGTERM)
    for _ in range(2):
        time.sleep(1)
        worker.send(signal.SIGTERM)
    worker.wait()

    assert "PROCESSING" not in statuses(database)
    assert executions(database)[0]["status"] == "INTERRUPTED"
