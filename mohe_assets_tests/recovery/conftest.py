"""For collections in processes of their own: databases that know the regions already, Dagster's
beside them, workers.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import text

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.env import environment as dagster_environment
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.conftest import Environment, keep_checkpoints
from mohe_assets_tests.support.processes import (
    Collected,
    ForkedWorker,
    Worker,
    assert_the_page_agrees,
    read,
)

KEYWORDS = ("카페", "공원")
# How much the tests of this folder wait is theirs to say: a lease of a minute would have them wait
# for one.
QUICK = {
    "MOHE_SEARCH_KEYWORDS": ",".join(KEYWORDS),
    "MOHE_SEARCHES_IN_FLIGHT": "4",
    "MOHE_HEARTBEAT_SECONDS": "0.5",
    "MOHE_RETRY_SECONDS": "0.1",
}

StartWorker = Callable[..., Worker]
FewRegions = Callable[[int], list[str]]
PageAgrees = Callable[[], None]


def _execute(admin: Database, sql: str) -> None:
    admin.transaction(lambda connection: connection.execute(text(sql)), autocommit=True)


@contextmanager
def _copy(admin: Database, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    _execute(admin, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield name
    finally:
        _execute(admin, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def dagster_instance(settings: settings_module.Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance as the workers see it; its configuration reads the environment while it is
    opened.
    """
    variables = dagster_environment(settings, resolve_urls(settings))
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with dg.DagsterInstance.from_config(variables["DAGSTER_HOME"]) as instance:
            yield instance
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session")
def template(regions_template: str) -> str:
    """A migrated database that knows the 256 regions."""
    return regions_template


def _variables(simulator: Simulator, database_url: str) -> Environment:
    return {
        "MOHE_DATABASE_URL": database_url,
        "MOHE_GOVERNMENT_API_URL": simulator.url,
        "MOHE_NAVER_API_URL": simulator.url,
        "GOVT_API_KEY": "demo-govt-key+/==",
        "NAVER_CLIENT_ID": "demo-client-id",
        "NAVER_CLIENT_SECRET": "demo-client-secret",
        "MOHE_CALLS_PER_SECOND": "5000",
        "MOHE_DAILY_QUOTA": "1000000",
        **QUICK,
    }


@pytest.fixture(scope="session")
def dagster_template(
    postgres: EmbeddedServer, admin: Database, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A database with Dagster's tables and the 256 partition keys not yet in it."""
    name = "dagster_template"
    _execute(admin, f"CREATE DATABASE {name}")
    url = postgres.url(name)
    home = tmp_path_factory.mktemp("dagster-template")
    settings = settings_module.load(
        {"MOHE_HOME": str(home), "MOHE_DATABASE_URL": url, "MOHE_DAGSTER_DATABASE_URL": url}
    )
    with dagster_instance(settings) as instance:
        assert instance.get_runs() == []
    return name


@pytest.fixture
def dagster_url(postgres: EmbeddedServer, admin: Database, dagster_template: str) -> Iterator[str]:
    """URL of a Dagster storage of this test's own."""
    with _copy(admin, dagster_template) as name:
        yield postgres.url(name)


@pytest.fixture
def environment(environment: Environment, dagster_url: str) -> Environment:
    """The variables of a collection in a process of its own: `mohe env` would print the same."""
    variables = {**environment, "MOHE_DAGSTER_DATABASE_URL": dagster_url, **QUICK}
    settings = settings_module.load(variables)
    return {**variables, **dagster_environment(settings, resolve_urls(settings))}


@pytest.fixture
def instance(settings: settings_module.Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's side of what the workers did."""
    with dagster_instance(settings) as instance:
        yield instance


@pytest.fixture
def the_page_agrees(
    settings: settings_module.Settings, instance: dg.DagsterInstance
) -> Callable[[], None]:
    """Asserts that Dagster's partitions show what the checkpoints say."""

    def agrees() -> None:
        with App.open(settings) as app:
            assert_the_page_agrees(instance, app)

    return agrees


@pytest.fixture
def start_worker(
    process_environment: Callable[..., Environment], tmp_path: Path
) -> Iterator[StartWorker]:
    """Starts a collection with the changes given to its environment; none outlives the test."""
    yield from _starting(ForkedWorker, process_environment, tmp_path)


@pytest.fixture
def start_worker_from_a_shell(
    process_environment: Callable[..., Environment], tmp_path: Path
) -> Iterator[StartWorker]:
    """The same by its command line, for what an interpreter that starts from nothing may do
    otherwise.
    """
    yield from _starting(Worker, process_environment, tmp_path)


def _starting(
    kind: type[Worker], process_environment: Callable[..., Environment], tmp_path: Path
) -> Iterator[StartWorker]:
    started: list[Worker] = []

    def start(**changes: str) -> Worker:
        worker = kind(process_environment(**changes), tmp_path / f"worker-{len(started)}.log")
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.end()


@pytest.fixture(scope="session")
def reference(
    template: str, postgres: EmbeddedServer, admin: Database, shared_simulator: Simulator
) -> Iterator[Collected]:
    """What an uninterrupted collection of all regions brings."""
    with _copy(admin, template) as name:
        settings = settings_module.load(_variables(shared_simulator, postgres.url(name)))
        with App.open(settings) as app:
            with app.collection("reference", ClaimFilter()) as run:
                assert len(list(run.outcomes())) == 256
            yield Collected.of(app.database)


def keep_regions(database: Database, count: int) -> list[str]:
    """Leaves that many regions to be collected, evenly spread; returns their codes."""
    codes = [
        row["region_code"]
        for row in read(database, "SELECT region_code FROM batch_checkpoint ORDER BY region_code")
    ]
    kept = codes[:: len(codes) // count][:count]
    keep_checkpoints(database, kept)
    return kept


@pytest.fixture
def few(database: Database) -> FewRegions:
    """`keep_regions` in this test's database."""
    return lambda count: keep_regions(database, count)
