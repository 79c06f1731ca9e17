"""What the tests stand on: a real PostgreSQL, the simulator on a socket, and settings that name
both.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.postgres import schema
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.settings import Settings
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator, running
from mohe_assets.store.database import Database

Environment = dict[str, str]

DEBIAN_BINARIES = "/usr/lib/postgresql/{}/bin"


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


@dataclass(frozen=True, kw_only=True)
class DebianServer(EmbeddedServer):
    """The same cluster settings on the binaries of a Debian package."""

    major: str

    def _binaries(self) -> Path:
        return Path(DEBIAN_BINARIES.format(self.major))


def _server(home: Path, major: str | None) -> EmbeddedServer:
    if major is None:
        return EmbeddedServer(home=home)
    server = DebianServer(home=home, major=major)
    if not server.psql().exists():
        raise pytest.UsageError(
            f"--postgres {major}: install the Debian package postgresql-{major}."
        )
    return server


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in an empty folder: a developer's `.env` in the checkout is for no test."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """One server for the whole session, the embedded one unless --postgres names another version."""
    # Not pytest's own folder, which is closed to others: as root the data would land outside of it.
    home = Path(tempfile.mkdtemp(prefix="mohe-tests-"))
    home.chmod(0o755)
    server = _server(home, request.config.getoption("--postgres"))
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
    admin.transaction(
        lambda connection: connection.execute(text(f"CREATE DATABASE {name}")), autocommit=True
    )
    database = Database.connect(postgres.url(name))
    schema.migrate(database)
    database.close()
    return name


@pytest.fixture(scope="session")
def regions_template(
    migrated_template: str, postgres: EmbeddedServer, admin: Database, shared_simulator: Simulator
) -> str:
    """One that knows the 256 regions as well: taking them over again in each test would be most of
    its time.
    """
    name = "regions_template"
    sql = text(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    admin.transaction(lambda connection: connection.execute(sql), autocommit=True)
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
    """What `database_url` is a copy of; a folder or module that needs the regions takes
    `regions_template` instead.
    """
    return migrated_template


def keep_checkpoints(database: Database, codes: Collection[str]) -> None:
    """Leaves these regions to be collected: the others have no checkpoint, and get none from
    whatever seeds missing ones.
    """
    listed = ", ".join(f"'{code}'" for code in sorted(codes))
    sql = f"""
    DELETE FROM batch_checkpoint WHERE region_code NOT IN ({listed});
    CREATE OR REPLACE FUNCTION no_other_checkpoints() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN RETURN NULL; END';
    CREATE OR REPLACE TRIGGER no_other_checkpoints BEFORE INSERT ON batch_checkpoint
        FOR EACH ROW WHEN (NEW.region_code NOT IN ({listed}))
        EXECUTE FUNCTION no_other_checkpoints();
    """
    database.transaction(lambda connection: connection.exec_driver_sql(sql))


def _new_database(admin: Database, template: str) -> str:
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin.transaction(
        lambda connection: connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}")),
        autocommit=True,
    )
    return name


def _drop(admin: Database, name: str) -> None:
    admin.transaction(
        lambda connection: connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)")),
        autocommit=True,
    )


@pytest.fixture
def database_url(postgres: EmbeddedServer, admin: Database, template: str) -> Iterator[str]:
    """URL of a database of this test's own, at the current schema."""
    name = _new_database(admin, template)
    yield postgres.url(name)
    _drop(admin, name)


@pytest.fixture
def empty_database_url(postgres: EmbeddedServer, admin: Database) -> Iterator[str]:
    """URL of a database of this test's own, with nothing in it."""
    name = _new_database(admin, "template0")
    yield postgres.url(name)
    _drop(admin, name)


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
    """A simulator without limits, faults or memory; a test may configure it, and the next one gets
    it as new.
    """
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
        "MOHE_DAGSTER_DATABASE_URL": database_url,  # Dagster's tables live beside ours: version tables must not collide
        "MOHE_GOVERNMENT_API_URL": simulator.url,
        "MOHE_NAVER_API_URL": simulator.url,
        "MOHE_NAVER_HUB_URL": simulator.url,
        "GOVT_API_KEY": config.government_key,
        "NAVER_CLIENT_ID": config.client_id,
        "NAVER_CLIENT_SECRET": config.client_secret,
        "MOHE_CALLS_PER_SECOND": "5000",
        "MOHE_DAILY_QUOTA": "1000000",
        "MOHE_REFINE": "false",  # a sensor that goes on to refine never comes to rest; the tests of that turn it on
    }


@pytest.fixture
def settings(environment: Environment) -> Settings:
    """`environment`, read."""
    return settings_module.load(environment)


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    """A platform that has taken the simulator's 256 regions over."""
    with App.open(settings) as app:
        if app.regions.last_refresh() is None:
            app.refresh_regions()
        yield app


@pytest.fixture
def process_environment(environment: Environment) -> Callable[..., Environment]:
    """The environment of a process of its own: ours without any of the project's variables, then
    the test's.
    """
    ours = ("MOHE_", "GOVT_", "NAVER_", "NCP_", "CHECKPOINT_", "BATCH_", "DAGSTER_")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    def build(**changes: str) -> Environment:
        return {**plain, **environment, **changes}

    return build
