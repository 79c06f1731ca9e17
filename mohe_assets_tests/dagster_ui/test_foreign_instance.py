"""Our definitions in another team's code location: their storage, executor and key prefix."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mohe_assets.app import App
from mohe_assets.definitions import build_defs
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.names import keys_under, places_key
from mohe_assets.defs.runtime.reconciliation import disagreements, regions_of, shown
from mohe_assets.defs.runtime.region_refresh import sync_partition_keys
from mohe_assets.defs.sensors import pending_region_sensor
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import execute
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.regions import Collect, FewRegions

PREFIX = ["team", "korea"]
PLACES = dg.AssetKey([*PREFIX, "places"])


@dg.asset(deps=[PLACES])
def their_report() -> None:
    """An asset of the other team, downstream of ours."""


def their_defs() -> dg.Definitions:
    """Reads the environment of its process, as a code location does."""
    collection = dg.define_asset_job("their_collection", dg.AssetSelection.assets(PLACES))
    theirs = dg.Definitions(
        assets=[their_report], jobs=[collection], executor=dg.multiprocess_executor
    )
    return dg.Definitions.merge(build_defs(key_prefix=PREFIX, executor=None), theirs)


def their_job() -> dg.JobDefinition:
    """A job of theirs on our asset, in their executor."""
    return their_defs().resolve_job_def("their_collection")


@pytest.fixture
def instance(tmp_path: Path, app: App) -> Iterator[dg.DagsterInstance]:
    """With storage in SQLite."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        sync_partition_keys(instance, app)
        yield instance


@pytest.fixture(autouse=True)
def process(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_all_keys_have_the_prefix_and_a_downstream_asset_finds_them() -> None:
    defs = their_defs()
    dg.Definitions.validate_loadable(defs)
    graph = defs.get_repository_def().asset_graph
    ours = {key for key in graph.get_all_asset_keys() if key != their_report.key}
    assert len(ours) == len(
        list(build_defs().get_repository_def().asset_graph.get_all_asset_keys())
    )
    assert all(key.path[:2] == PREFIX for key in ours)
    assert all(key.asset_key.path[:2] == PREFIX for key in graph.asset_check_keys)
    assert graph.get(their_report.key).parent_keys == {PLACES}
    assert graph.get(PLACES).parent_keys == {dg.AssetKey([*PREFIX, "sigungu_regions"])}


def test_a_run_in_their_executor_collects_the_partitions_it_names(
    instance: dg.DagsterInstance, few: FewRegions, app: App
) -> None:
    keys = few(1)
    result = dg.execute_job(
        dg.reconstructable(their_job),
        instance=instance,
        tags={"dagster/partition": keys[0]},
    )
    assert result.success
    events = [entry.dagster_event for entry in instance.all_logs(result.run_id)]
    started = dg.DagsterEventType.STEP_WORKER_STARTED
    assert any(event and event.event_type is started for event in events), "no process of its own"
    assert app.checkpoints.progress().completed == 1
    assert instance.get_materialized_partitions(PLACES) == set(keys)
    assert instance.get_materialized_partitions(dg.AssetKey("places")) == set()
    with keys_under(PREFIX):
        assert places_key() == PLACES
        assert disagreements(regions_of(app), shown(instance)) == {}


def test_the_sensor_reports_and_repairs_under_the_prefix(
    instance: dg.DagsterInstance,
    few: FewRegions,
    database: Database,
    collect_elsewhere: Collect,
    app: App,
) -> None:
    keys = few(3)
    collect_elsewhere(keys[:1])
    execute(
        database,
        "UPDATE batch_checkpoint SET status = 'FAILED', error_message = 'HTTP 500', failures = 1, "
        "retry_at = now() + interval '1 hour', end_time = now(), run_id = 'x' "
        "WHERE region_code = :code",
        code=keys[1].partition("_")[0],
    )
    busy = instance.create_run_for_job(
        their_job(), asset_selection={PLACES}, tags={"dagster/partition": keys[2]}
    )
    result = pending_region_sensor(
        dg.build_sensor_context(instance=instance), mohe=MoheResource(key_prefix=PREFIX)
    )
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests, f"{keys[2]} is asked of run {busy.run_id}"
    assert instance.get_materialized_partitions(PLACES) == {keys[0]}
    with keys_under(PREFIX):
        assert disagreements(regions_of(app), shown(instance)) == {}
        seen = shown(instance)
    assert seen[keys[1]] is not None
    assert set(instance.get_asset_keys()) == {PLACES}
