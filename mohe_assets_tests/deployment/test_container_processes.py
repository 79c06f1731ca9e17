"""The platform of docker-compose.yml as processes, each of them stopped, killed and started in the
middle of a collection.
"""

import getpass
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from mohe_assets.app import App
from mohe_assets.collection.scheduler import INTERRUPTED_FOUND, ClaimFilter
from mohe_assets.collection.stop_timeouts import CODE_SERVER_STOP_SECONDS
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.containers import Topology, container_user
from mohe_assets_tests.support.databases import PROGRESS_QUERY, read
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import Collected, repeated, statuses
from mohe_assets_tests.support.secrets import (
    CLIENT_ID,
    CLIENT_SECRET,
    GOVERNMENT_KEY,
    KEYWORDS,
    NEEDLES,
    RUNS,
    THREADS,
)
from mohe_assets_tests.support.ui import Ui

REGIONS = 256
MOVED = 6
ALL_REGIONS = "SELECT region_code FROM batch_checkpoint ORDER BY region_code"
IN_FLIGHT = RUNS * THREADS
PLATFORM = ("webserver", "batch", "daemon")


@pytest.fixture
def ui(topology: Topology) -> Iterator[Ui]:
    ui = Ui(f"http://127.0.0.1:{topology.port('3000')}")
    yield ui
    ui.close()


def completed(database: Database) -> int:
    return statuses(database).get("COMPLETED", 0)


def secrets_in_logs_and_files(topology: Topology) -> Iterator[str]:
    for path in [*topology.folder.glob("*.log"), *topology.home.rglob("*")]:
        if path.is_file():
            content = path.read_bytes().lower()
            yield from (
                f"{path}: {needle}" for needle in NEEDLES if needle.lower().encode() in content
            )


def secrets_in_rows(database: Database) -> Iterator[str]:
    """Every table, every column of every row, as PostgreSQL itself writes it."""
    tables = read(
        database,
        """SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables
                                WHERE schemaname NOT IN ('pg_catalog', 'information_schema')""",
    )
    assert len(tables) > 5
    for table in tables:
        sql = f"SELECT count(*) AS found FROM {table['name']} AS one WHERE one::text ~* :needles"
        if read(database, sql, needles="|".join(NEEDLES))[0]["found"]:
            yield table["name"]


@pytest.mark.timeout(
    900
)  # some thirty starts of Dagster's processes: two minutes on two free cores, six on busy ones
def test_each_container_is_stopped_killed_and_started_in_the_middle_and_nothing_is_lost_or_repeated(
    topology: Topology, ui: Ui
) -> None:
    simulator = start_all(topology)
    with closing(topology.connect()) as database, closing(topology.connect("dagster")) as dagster:
        more = partial(goes_on, topology, database)
        more("the regions are refreshed, and the sensor launches runs")
        for name in PLATFORM:
            topology.until(partial(topology.healthy, name), f"{name} is healthy", every=2)
            assert topology.users(name) == {container_user() or getpass.getuser()}
        interrupt(topology, database, more)

        simulator.configure(latency_ms=30)
        topology.until(
            lambda: statuses(database) == {"COMPLETED": REGIONS}, "all regions are completed"
        )
        topology.until(lambda: ui.loaded and ui.idle, "all runs are over", every=1)
        topology.until(
            lambda: len(ui.partitions().materialized) == REGIONS,
            "the page shows all of them",
            every=1,
        )
        seen = ui.partitions()
        assert (seen.failed, seen.missing, seen.under_way) == (
            frozenset(),
            frozenset(),
            frozenset(),
        )
        answers = simulator.stats()["naver"]["answers_per_search"]
        assert len(answers) == REGIONS * len(KEYWORDS)
        assert repeated(answers) <= 2 * IN_FLIGHT, "when batch was stopped, and when it was killed"
        commands_of_the_users(topology, database)
        for name in (*PLATFORM, "simulator"):
            topology.stop(name)
        assert [*secrets_in_rows(database), *secrets_in_rows(dagster)] == []
    topology.stop("postgres")
    assert list(secrets_in_logs_and_files(topology)) == []


def start_database(topology: Topology) -> None:
    topology.start("postgres")
    topology.until(lambda: topology.healthy("postgres"), "PostgreSQL is healthy", seconds=30)


def start_all(topology: Topology) -> Simulator:
    """In the order of docker-compose: the daemon and the page are there before the code server
    listens.
    """
    topology.start("simulator")
    start_database(topology)
    topology.run("migrate")
    topology.until(lambda: topology.healthy("simulator"), "the simulator is healthy")
    simulator = Simulator(f"http://127.0.0.1:{topology.port('8900')}")
    # Eight threads and two and a half seconds a call: two minutes in which to interrupt the one run
    # that has it all.
    keys = {
        "government_key": GOVERNMENT_KEY,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }
    simulator.configure(latency_ms=2_500, **keys)
    for name in ("daemon", "batch", "webserver"):
        topology.start(name)
    assert not topology.healthy("batch")
    return simulator


