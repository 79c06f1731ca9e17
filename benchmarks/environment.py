"""The environment of all compared runs: one server and one simulator, and per run databases, a
folder and a job file.
"""

import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.job import Job
from benchmarks.programs import cpu_of_tree
from benchmarks.simulated_stack import UNLIMITED, SimulatedStack, simulated_stack
from mohe_assets.app import App
from mohe_assets.cli.env import environment
from mohe_assets.defs.runtime.region_refresh import sync_partition_keys
from mohe_assets.postgres.databases import DatabaseUrls
from mohe_assets.postgres.embedded import DAGSTER_DATABASE, DATA_DATABASE, EmbeddedServer
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database, rows
from mohe_assets_tests.support.dagster_instances import dagster_instance
from mohe_assets_tests.support.databases import administer
from mohe_assets_tests.support.regions import keep_checkpoints

REPOSITORY = Path(__file__).parent.parent
PATH = "/v1/search/local.json"
# Names of databases to copy: ours migrated and with all regions, Dagster's with tables and
# partition keys, and nothing.
OURS, DAGSTER, EMPTY = "bench_ours", "bench_dagster", "template0"


@dataclass(kw_only=True)
class Sandbox:
    """One run's own: `database` and `dagster` are URLs; `environment` is complete for our commands
    and for the peers'.
    """

    folder: Path
    database: Database
    urls: DatabaseUrls
    environment: dict[str, str]
    regions: tuple[tuple[str, str], ...]
    job: Job

    def read(self, sql: str, *, dagster: bool = False) -> list[dict[str, Any]]:
        if not dagster:
            return self.database.transaction(lambda connection: rows(connection, sql))
        other = Database.connect(self.urls.dagster)
        try:
            return other.transaction(lambda connection: rows(connection, sql))
        finally:
            other.close()


@dataclass(kw_only=True)
class Environment:
    """`regions` are all of them, code and full name, in the order of codes."""

    stack: SimulatedStack
    server: EmbeddedServer
    regions: tuple[tuple[str, str], ...]
    admin: Database = field(init=False)

    def __post_init__(self) -> None:
        self.admin = Database.connect(self.server.url("postgres"))

    @property
    def simulator(self) -> Simulator:
        return self.stack.simulator

    @property
    def keywords(self) -> tuple[str, ...]:
        return tuple(self.stack.app.settings.search_keywords)

    def some(self, count: int) -> tuple[tuple[str, str], ...]:
        """The first of them; without gaps, because a run of the sensor is a range of partitions."""
        return self.regions[:count]

    def server_cpu(self) -> float:
        """CPU seconds of the database server so far."""
        return cpu_of_tree(
            int((self.server.data / "postmaster.pid").read_text(encoding="ascii").split()[0])
        )

    def execute(self, *statements: str) -> None:
        for statement in statements:
            administer(self.admin, statement)

    @contextmanager
    def sandbox(
        self,
        *,
        count: int,
        latency_ms: float = 0,
        limit: int | None = None,
        settings: Mapping[str, Any] | None = None,
        template: str = "",
    ) -> Iterator[Sandbox]:
        """Databases and folder for one run, and the simulator as if just started."""
        self.simulator.configure(latency_ms=latency_ms, calls_per_second=limit)
        self.simulator.reset()
        name = f"run_{uuid.uuid4().hex[:8]}"
        # A million places are copied as files; small databases take less through the log, without a
        # checkpoint of the server.
        strategy = "wal_log" if template in {"", OURS} else "file_copy"
        self.execute(
            f"CREATE DATABASE {name} TEMPLATE {template or EMPTY} STRATEGY {strategy}",
            f"CREATE DATABASE {name}_dagster TEMPLATE {DAGSTER}",
            f"ALTER DATABASE {name}_dagster SET timezone TO 'UTC'",
        )
        folder = self.stack.home / name
        folder.mkdir()
        database = Database.connect(self.server.url(name))
        try:
            if template and count < len(self.regions):
                keep_checkpoints(database, [code for code, _ in self.some(count)])
            yield self._sandbox(folder, database, count, limit, settings or {})
        finally:
            database.close()
            self.execute(
                f"DROP DATABASE {name} WITH (FORCE)", f"DROP DATABASE {name}_dagster WITH (FORCE)"
            )
            shutil.rmtree(folder)

    def _sandbox(
        self,
        folder: Path,
        database: Database,
        count: int,
        limit: int | None,
        settings: Mapping[str, Any],
    ) -> Sandbox:
        name = folder.name
        urls = DatabaseUrls(
            data=self.server.url(name), dagster=self.server.url(f"{name}_dagster"), embedded=None
        )
        home = self.stack.app.settings.model_copy(update={"home": folder})
        variables = {
            **self.stack.variables,
            **environment(home, urls),
            "MOHE_CATALOG_DIR": str(folder / "catalog"),
            "MOHE_CALLS_PER_SECOND": str(limit or 5_000),
            "PEER_JOB": str(folder / "job.json"),
            "PYTHONPATH": str(REPOSITORY),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        keys = self.stack.variables
        job = Job(
            url=self.simulator.url + PATH,
            headers={
                "X-Naver-Client-Id": keys["NAVER_CLIENT_ID"],
                "X-Naver-Client-Secret": keys["NAVER_CLIENT_SECRET"],
            },
            database_url=urls.data,
            regions=self.some(count),
            keywords=self.keywords,
            settings=settings,
        )
        job.write(folder / "job.json")
        return Sandbox(
            folder=folder,
            database=database,
            urls=urls,
            environment=variables,
            regions=job.regions,
            job=job,
        )


@contextmanager
def shared_environment() -> Iterator[Environment]:
    """Made once for all compared runs: the templates take ten seconds."""
    with simulated_stack(UNLIMITED.changed({"warm": True})) as stack:
        server = EmbeddedServer(home=stack.home)
        with dagster_instance(stack.app.settings) as instance, App.open(stack.app.settings) as app:
            sync_partition_keys(instance, app)
        named = stack.app.database.transaction(
            lambda connection: rows(
                connection,
                "SELECT region_code, region_name FROM batch_checkpoint ORDER BY region_code",
            )
        )
        stack.app.database.close()
        found = Environment(
            stack=stack,
            server=server,
            regions=tuple((row["region_code"], row["region_name"]) for row in named),
        )
        found.execute(
            f"CREATE DATABASE {OURS} TEMPLATE {DATA_DATABASE}",
            f"CREATE DATABASE {DAGSTER} TEMPLATE {DAGSTER_DATABASE}",
        )
        try:
            yield found
        finally:
            found.admin.close()
