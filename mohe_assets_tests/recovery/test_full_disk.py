"""The server's disk fills up under a collection and gets room again: the same run continues and
charges no region.
"""

import shutil
import subprocess
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
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import StartWorker, executions, repeated, statuses, until
from mohe_assets_tests.support.regions import keep_regions

REGIONS = 40
THREADS = 4
DISK = "320m"


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of its own, in memory."""
    home = Path(tempfile.mkdtemp(prefix="mohe-disk-"))
    home.chmod(0o755)
    mounted = subprocess.run(
        ["/usr/bin/mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", str(home)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield home
    subprocess.run(["/usr/bin/umount", str(home)], check=True)
    home.rmdir()


@pytest.fixture
def server(disk: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(home=disk)
    server.start()
    yield server
    (disk / "filling").unlink(missing_ok=True)
    server.stop()


@pytest.fixture
def environment(environment: Environment, server: EmbeddedServer) -> Environment:
    """Data and Dagster's storage in the server that runs out of room."""
    variables = {
        **environment,
        "MOHE_DATABASE_URL": server.url(DATA_DATABASE),
        "MOHE_DAGSTER_DATABASE_URL": server.url(DAGSTER_DATABASE),
    }
    settings = settings_module.load(variables)
    return {**variables, **dagster_environment(settings, resolve_urls(settings))}


@pytest.fixture
def full_database(environment: Environment) -> Iterator[Database]:
    settings = settings_module.load(environment)
    ensure_ready(settings)
    with App.open(settings) as app:
        app.refresh_regions()
        yield app.database


def fill(disk: Path) -> None:
    """Fill the disk, and all that the server frees in the next moments."""
    with (disk / "filling").open("ab", buffering=0) as file:
        for _ in range(30):
            try:
                while True:
                    file.write(bytes(min(1 << 20, max(4096, shutil.disk_usage(disk).free))))
            except OSError:
                time.sleep(0.1)


def test_a_collection_waits_for_room_on_the_servers_disk(
    simulator: Simulator,
    disk: Path,
    server: EmbeddedServer,
    full_database: Database,
    start_worker: StartWorker,
) -> None:
    keep_regions(full_database, REGIONS)
    simulator.configure(latency_ms=100)
    worker = start_worker()
    until(lambda: statuses(full_database).get("COMPLETED", 0) >= 4, "four completions")
    fill(disk)
    time.sleep(20)
    assert worker.running, worker.output[-3000:]
    (disk / "filling").unlink()

    def started() -> bool:
        try:
            server.start()
        except DatabaseUnavailable:
            return False
        return True

    until(started, "the server runs, or is started again")
    worker.succeed()
    assert statuses(full_database) == {"COMPLETED": REGIONS}
    assert [run["status"] for run in executions(full_database)] == ["COMPLETED"]
    assert read(full_database, "SELECT 1 FROM batch_checkpoint WHERE failures > 0") == []
    assert repeated(simulator.stats()["naver"]["answers_per_search"]) <= THREADS