def interrupt(topology: Topology, database: Database, more: Callable[[str], None]) -> None:
    """Each is stopped and started, and killed and started."""
    topology.stop("webserver")
    topology.stop("daemon")
    more("runs go on without the daemon and the page")
    topology.start("daemon")
    topology.start("webserver")
    topology.kill("webserver")
    topology.start("webserver")
    took = topology.stop("batch")
    # Only on a machine that is far too busy is a run killed before it has released its regions.
    assert "PROCESSING" not in statuses(database) or took >= CODE_SERVER_STOP_SECONDS
    topology.start("batch")
    more("collecting goes on after docker start mohe-batch")

    topology.kill("daemon")
    topology.kill("postgres")
    assert not topology.healthy("postgres")
    topology.start("postgres")
    topology.start("daemon")
    more("collecting goes on after kills of PostgreSQL and the daemon")
    topology.kill("batch")
    assert "PROCESSING" in statuses(database)
    topology.start("batch")
    more("collecting goes on after a kill of batch")
    topology.stop("postgres")
    topology.start("postgres")
    more("collecting goes on after a restart of PostgreSQL")


def commands_of_the_users(topology: Topology, database: Database) -> None:
    psql = ("psql", "-U", "mohe_user", "-d", "mohe_db", "-X", "--no-align", "--tuples-only")
    rights = topology.execute(
        "postgres", *psql, given=b"SELECT rolname FROM pg_roles WHERE rolsuper OR rolreplication;"
    )
    assert rights.stdout == b"postgres\n", rights.stderr
    from_outside = topology.execute("postgres", *psql, given=b"COPY region TO PROGRAM 'cat';")
    assert b"permission denied to COPY to or from an external program" in from_outside.stderr
    progress = topology.execute("postgres", *psql, given=PROGRESS_QUERY.encode())
    assert progress.stdout.decode() == f"{REGIONS}|{REGIONS}|0|0|0\n", progress.stderr
    status = topology.execute("batch", "mohe", "status", "--json")
    assert json.loads(status.stdout)["progress"]["completed"] == REGIONS, status.stderr
    doctor = topology.execute("batch", "mohe", "doctor")
    said = (doctor.stdout + doctor.stderr).decode()
    assert doctor.returncode == 0, said
    assert [needle for needle in NEEDLES if needle.lower() in said.lower()] == []
    log = topology.output("batch")  # docker logs mohe-batch
    assert INTERRUPTED_FOUND in log
    names = read(database, "SELECT region_name FROM batch_checkpoint")
    untold = [row["region_name"] for row in names if row["region_name"] not in log]
    assert untold == [], (
        "what a killed run could not tell of any more, the next look at what it left does"
    )


def in_database(topology: Topology, program: str, *arguments: str, given: bytes = b"") -> bytes:
    """Run a client in the container `mohe-postgres`, which has to succeed; return its output."""
    done = topology.execute("postgres", program, "--username=mohe_user", *arguments, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


def goes_on(topology: Topology, database: Database, what: str) -> None:
    before = completed(database)
    topology.until(lambda: completed(database) >= before + THREADS, what)


def test_what_was_collected_on_the_embedded_database_is_moved_and_goes_on(
    topology: Topology, app: App, process_environment: Callable[..., Environment]
) -> None:
    moved = frozenset(
        row["region_code"] for row in read(app.database, f"{ALL_REGIONS} LIMIT {MOVED}")
    )
    with app.collection("before-the-move", ClaimFilter(codes=moved)) as run:
        assert len(list(run.outcomes())) == MOVED
    command = [
        str(Path(sys.executable).with_name("mohe")),
        "db",
        "dump",
        "--format=custom",
        "--no-owner",
        "--no-privileges",
    ]
    dump = subprocess.run(command, env=process_environment(), capture_output=True, check=False)
    assert dump.returncode == 0, dump.stderr

    start_database(topology)
    in_database(
        topology,
        "pg_restore",
        "--dbname=mohe_db",
        "--no-owner",
        "--exit-on-error",
        given=dump.stdout,
    )
    topology.run("migrate")
    # Backed up, changed, and restored.
    backup = in_database(topology, "pg_dump", "--format=custom", "mohe_db")
    in_database(
        topology,
        "psql",
        "--dbname=mohe_db",
        given=b"DELETE FROM places; DELETE FROM batch_checkpoint;",
    )
    in_database(
        topology,
        "pg_restore",
        "--dbname=mohe_db",
        "--clean",
        "--if-exists",
        "--exit-on-error",
        given=backup,
    )
    with closing(topology.connect()) as database:
        assert statuses(database) == {"COMPLETED": MOVED, "PENDING": REGIONS - MOVED}
        assert Collected.of(database) == Collected.of(app.database)
    status = topology.execute("batch", "mohe", "status", "--json")  # as the role that collects
    assert json.loads(status.stdout)["overview"]["searches"] == MOVED * len(KEYWORDS), status.stderr
