"""For what Dagster shows and launches: a database with the 256 regions and Dagster's own tables,
and the definitions on it.
"""

import asyncio
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import dagster as dg
import pytest
from sqlalchemy import Engine, event, text

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.env import environment as dagster_environment
from mohe_assets.collection.cancellation import CancellationToken
from mohe_assets.collection.rate_limiter import SharedRateLimiter
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.definitions import build_defs
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.region_refresh import sync_partition_keys
from mohe_assets.errors import ApiError
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.settings import Settings
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.conftest import Environment, keep_checkpoints
from mohe_assets_tests.recovery.conftest import dagster_instance
from mohe_assets_tests.support.processes import read

KEYWORDS = ("카페", "공원")
QUICK = {
    "MOHE_SEARCH_KEYWORDS": ",".join(KEYWORDS),
    "MOHE_SEARCHES_IN_FLIGHT": "4",
    "MOHE_HEARTBEAT_SECONDS": "0.5",
    "MOHE_RETRY_SECONDS": "0.1",
}
OURS = ("MOHE_", "GOVT_", "NAVER_", "NCP_", "CHECKPOINT_", "BATCH_", "DAGSTER_")

Collect = Callable[..., None]
FewRegions = Callable[[int], list[str]]


def execute(database: Database, sql: str, **values: object) -> None:
    database.transaction(lambda connection: connection.execute(text(sql), values))


@contextmanager
def statements() -> Iterator[list[str]]:
    """What every engine of this process sends meanwhile, Dagster's own included."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _administer(admin: Database, sql: str) -> None:
    admin.transaction(lambda connection: connection.execute(text(sql)), autocommit=True)


def keys_of(database: Database, codes: Collection[str] | None = None) -> list[str]:
    """Partition keys in the order of codes: of these regions, or of all that have a checkpoint."""
    sql = """SELECT r.partition_key FROM batch_checkpoint c JOIN region r USING (region_type, region_code)
              WHERE :any OR c.region_code = ANY(CAST(:codes AS text[])) ORDER BY r.partition_key"""
    return [
        row["partition_key"]
        for row in read(database, sql, any=codes is None, codes=sorted(codes or ()))
    ]


def call_once(app: App, refusal: ApiError | None = None) -> None:
    """What the first call of some run leaves in the shared budget: nobody has answered it yet, or
    it was refused.
    """

    async def call() -> None:
        rate_limiter = SharedRateLimiter(
            database=app.database, account=app.account, cancellation=CancellationToken()
        )
        await rate_limiter.reserve()
        if refusal is not None:
            await rate_limiter.refused(refusal)

    asyncio.run(call())


@pytest.fixture(autouse=True)
def _no_settings_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(settings_module.process_environment()):
        if name.startswith(OURS):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def template(
    template: str,
    postgres: EmbeddedServer,
    admin: Database,
    shared_simulator: Simulator,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """A database that knows the 256 regions, with Dagster's tables and the 256 partition keys
    beside them.
    """
    name = "dagster_ui_template"
    _administer(admin, f"CREATE DATABASE {name} TEMPLATE {template}")
    _administer(admin, f"ALTER DATABASE {name} SET timezone TO 'UTC'")
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
    """URL of a database of this test's own; Dagster's times are right in UTC only, and a copy does
    not inherit that.
    """
    name = f"test_{uuid.uuid4().hex[:12]}"
    _administer(admin, f"CREATE DATABASE {name} TEMPLATE {template}")
    _administer(admin, f"ALTER DATABASE {name} SET timezone TO 'UTC'")
    yield postgres.url(name)
    _administer(admin, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def environment(environment: Environment) -> Environment:
    """The variables of a collection and of Dagster's processes: `mohe env` would print the same."""
    variables = {**environment, **QUICK}
    settings = settings_module.load(variables)
    return {**variables, **dagster_environment(settings, resolve_urls(settings))}


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    """The database knows the regions already."""
    with App.open(settings) as app:
        yield app


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's own storage, in this test's database."""
    with dagster_instance(settings) as instance:
        yield instance


@pytest.fixture
def definitions(environment: Environment) -> dg.Definitions:
    """Everything, reading this test's environment."""
    return build_defs(resource_overrides={"mohe": MoheResource(environment=environment)})


@pytest.fixture
def few(database: Database) -> FewRegions:
    """Leaves that many regions to be collected, neighbours; returns their partition keys."""

    def keep(count: int) -> list[str]:
        keys = keys_of(database)[:count]
        keep_checkpoints(database, [key.partition("_")[0] for key in keys])
        return keys

    return keep


@pytest.fixture
def collect_elsewhere(app: App) -> Collect:
    """Collects regions by another run, which Dagster does not know."""

    def collect(keys: Sequence[str], run_id: str = "another-run") -> None:
        codes = frozenset(key.partition("_")[0] for key in keys)
        with app.collection(run_id, ClaimFilter(codes=codes)) as run:
            assert len(list(run.outcomes())) == len(keys)

    return collect
