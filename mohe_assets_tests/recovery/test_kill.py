"""kill -9 at any moment: nothing lost, only searches in flight repeated, no person needed."""

import random
import time

import dagster as dg
import psycopg2

from mohe_assets.collection.scheduler import INTERRUPTED_FOUND
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.processes import (
    PLACES,
    Collected,
    PageAgrees,
    StartWorker,
    backends_waiting,
    end_waiting_backends,
    executions,
    holding,
    materializations,
    partition_of,
    repeated,
    run_status,
    statuses,
    until,
)
from mohe_assets_tests.support.regions import FewRegions

THREADS = 4
SEARCHES = 256 * 2


def until_call(simulator: Simulator, number: int) -> None:
    until(lambda: simulator.stats(brief=True)["naver"]["received"] >= number, f"call {number}")


def test_a_collection_killed_again_and_again_brings_what_an_uninterrupted_one_brings(
    simulator: Simulator,
    database: Database,
    instance: dg.DagsterInstance,
    start_worker: StartWorker,
    reference: Collected,
    the_page_agrees: PageAgrees,
) -> None:
    simulator.configure(latency_ms=25)
    moments = random.Random(20261123)
    targets = sorted(moments.sample(range(20, SEARCHES - 40), 4))
    for number, target in enumerate(targets):
        worker = start_worker()
        until_call(simulator, target)
        time.sleep(moments.uniform(0, 0.05))
        worker.kill()
        assert (INTERRUPTED_FOUND in worker.output) == (number > 0)
    last = start_worker().succeed()

    assert INTERRUPTED_FOUND in last.output
    assert statuses(database) == {"COMPLETED": 256}
    assert Collected.of(database) == reference
    assert [run["status"] for run in executions(database)] == ["INTERRUPTED"] * 4 + ["COMPLETED"]
    answers = simulator.stats()["naver"]["answers_per_search"]
    assert len(answers) == SEARCHES
    assert repeated(answers) <= len(targets) * THREADS
    assert len(instance.get_materialized_partitions(PLACES)) == 256
    ended = [run_status(instance, run["execution_id"]) for run in executions(database)]
    assert ended == [dg.DagsterRunStatus.CANCELED] * 4 + [dg.DagsterRunStatus.SUCCESS]
    assert (
        read(database, "SELECT region_code FROM batch_checkpoint WHERE reported_at IS NULL") == []
    )
    the_page_agrees()


def test_completions_whose_events_the_kill_lost_are_reported_by_the_next_run(
    simulator: Simulator,
    database: Database,
    instance: dg.DagsterInstance,
    dagster_url: str,
    start_worker: StartWorker,
    few: FewRegions,
    the_page_agrees: PageAgrees,
) -> None:
    few(24)
    simulator.configure(latency_ms=100)
    worker = start_worker()
    until(lambda: statuses(database).get("COMPLETED", 0) >= 4, "four completions")
    # Dagster's event log takes nothing any more, ours does: the worker commits completions that it
    # cannot report.
    with holding(dagster_url, "LOCK TABLE event_logs IN ACCESS EXCLUSIVE MODE"):
        until(lambda: statuses(database).get("COMPLETED", 0) >= 12, "completions nobody can report")
        worker.kill()
        end_waiting_backends(dagster_url)
    completed = read(
        database, "SELECT region_code, region_name FROM batch_checkpoint WHERE status = 'COMPLETED'"
    )
    told_before = instance.get_materialized_partitions(PLACES)
    assert len(told_before) < len(completed)

    said = start_worker().succeed().output

    assert [
        row["region_name"] for row in completed if row["region_name"] not in worker.output + said
    ] == []
    assert "which ended before it reported them" in said
    assert statuses(database) == {"COMPLETED": 24}
    assert len(instance.get_materialized_partitions(PLACES)) == 24
    events = [record.event_log_entry for record in materializations(instance)]
    runless = {partition_of(event) for event in events if not event.run_id}
    assert len(runless) >= len(completed) - len(told_before) > 0
    assert runless | told_before <= instance.get_materialized_partitions(PLACES)
    assert (
        read(database, "SELECT region_code FROM batch_checkpoint WHERE reported_at IS NULL") == []
    )
    the_page_agrees()


def test_a_recovery_that_is_killed_itself_is_done_by_the_next_run(
    simulator: Simulator,
    database: Database,
    instance: dg.DagsterInstance,
    start_worker: StartWorker,
    few: FewRegions,
    database_url: str,
    dagster_url: str,
    reference: Collected,
    the_page_agrees: PageAgrees,
) -> None:
    codes = few(16)
    simulator.configure(latency_ms=150)
    first = start_worker()
    until(
        lambda: (
            statuses(database).get("PROCESSING", 0) > 0 and len(Collected.of(database).searches) > 6
        ),
        "a few searches",
    )
    first.kill()
    held = statuses(database)["PROCESSING"]
    assert held > 0

    # While it takes the regions back: the dead run's row is locked, so it is waiting for that one
    # when it dies.
    with holding(
        database_url, "SELECT FROM batch_execution_metadata WHERE status = 'RUNNING' FOR UPDATE"
    ):
        second = start_worker()
        until(
            lambda: backends_waiting(database_url) > 0, "the recovery waits for the dead run's row"
        )
        second.kill()
        end_waiting_backends(database_url)
    assert statuses(database)["PROCESSING"] == held

    # After it took the regions back, before the dead run is ended in Dagster.
    dead = executions(database)[0]["execution_id"]
    with holding(dagster_url, f"SELECT FROM runs WHERE run_id = '{dead}' FOR UPDATE"):
        third = start_worker()
        until(lambda: INTERRUPTED_FOUND in third.output, "the regions are taken back")
        until(
            lambda: backends_waiting(dagster_url) > 0, "the recovery waits for the run in Dagster"
        )
        third.kill()
        end_waiting_backends(dagster_url)
    assert "PROCESSING" not in statuses(database)
    assert run_status(instance, dead) is dg.DagsterRunStatus.STARTED

    start_worker().succeed()

    assert Collected.of(database) == reference.only(codes)
    assert repeated(simulator.stats()["naver"]["answers_per_search"]) <= THREADS
    assert statuses(database) == {"COMPLETED": 16}
    assert run_status(instance, dead) is dg.DagsterRunStatus.CANCELED
    assert {run["status"] for run in executions(database)} == {"INTERRUPTED", "COMPLETED"}
    assert not [run for run in instance.get_runs() if not run.is_finished]
    the_page_agrees()


def test_a_run_killed_before_its_first_word_is_ended_in_dagster_after_a_while(
    database: Database,
    instance: dg.DagsterInstance,
    start_worker: StartWorker,
    few: FewRegions,
    database_url: str,
    dagster_url: str,
    the_page_agrees: PageAgrees,
) -> None:
    few(4)
    with holding(database_url, "LOCK TABLE batch_execution_metadata IN ACCESS EXCLUSIVE MODE"):
        worker = start_worker()
        until(lambda: backends_waiting(database_url) > 0, "the run is about to look for dead ones")
        worker.kill()
        end_waiting_backends(database_url)
    assert executions(database) == []
    with psycopg2.connect(dagster_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE runs SET update_timestamp = update_timestamp - interval '10 minutes' "
            "WHERE status = 'STARTED'"
        )
        assert cursor.rowcount == 1
    connection.close()

    start_worker().succeed()

    assert statuses(database) == {"COMPLETED": 4}
    assert not [run for run in instance.get_runs() if not run.is_finished]
    the_page_agrees()
