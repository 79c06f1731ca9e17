"""A collection through PgBouncer in transaction mode with its defaults, killed in the middle."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

from mohe_assets.collection.scheduler import INTERRUPTED_FOUND
from mohe_assets.postgres.embedded import SERVER_ACCOUNT, EmbeddedServer
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database, Refusal, rows
from mohe_assets.store.database_url import DatabaseUrl
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.ports import free_port
from mohe_assets_tests.support.processes import (
    PLACES,
    Collected,
    PageAgrees,
    StartWorker,
    executions,
    repeated,
    statuses,
    until,
)
from mohe_assets_tests.support.regions import FewRegions

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
REGIONS = 60
THREADS = 4

pytestmark = pytest.mark.skipif(
    PGBOUNCER is None, reason="PgBouncer is not installed: apt-get install pgbouncer"
)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def bouncer(postgres: EmbeddedServer) -> Iterator[int]:
    """Its port. Nothing is configured but where it listens, who may come, and the pool's mode."""
    folder, port = Path(tempfile.mkdtemp(prefix="mohe-bouncer-")), free_port()
    folder.chmod(0o755)
    (folder / "users").write_text('"postgres" ""\n', encoding="ascii")
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={postgres.socket_folder}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {folder}/users\npool_mode = transaction\n",
        encoding="ascii",
    )
    # It refuses to run as root, as PostgreSQL does, and reads the same socket.
    account = SERVER_ACCOUNT if os.geteuid() == 0 else None
    process = subprocess.Popen(
        [str(PGBOUNCER), "-q", str(folder / "pgbouncer.ini")],
        user=account,
        group=account,
        extra_groups=[] if account else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: listens(port), "PgBouncer listens", seconds=30)
    yield port
    process.terminate()
    process.wait(timeout=30)
    shutil.rmtree(folder)


def through(port: int, url: str) -> str:
    there = DatabaseUrl.parse(url)
    return f"postgresql://{there.user}@127.0.0.1:{port}/{there.database}"


@pytest.fixture
def environment(environment: Environment, bouncer: int) -> Environment:
    """Our data and Dagster's storage, both through it."""
    urls = ("MOHE_DATABASE_URL", "MOHE_DAGSTER_DATABASE_URL")
    return {**environment, **{name: through(bouncer, environment[name]) for name in urls}}


SESSION = """
SELECT current_setting('lock_timeout') AS lock, current_setting('TimeZone') AS zone,
current_schema() AS schema,
       current_setting('idle_in_transaction_session_timeout') AS idle
"""


def test_every_transaction_has_our_settings_and_leaves_none_behind(
    database_url: str, bouncer: int
) -> None:
    url = through(bouncer, database_url)
    ours = Database.connect(f"{url}?options=-c search_path=app,public")
    ours.transaction(lambda connection: connection.execute(text("CREATE SCHEMA app")))
    expected = {"lock": "30s", "zone": "Asia/Seoul", "schema": "app", "idle": "5s"}
    assert ours.transaction(lambda connection: rows(connection, SESSION)) == [expected]
    assert ours.transaction(lambda connection: rows(connection, SESSION), autocommit=True) == [
        expected
    ]
    assert ours.call(SESSION) == [tuple(expected.values())]
    with pytest.raises(Refusal):
        ours.call("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'MH999'; END $$")
    # PgBouncer gives the same connection to the next client.
    other = Database.connect(url, session={"timezone": "UTC"})
    with other.engine.connect() as connection:
        found = rows(connection, SESSION)[0]
    assert (found["lock"], found["schema"]) == ("0", "public")
    other.close()
    ours.close()


def test_a_collection_that_is_killed_goes_on_and_pays_nothing_twice(
    simulator: Simulator,
    database: Database,
    instance: dg.DagsterInstance,
    start_worker: StartWorker,
    few: FewRegions,
    reference: Collected,
    the_page_agrees: PageAgrees,
) -> None:
    codes = few(REGIONS)
    simulator.configure(latency_ms=50)
    first = start_worker()
    until(lambda: statuses(database).get("COMPLETED", 0) >= 10, "ten regions are completed")
    first.kill()
    second = start_worker().succeed()

    assert INTERRUPTED_FOUND in second.output
    assert statuses(database) == {"COMPLETED": REGIONS}
    assert [run["status"] for run in executions(database)] == ["INTERRUPTED", "COMPLETED"]
    assert Collected.of(database) == reference.only(codes)
    assert repeated(simulator.stats()["naver"]["answers_per_search"]) <= THREADS
    assert len(instance.get_materialized_partitions(PLACES)) == REGIONS
    the_page_agrees()
