"""Fixtures of all tests: a real PostgreSQL, the simulator on a socket, and settings for both."""

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.postgres import schema
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.settings import Settings
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator, running
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import administer, copied, server_in
from mohe_assets_tests.support.environments import Environment, without_settings

if TYPE_CHECKING:  # not in the lowest version of pytest
    from pytest import TerminalReporter  # noqa: PT013 - as its own name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        metavar="MAJOR",
        help="Run the database fixtures on Debian's PostgreSQL of this major version (package "
        "postgresql-MAJOR) instead of the embedded one; use it with -m sql.",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the integration tests that use a database as `sql`."""
    for item in items:
        if item.path.parent.name == "integration" and "postgres" in getattr(
            item, "fixturenames", ()
        ):
            item.add_marker("sql")


def pytest_terminal_summary(terminalreporter: "TerminalReporter") -> None:
    """Print the time of each folder's tests, fixtures included."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                folder = report.nodeid.partition("::")[0].rpartition("/")[0]
                seconds[folder] += report.duration
    for folder, taken in sorted(seconds.items()):
        terminalreporter.write_line(f"{folder}: {taken:.0f} s")


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in an empty folder: a developer's `.env` in the checkout is for no test."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """One server for the session, the embedded one unless --postgres names another version."""
    # Not pytest's own folder, which is closed to others: as root the data would land outside of it.
    home = Path(tempfile.mkdtemp(prefix="mohe-tests-"))
    home.chmod(0o755)
    server = server_in(home, request.config.getoption("--postgres"))
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.data)
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def admin(postgres: EmbeddedServer) -> Iterator[Database]:
    """For creating and dropping databases."""
    database = Database.connect(postgres.url("postgres"))
    yield database
    database.close()


@pytest.fixture(scope="session")
def migrated_template(postgres: EmbeddedServer, admin: Database) -> str:
    """A migrated database to copy from: a copy takes a tenth of a migration."""
    name = "migrated_template"
    administer(admin, f"CREATE DATABASE {name}")
    database = Database.connect(postgres.url(name))
    schema.migrate(database)
    database.close()
    return name


@pytest.fixture(scope="session")
def regions_template(
    migrated_template: str, postgres: EmbeddedServer, admin: Database, shared_simulator: Simulator
) -> str:
    """A migrated database with the 256 regions: loading them takes longer than most tests."""
    name = "regions_template"
    administer(admin, f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    variables = {
        "MOHE_DATABASE_URL": postgres.url(name),
        "MOHE_GOVERNMENT_API_URL": shared_simulator.url,
        "GOVT_API_KEY": SimulatorConfig().government_key,
    }
    with App.open(settings_module.load(variables)) as app:
        app.refresh_regions()
    return name


@pytest.fixture(scope="session")
def template(migrated_template: str) -> str:
    """The database that `database_url` copies. Override it with `regions_template` for regions."""
    return migrated_template


@pytest.fixture
def database_url(postgres: EmbeddedServer, admin: Database, template: str) -> Iterator[str]:
    """URL of this test's own database, at the current schema."""
    with copied(admin, template) as name:
        yield postgres.url(name)


@pytest.fixture
def empty_database_url(postgres: EmbeddedServer, admin: Database) -> Iterator[str]:
    """URL of this test's own database, empty."""
    with copied(admin, "template0") as name:
        yield postgres.url(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A connection to `database_url`."""
    database = Database.connect(database_url, pool_size=10)
    yield database
    database.close()


@pytest.fixture(scope="session")
def shared_simulator() -> Iterator[Simulator]:
    """One simulator process for the session; tests take it through `simulator`."""
    with running(
        SimulatorConfig(calls_per_second=None, daily_quota=None, region_calls_per_second=None)
    ) as simulator:
        yield simulator


@pytest.fixture
def simulator(shared_simulator: Simulator) -> Iterator[Simulator]:
    """A simulator without limits, faults or memory. Tests may configure it; each starts clean."""
    shared_simulator.reset()
    yield shared_simulator
    shared_simulator.configure(**_unlimited())
    shared_simulator.reset()


def _unlimited() -> dict[str, object]:
    plain = SimulatorConfig(calls_per_second=None, daily_quota=None, region_calls_per_second=None)
    return {name: getattr(plain, name) for name in plain.__dataclass_fields__}


@pytest.fixture
def environment(simulator: Simulator, database_url: str, tmp_path: Path) -> Environment:
    """The variables of a collection against the simulator, into this test's database."""
    config = SimulatorConfig()
    return {
        "MOHE_HOME": str(tmp_path / "home"),
        "MOHE_DATABASE_URL": database_url,
        # Dagster's tables lie beside ours: the tables of versions must not collide.
        "MOHE_DAGSTER_DATABASE_URL": database_url,
        "MOHE_GOVERNMENT_API_URL": simulator.url,
        "MOHE_NAVER_API_URL": simulator.url,
        "MOHE_NAVER_HUB_URL": simulator.url,
        "GOVT_API_KEY": config.government_key,
        "NAVER_CLIENT_ID": config.client_id,
        "NAVER_CLIENT_SECRET": config.client_secret,
        "MOHE_CALLS_PER_SECOND": "5000",
        "MOHE_DAILY_QUOTA": "1000000",
        # A sensor that refines never comes to rest; the tests of refinement turn it on.
        "MOHE_REFINE": "false",
    }


@pytest.fixture
def settings(environment: Environment) -> Settings:
    """`environment`, read."""
    return settings_module.load(environment)


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    """An app whose database has the simulator's 256 regions."""
    with App.open(settings) as app:
        if app.regions.last_refresh() is None:
            app.refresh_regions()
        yield app


@pytest.fixture
def process_environment(environment: Environment) -> Callable[..., Environment]:
    """Build the environment of a separate process: the test's variables with changes."""

    def build(**changes: str) -> Environment:
        return {**without_settings(), **environment, **changes}

    return build
