"""Fixtures of all that Dagster shows and launches: a database with the 256 regions and Dagster's
tables, and the definitions on it.
"""

from collections.abc import Iterator, Sequence

import dagster as dg
import pytest

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.env import environment as dagster_environment
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.definitions import build_defs
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.region_refresh import sync_partition_keys
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.settings import Settings
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.dagster_instances import dagster_instance
from mohe_assets_tests.support.databases import administer, copied
from mohe_assets_tests.support.environments import PREFIXES, QUICK, Environment
from mohe_assets_tests.support.launcher import Launcher
from mohe_assets_tests.support.regions import (
    Collect,
    FewRegions,
    code_of,
    keep_checkpoints,
    keys_of,
)


@pytest.fixture(autouse=True)
def _no_settings_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(settings_module.process_environment()):
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def template(
    template: str,
    postgres: EmbeddedServer,
    admin: Database,
    shared_simulator: Simulator,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """A database with the 256 regions, their partition keys and Dagster's tables."""
    name = "dagster_ui_template"
    administer(admin, f"CREATE DATABASE {name} TEMPLATE {template}")
    administer(admin, f"ALTER DATABASE {name} SET timezone TO 'UTC'")
    keys = SimulatorConfig()
    settings = settings_module.load(
        {
            "MOHE_HOME": str(tmp_path_factory.mktemp("dagster-ui-template")),
            "MOHE_DATABASE_URL": postgres.url(name),
            "MOHE_DAGSTER_DATABASE_URL": postgres.url(name),
            "MOHE_GOVERNMENT_API_URL": shared_simulator.url,
            "GOVT_API_KEY": keys.government_key,
        }
    )
    with dagster_instance(settings) as instance, App.open(settings) as app:
        app.refresh_regions()
        sync_partition_keys(instance, app)
    return name


@pytest.fixture
def database_url(postgres: EmbeddedServer, admin: Database, template: str) -> Iterator[str]:
    """URL of this test's own database, in UTC: Dagster's times need it, and copies lose it."""
    with copied(admin, template) as name:
        administer(admin, f"ALTER DATABASE {name} SET timezone TO 'UTC'")
        yield postgres.url(name)


@pytest.fixture
def environment(environment: Environment) -> Environment:
    """The variables of a collection and Dagster's processes, as `mohe env` prints them."""
    variables = {**environment, **QUICK}
    settings = settings_module.load(variables)
    return {**variables, **dagster_environment(settings, resolve_urls(settings))}


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    """An app on a database that has the regions already."""
    with App.open(settings) as app:
        yield app


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's own storage, in this test's database."""
    with dagster_instance(settings) as instance:
        yield instance


@pytest.fixture
def definitions(environment: Environment) -> dg.Definitions:
    """All definitions, with this test's environment."""
    return build_defs(resource_overrides={"mohe": MoheResource(environment=environment)})


@pytest.fixture
def launcher(instance: dg.DagsterInstance, definitions: dg.Definitions) -> Launcher:
    """Run jobs in this process, on this test's instance."""
    return Launcher(instance=instance, definitions=definitions)


@pytest.fixture
def few(database: Database) -> FewRegions:
    """Keep that many neighbouring regions to be collected; return their partition keys."""

    def keep(count: int) -> list[str]:
        keys = keys_of(database)[:count]
        keep_checkpoints(database, [code_of(key) for key in keys])
        return keys

    return keep


@pytest.fixture
def collect_elsewhere(app: App) -> Collect:
    """Collect regions in another run, which Dagster does not know."""

    def collect(keys: Sequence[str], run_id: str = "another-run") -> None:
        codes = frozenset(code_of(key) for key in keys)
        with app.collection(run_id, ClaimFilter(codes=codes)) as run:
            assert len(list(run.outcomes())) == len(keys)

    return collect
