"""The daily job deletes Dagster's old runs, and no partition on the page changes its colour."""

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.tags import BACKFILL_ID_TAG

from mohe_assets.app import App
from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.defs.runtime.names import PLACES
from mohe_assets.defs.runtime.retention import Pruned, prune
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import execute
from mohe_assets_tests.support.launcher import Launcher
from mohe_assets_tests.support.regions import FewRegions

AGE = "UPDATE runs SET update_timestamp = update_timestamp - interval '31 days'"
EARLIER = "UPDATE database_size SET measured_at = measured_at - interval '2 days'"


@pytest.fixture(autouse=True)
def _not_the_first_day(database: Database) -> None:
    execute(database, EARLIER)


def shown(instance: dg.DagsterInstance) -> tuple[object, object, object]:
    """The page's subsets of partitions: green, red, under way."""
    cached = get_and_update_asset_status_cache_value(instance, PLACES, sigungu_partitions)
    assert cached is not None
    return (
        cached.serialized_materialized_partition_subset,
        cached.serialized_failed_partition_subset,
        cached.serialized_in_progress_partition_subset,
    )


def runs(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def test_old_runs_that_show_nothing_go_and_those_behind_the_page_stay(
    launcher: Launcher,
    instance: dg.DagsterInstance,
    app: App,
    database: Database,
    few: FewRegions,
) -> None:
    keys = few(2)
    first = launcher.collect(keys[0], keys[1]).run_id
    rounds = [launcher.job("new_round").run_id for _ in range(2)]
    latest = launcher.collect(keys[0], keys[1]).run_id
    before = shown(instance)
    # A day more or less: nothing is old yet.
    assert prune(instance, app) == Pruned(searches=0, runs=0, begins_at=None)
    execute(database, AGE)
    planned = prune(instance, app, dry_run=True)
    assert (planned.runs, runs(instance)) == (3, {first, *rounds, latest})
    assert prune(instance, app).runs == 3
    assert runs(instance) == {latest}
    assert instance.all_logs(first) == []
    assert instance.all_logs(latest)
    assert shown(instance) == before
    assert instance.get_materialized_partitions(PLACES) == set(keys)
    assert prune(instance, app).runs == 0


def test_a_failed_run_stays_while_its_partition_is_red(
    launcher: Launcher,
    instance: dg.DagsterInstance,
    app: App,
    database: Database,
    few: FewRegions,
) -> None:
    (key,) = few(1)
    run = launcher.create(key)
    instance.report_run_failed(run)
    before = shown(instance)
    execute(database, AGE)
    prune(instance, app)
    assert run.run_id in runs(instance)
    assert shown(instance) == before


def test_runs_of_a_backfill_that_is_under_way_stay(
    launcher: Launcher, instance: dg.DagsterInstance, app: App, database: Database
) -> None:
    under_way, over = (
        PartitionBackfill(
            backfill_id="abcdefgh",
            status=status,
            from_failure=False,
            tags={},
            backfill_timestamp=0.0,
        )
        for status in (BulkActionStatus.REQUESTED, BulkActionStatus.COMPLETED_SUCCESS)
    )
    instance.add_backfill(under_way)
    run_id = launcher.job("new_round").run_id
    instance.add_run_tags(run_id, {BACKFILL_ID_TAG: under_way.backfill_id})
    execute(database, AGE)
    assert prune(instance, app).runs == 0
    instance.update_backfill(over)
    assert prune(instance, app).runs == 1


def test_nothing_is_deleted_on_the_first_day_and_the_job_says_so(
    launcher: Launcher, instance: dg.DagsterInstance, database: Database
) -> None:
    old = launcher.job("new_round").run_id
    execute(database, AGE)
    execute(database, "UPDATE database_size SET measured_at = now() - interval '23 hours'")
    done = launcher.job("maintenance")
    assert done.succeeded
    assert "Nothing is deleted before" in done.log
    assert old in runs(instance)
    execute(database, "UPDATE database_size SET measured_at = measured_at - interval '2 hours'")
    assert "0 searches of old rounds and 1 old runs are deleted." in launcher.job("maintenance").log


def test_0_days_keep_everything(
    launcher: Launcher, instance: dg.DagsterInstance, app: App, database: Database
) -> None:
    launcher.job("new_round")
    execute(database, AGE)
    settings = app.settings.model_copy(update={"keep_run_days": 0, "keep_ledger_days": 0})
    kept = App(settings=settings, database=app.database)
    assert prune(instance, kept) == Pruned(searches=0, runs=0, begins_at=None)
