"""Fixtures of collections in separate processes: databases with regions, Dagster's beside them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.env import environment as dagster_environment
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.dagster_instances import dagster_instance
from mohe_assets_tests.support.databases import administer, copied
from mohe_assets_tests.support.environments import QUICK, Environment
from mohe_assets_tests.support.processes import (
    Collected,
    ForkedWorker,
    PageAgrees,
    StartWorker,
    Worker,
    assert_the_page_agrees,
)
from mohe_assets_tests.support.regions import FewRegions, keep_regions


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
    """A database with Dagster's tables, without partition keys."""
    name = "dagster_template"
    administer(admin, f"CREATE DATABASE {name}")
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
    """URL of this test's own Dagster storage."""
    with copied(admin, dagster_template) as name:
        yield postgres.url(name)


@pytest.fixture
def environment(environment: Environment, dagster_url: str) -> Environment:
    """The variables of a collection in a separate process, as `mohe env` prints them."""
    variables = {**environment, "MOHE_DAGSTER_DATABASE_URL": dagster_url, **QUICK}
    settings = settings_module.load(variables)
    return {**variables, **dagster_environment(settings, resolve_urls(settings))}


@pytest.fixture
def instance(settings: settings_module.Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance, which the workers write to."""
    with dagster_instance(settings) as instance:
        yield instance


@pytest.fixture
def the_page_agrees(settings: settings_module.Settings, instance: dg.DagsterInstance) -> PageAgrees:
    """Assert that Dagster's partitions match the checkpoints."""

    def agrees() -> None:
        with App.open(settings) as app:
            assert_the_page_agrees(instance, app)

    return agrees


@pytest.fixture
def start_worker(
    process_environment: Callable[..., Environment], tmp_path: Path
) -> Iterator[StartWorker]:
    """Start a collection with changes to its environment; it ends with the test."""
    yield from _starting(ForkedWorker, process_environment, tmp_path)


@pytest.fixture
def start_worker_from_a_shell(
    process_environment: Callable[..., Environment], tmp_path: Path
) -> Iterator[StartWorker]:
    """Start a collection by its command line, in a fresh interpreter instead of a fork."""
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
    """The result of an uninterrupted collection of all regions."""
    with copied(admin, template) as name:
        settings = settings_module.load(_variables(shared_simulator, postgres.url(name)))
        with App.open(settings) as app:
            with app.collection("reference", ClaimFilter()) as run:
                assert len(list(run.outcomes())) == 256
            yield Collected.of(app.database)


@pytest.fixture
def few(database: Database) -> FewRegions:
    """`keep_regions` in this test's database."""
    return lambda count: keep_regions(database, count)
