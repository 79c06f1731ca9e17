"""Two hosts with workers of their own on one database and one API limit, each of them cut off in
the middle once.

The first for longer than its lease, but so shortly that what it had sent arrives when it is back;
the second until its connections are given up.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import pytest
from sqlalchemy.engine import make_url

from mohe_assets import settings as settings_module
from mohe_assets.cli.env import environment as dagster_environment
from mohe_assets.collection.heartbeat import DECLARED_DEAD
from mohe_assets.collection.scheduler import INTERRUPTED_FOUND
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.environments import KEYWORDS, Environment
from mohe_assets_tests.support.hosts import Host, Target, has_namespaces, host
from mohe_assets_tests.support.processes import (
    Collected,
    PageAgrees,
    Worker,
    executions,
    repeated,
    run_status,
    statuses,
    taken_from,
    until,
    written_by,
)
from mohe_assets_tests.support.regions import FewRegions

THREADS = 4
LIMIT = 20
LEASE_SECONDS = 4
REGIONS = 150

StartOn = Callable[[Host], Worker]


@pytest.fixture
def hosts(simulator: Simulator, database_url: str) -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach the database and the API, and each other not at all."""
    folder = make_url(database_url).query["host"]
    api = urlsplit(simulator.url)
    services: list[Target] = [(f"{folder}/.s.PGSQL.5432",), (str(api.hostname), str(api.port))]
    with ExitStack() as stack:
        yield stack.enter_context(host(1, services)), stack.enter_context(host(2, services))


@pytest.fixture
def start_on(process_environment: Callable[..., Environment], tmp_path: Path) -> Iterator[StartOn]:
    """Starts a batch on a host; none outlives the test."""
    started: list[Worker] = []

    def start(where: Host) -> Worker:
        database, api = where.ports
        plain = process_environment(
            MOHE_HOME=str(tmp_path / f"home-{len(started)}"),
            MOHE_NAVER_API_URL=f"http://{where.address}:{api}",
            MOHE_GOVERNMENT_API_URL=f"http://{where.address}:{api}",
            MOHE_CALLS_PER_SECOND=str(LIMIT),
            MOHE_LEASE_SECONDS=str(LEASE_SECONDS),
            # An answer that was on its way is waited for until the host is back.
            MOHE_HTTP_TIMEOUT_SECONDS="60",
        )
        for name in ("MOHE_DATABASE_URL", "MOHE_DAGSTER_DATABASE_URL"):
            there = make_url(plain[name]).set(host=where.address, port=database, query={})
            plain[name] = there.render_as_string(hide_password=False)
        settings = settings_module.load(plain)
        environment = {**plain, **dagster_environment(settings, resolve_urls(settings))}
        worker = Worker(environment, tmp_path / f"worker-{len(started)}.log", wrapper=where.wrapper)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.end()


def nth_run(database: Database, number: int) -> str:
    """The id of that run, once it has begun."""
    until(lambda: len(executions(database)) == number, f"run {number} has begun")
    return str(executions(database)[-1]["execution_id"])


def cut_off(where: Host, run: str, database: Database) -> tuple[set[str], list[dict[str, object]]]:
    """Return the regions that its run holds from now on, and its rows in the ledger."""
    where.cut_off()
    time.sleep(0.5)  # what had arrived is written by then
    sql = "SELECT region_code FROM batch_checkpoint WHERE status = 'PROCESSING' AND run_id = :run"
    held = {row["region_code"] for row in read(database, sql, run=run)}
    assert held
    return held, written_by(database, run)


def searches_of(database: Database, run: str) -> int:
    sql = "SELECT count(*) AS n FROM search_query WHERE run_id = :run AND status = 'DONE'"
    return int(read(database, sql, run=run)[0]["n"])


def test_hosts_that_are_cut_off_and_come_back_cost_a_few_calls_and_write_nothing_late(
    hosts: tuple[Host, Host],
    start_on: StartOn,
    simulator: Simulator,
    database: Database,
    instance: dg.DagsterInstance,
    few: FewRegions,
    reference: Collected,
    the_page_agrees: PageAgrees,
) -> None:
    codes = few(REGIONS)
    simulator.configure(calls_per_second=LIMIT, latency_ms=200)
    first, second = hosts
    early = start_on(first)
    run = nth_run(database, 1)
    other = start_on(second)
    other_run = nth_run(database, 2)
    until(
        lambda: searches_of(database, run) >= 8 and searches_of(database, other_run) >= 4,
        "both hosts collect",
    )

    # Until the other has taken over, and back before TCP has given up: what was on its way arrives
    # late.
    simulator.configure(latency_ms=1_500)
    held, written = cut_off(first, run, database)
    until(
        lambda: held <= taken_from(database, run),
        "the second host has taken over what the first held",
    )
    first.come_back()
    late = start_on(first)
    early.wait()
    assert INTERRUPTED_FOUND in other.output
    assert DECLARED_DEAD in early.output or "is held by another run" in early.output
    assert written_by(database, run) == written
    assert run_status(instance, run) is dg.DagsterRunStatus.CANCELED

    # The first host works again; now the second is gone for longer than its connections are
    # believed to live.
    late_run = nth_run(database, 3)
    until(lambda: searches_of(database, late_run) >= 4, "the first host collects again")
    held, written = cut_off(second, other_run, database)
    if has_namespaces():
        assert second.connections(second.ports[0])
        until(
            lambda: not second.connections(second.ports[0]),
            "it gives its connections to the database up",
            seconds=60,
        )
    until(
        lambda: held <= taken_from(database, other_run),
        "the first host has taken over what the second held",
    )
    second.come_back()
    other.wait()
    assert written_by(database, other_run) == written
    simulator.configure(latency_ms=50)
    late.succeed()

    assert statuses(database) == {"COMPLETED": REGIONS}
    assert [one["status"] for one in executions(database)] == [
        "INTERRUPTED",
        "INTERRUPTED",
        "COMPLETED",
    ]
    assert Collected.of(database) == reference.only(codes)
    naver = simulator.stats()["naver"]
    assert len(naver["answers_per_search"]) == REGIONS * len(KEYWORDS)
    assert repeated(naver["answers_per_search"]) <= 2 * THREADS, "what was in flight in two hosts"
    assert naver["refused_rate"] <= LIMIT / 10, "together they know the limit"
    the_page_agrees()
