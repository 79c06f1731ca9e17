"""PostgreSQL goes away under a running collection: the same process waits, reconnects and
completes.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.env import environment as dagster_environment
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.postgres.databases import ensure_ready, resolve_urls
from mohe_assets.postgres.embedded import DAGSTER_DATABASE, DATA_DATABASE, EmbeddedServer
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.dagster_instances import dagster_instance
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import (
    PLACES,
    Collected,
    StartWorker,
    assert_the_page_agrees,
    backends_waiting,
    executions,
    holding,
    repeated,
    statuses,
    until,
)
from mohe_assets_tests.support.regions import keep_regions

REGIONS = 60
THREADS = 4


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """A server that only this test uses, so that it may stop it."""
    home = Path(tempfile.mkdtemp(prefix="mohe-own-"))
    home.chmod(0o755)
    server = EmbeddedServer(home=home)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.data)
    shutil.rmtree(home)


@pytest.fixture
def environment(environment: Environment, own_server: EmbeddedServer) -> Environment:
    """Data and Dagster's storage in the server that goes away, as they are by default."""
    variables = {
        **environment,
        "MOHE_DATABASE_URL": own_server.url(DATA_DATABASE),
        "MOHE_DAGSTER_DATABASE_URL": own_server.url(DAGSTER_DATABASE),
    }
    settings = settings_module.load(variables)
    return {**variables, **dagster_environment(settings, resolve_urls(settings))}


def start_patiently(server: EmbeddedServer) -> None:
    """Wait until backends and shared memory of a killed postmaster are gone."""

    def started() -> bool:
        try:
            server.start()
        except DatabaseUnavailable:
            return False
        return True

    until(started, "the server starts again")


def crash(server: EmbeddedServer) -> None:
    """Kill -9 of the postmaster this test started."""
    os.kill(
        int((server.data / "postmaster.pid").read_text(encoding="ascii").split()[0]), signal.SIGKILL
    )
    until(lambda: not server.running, "the server is gone")


def all_threads_wait_for_answers(simulator: Simulator) -> None:
    """Answers are under way that will be there before the server is: they have to be kept until it
    takes them.
    """
    simulator.clear_faults()
    simulator.add_faults([{"api": "naver", "fault": "slow", "seconds": 1, "times": THREADS}])
    until(lambda: simulator.faults()[0]["fired"] == THREADS, "all threads wait for an answer")
    # What they completed before is reported by now: Dagster's own storage does not wait for its
    # database.
    time.sleep(0.3)


@pytest.fixture
def own_database(environment: Environment) -> Iterator[Database]:
    """Ours in that server, with the regions taken over."""
    settings = settings_module.load(environment)
    ensure_ready(settings)
    with App.open(settings) as app:
        app.refresh_regions()
        yield app.database


def test_a_collection_goes_on_after_its_database_was_restarted_and_after_it_crashed(
    simulator: Simulator,
    own_server: EmbeddedServer,
    own_database: Database,
    start_worker: StartWorker,
    reference: Collected,
) -> None:
    codes = keep_regions(own_database, REGIONS)
    simulator.configure(latency_ms=30)
    worker = start_worker()

    until(lambda: simulator.stats(brief=True)["naver"]["answered"] >= 10, "ten answers")
    all_threads_wait_for_answers(simulator)
    own_server.stop()
    start_patiently(own_server)
    all_threads_wait_for_answers(simulator)
    crash(own_server)
    start_patiently(own_server)
    worker.succeed()

    assert statuses(own_database) == {"COMPLETED": REGIONS}
    assert [run["status"] for run in executions(own_database)] == ["COMPLETED"]
    assert Collected.of(own_database) == reference.only(codes)
    assert (
        read(own_database, "SELECT region_code FROM batch_checkpoint WHERE reported_at IS NULL")
        == []
    )
    # An answer is kept in memory and stored once the database is back: nothing has to be asked
    # twice.
    assert repeated(simulator.stats()["naver"]["answers_per_search"]) == 0


def test_a_restart_while_dagster_is_told_of_a_completion_loses_nothing(
    simulator: Simulator,
    own_server: EmbeddedServer,
    own_database: Database,
    start_worker: StartWorker,
    reference: Collected,
    settings: settings_module.Settings,
) -> None:
    codes = keep_regions(own_database, 24)
    simulator.configure(latency_ms=100)
    worker = start_worker()
    until(lambda: statuses(own_database).get("COMPLETED", 0) >= 4, "four completions")
    with holding(
        own_server.url(DAGSTER_DATABASE), "LOCK TABLE event_logs IN ACCESS EXCLUSIVE MODE"
    ):
        until(
            lambda: backends_waiting(own_server.url(DAGSTER_DATABASE)) > 0,
            "an event is being written",
        )
        own_server.stop()
    start_patiently(own_server)
    worker.succeed()

    assert statuses(own_database) == {"COMPLETED": 24}
    assert Collected.of(own_database) == reference.only(codes)
    assert repeated(simulator.stats()["naver"]["answers_per_search"]) <= THREADS
    with dagster_instance(settings) as instance:
        assert len(instance.get_materialized_partitions(PLACES)) == 24
        assert not [run for run in instance.get_runs() if not run.is_finished]
        with App.open(settings) as app:
            assert_the_page_agrees(instance, app)
