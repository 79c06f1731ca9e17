"""Partitions match the checkpoints after the next tick, whatever was lost of Dagster's events or
changed in rows.
"""

import json
from collections.abc import Callable
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from mohe_assets.app import App
from mohe_assets.defs.runtime.names import PLACES
from mohe_assets.defs.runtime.reconciliation import (
    disagreements,
    plan,
    reconcile,
    regions_of,
    shown,
)
from mohe_assets.defs.runtime.runs import BATCH_TAG, REGIONS_TAG, TRIGGER_TAG
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import execute, read
from mohe_assets_tests.support.launcher import Launcher
from mohe_assets_tests.support.processes import materializations, partition_of, statuses
from mohe_assets_tests.support.rate_and_quota import set_noon
from mohe_assets_tests.support.regions import Collect, FewRegions, code_of, name_of

Differing = Callable[[], dict[str, str]]
FAIL = (
    "UPDATE batch_checkpoint SET status = 'FAILED', error_message = 'the API is tired', retry_at "
    "= NULL, end_time = now()"
)


@pytest.fixture
def differing(instance: dg.DagsterInstance, app: App) -> Differing:
    """Partition key → what differs, over all regions."""
    return lambda: disagreements(regions_of(app), shown(instance))


def colours(instance: dg.DagsterInstance, keys: list[str]) -> list[str]:
    """As the page counts them."""
    seen = shown(instance)
    return [getattr(seen[key], "name", "MISSING") for key in keys]


def set_by_hand(database: Database, key: str, changes: str) -> None:
    execute(
        database,
        f"UPDATE batch_checkpoint SET {changes} WHERE region_code = :code",
        code=code_of(key),
    )


def fail_at(simulator: Simulator, key: str) -> None:
    simulator.add_faults(
        [{"api": "naver", "fault": "status", "status": 503, "query_contains": name_of(key)}]
    )


class TestALostEventLog:
    def test_both_colours_come_back_with_their_figures_and_reasons(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        app: App,
        simulator: Simulator,
        few: FewRegions,
        differing: Differing,
    ) -> None:
        keys = few(4)
        fail_at(simulator, keys[1])
        run = launcher.collect(keys[0], keys[2])
        assert colours(instance, keys) == ["MATERIALIZED", "FAILED", "MATERIALIZED", "MISSING"]
        instance.wipe_assets([PLACES])
        assert set(differing()) == set(keys[:3])

        reconcile(instance, app)

        assert differing() == {}
        assert colours(instance, keys) == ["MATERIALIZED", "FAILED", "MATERIALIZED", "MISSING"]
        assert sorted(
            partition_of(record.event_log_entry) for record in materializations(instance)
        ) == [keys[0], keys[2]]
        planned = instance.get_latest_planned_materialization_info(PLACES, keys[1])
        assert planned is not None
        assert planned.run_id == run.run_id, "red by the run that failed it"
        assert len(instance.get_runs()) == 1
        (observed,) = instance.fetch_observations(PLACES, limit=10).records
        assert "503" in str(
            cast("Any", observed).event_log_entry.asset_observation.metadata["error"].value
        )

    def test_a_failure_whose_run_is_forgotten_is_shown_by_a_run_recorded_for_it_once(
        self,
        instance: dg.DagsterInstance,
        app: App,
        database: Database,
        few: FewRegions,
        differing: Differing,
    ) -> None:
        keys = few(3)
        for key in keys[:2]:
            execute(database, f"{FAIL} WHERE region_code = :code", code=code_of(key))
        reconcile(instance, app)
        reconcile(instance, app)
        assert differing() == {}
        assert colours(instance, keys) == ["FAILED", "FAILED", "MISSING"]
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.FAILURE
        assert run.tags[REGIONS_TAG] == f"{name_of(keys[0])} … (2)"
        assert run.tags[TRIGGER_TAG] == "reconciliation"
        assert any("the API is tired" in entry.message for entry in instance.all_logs(run.run_id))


class TestAPartitionThatIsRedForNothing:
    def run_that_failed(self, instance: dg.DagsterInstance, *keys: str) -> None:
        """As a SIGTERM before its first line leaves it: planned, failed, and nothing of ours ever
        ran.
        """
        run = instance.add_run(
            dg.DagsterRun(job_name="ingest_places", status=dg.DagsterRunStatus.FAILURE)
        )
        for key in keys:
            plan(instance, key, run_id=run.run_id)

    def test_never_tried_it_is_missing_again(
        self, instance: dg.DagsterInstance, app: App, few: FewRegions, differing: Differing
    ) -> None:
        keys = few(3)
        self.run_that_failed(instance, *keys[:2])
        assert differing() == dict.fromkeys(keys[:2], "PENDING, but failed")
        reconcile(instance, app)
        assert colours(instance, keys) == ["MISSING"] * 3
        assert differing() == {}

    def test_completed_it_is_green_again_and_due_in_a_new_round_as_well(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        app: App,
        database: Database,
        few: FewRegions,
        differing: Differing,
    ) -> None:
        keys = few(2)
        launcher.collect(keys[0], keys[1])
        set_by_hand(database, keys[1], "status = 'PENDING', round = 2")
        self.run_that_failed(instance, *keys)
        assert differing() == {keys[0]: "COMPLETED, but failed", keys[1]: "PENDING, but failed"}
        reconcile(instance, app)
        assert colours(instance, keys) == ["MATERIALIZED"] * 2
        assert differing() == {}

    def test_released_by_a_run_that_fails_for_another_region_it_is_never_red(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        simulator: Simulator,
        few: FewRegions,
        differing: Differing,
    ) -> None:
        keys = few(12)
        set_noon(database, simulator)
        # At once, while a 503 would be tried again until the quota is used up.
        simulator.add_faults(
            [{"api": "naver", "fault": "wrong_shape", "query_contains": name_of(keys[0])}]
        )
        simulator.configure(daily_quota=11, latency_ms=30)
        done = launcher.collect(keys[0], keys[-1])
        assert not done.succeeded
        left = statuses(database)
        assert left["FAILED"] == 1
        assert left["PENDING"] >= 1
        assert colours(instance, keys).count("FAILED") == 1
        assert differing() == {}

    def test_of_a_run_whose_key_is_refused_it_is_never_red_either(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        simulator: Simulator,
        few: FewRegions,
    ) -> None:
        keys = few(5)
        simulator.configure(client_secret="changed-at-the-other-end")
        assert not launcher.collect(keys[0], keys[4]).succeeded
        assert colours(instance, keys) == ["MISSING"] * 5


class TestARowEditedByHand:
    def test_completed_without_a_ledger_it_is_reported_with_what_the_row_says(
        self,
        instance: dg.DagsterInstance,
        app: App,
        database: Database,
        few: FewRegions,
        differing: Differing,
    ) -> None:
        keys = few(2)
        set_by_hand(
            database, keys[0], "status = 'COMPLETED', processed_count = 7, reported_at = now()"
        )
        assert differing() == {keys[0]: "COMPLETED, but missing"}
        reconcile(instance, app)
        assert differing() == {}
        (record,) = materializations(instance)
        shown_of_it = cast("Any", record.asset_materialization).metadata
        assert shown_of_it["places"].value == 7
        assert "collected_by_run" not in shown_of_it, "no run collected it"

    def test_pending_in_its_first_round_it_is_told_and_collected_again(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        app: App,
        database: Database,
        few: FewRegions,
        collect_elsewhere: Collect,
        differing: Differing,
    ) -> None:
        keys = few(2)
        collect_elsewhere(keys)
        reconcile(instance, app)
        set_by_hand(database, keys[1], "status = 'PENDING'")
        told = {keys[1]: "PENDING, but materialized"}
        assert reconcile(instance, app) == told
        assert differing() == told, "an event cannot be unsaid"
        assert app.checkpoints.due_keys() == {keys[1]}
        launcher.collect(keys[1], **{TRIGGER_TAG: "sensor"})
        assert differing() == {}

    def test_failed_though_green_or_completed_though_red_it_changes_its_colour(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        app: App,
        database: Database,
        simulator: Simulator,
        few: FewRegions,
        differing: Differing,
    ) -> None:
        keys = few(2)
        fail_at(simulator, keys[0])
        launcher.collect(keys[0], keys[1])
        set_by_hand(database, keys[0], "status = 'COMPLETED'")
        execute(database, f"{FAIL} WHERE region_code = :code", code=code_of(keys[1]))
        reconcile(instance, app)
        assert colours(instance, keys) == ["MATERIALIZED", "FAILED"]
        assert differing() == {}

    def test_in_refinement_a_green_region_is_fine(
        self,
        instance: dg.DagsterInstance,
        app: App,
        database: Database,
        few: FewRegions,
        collect_elsewhere: Collect,
        differing: Differing,
    ) -> None:
        keys = few(1)
        collect_elsewhere(keys)
        reconcile(instance, app)
        set_by_hand(
            database, keys[0], "status = 'PROCESSING', lease_expires_at = now() + interval '1 hour'"
        )
        assert differing() == {}


def test_the_check_tells_what_differs_and_passes_once_it_is_repaired(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    app: App,
    database: Database,
    few: FewRegions,
) -> None:
    keys = few(3)
    execute(database, f"{FAIL} WHERE region_code = :code", code=code_of(keys[2]))
    job = dg.Definitions(
        assets=definitions.assets,
        asset_checks=definitions.asset_checks,
        jobs=[dg.define_asset_job("look", dg.AssetSelection.checks_for_assets(PLACES))],
        resources=definitions.resources,
        executor=dg.in_process_executor,
    ).resolve_job_def("look")

    def look() -> dg.AssetCheckEvaluation:
        return next(
            one
            for one in job.execute_in_process(instance=instance).get_asset_check_evaluations()
            if one.check_name == "checkpoints_match_partitions"
        )

    found = look()
    assert not found.passed
    assert json.loads(json.dumps(found.metadata["regions"].value)) == {
        keys[2]: "FAILED, but missing"
    }
    reconcile(instance, app)
    assert look().passed


class TestWhoTheRunIsFor:
    def test_a_run_of_a_person_says_in_its_tags_which_regions_and_who_asked(
        self, launcher: Launcher, instance: dg.DagsterInstance, few: FewRegions
    ) -> None:
        keys = few(3)
        one, several = (
            launcher.collect(keys[0]),
            launcher.collect(keys[1], keys[2], **{"dagster/backfill": "abc"}),
        )
        tags = [
            cast("dg.DagsterRun", instance.get_run_by_id(run.run_id)).tags for run in (one, several)
        ]
        assert tags[0][REGIONS_TAG] == name_of(keys[0])
        assert tags[1][REGIONS_TAG] == f"{name_of(keys[1])} … (2)"
        assert [each[TRIGGER_TAG] for each in tags] == ["person", "backfill"]
        assert {each[BATCH_TAG] for each in tags} == {"place-ingestion-batch"}
        assert tags[1][ASSET_PARTITION_RANGE_START_TAG] == keys[1]
        assert tags[1][ASSET_PARTITION_RANGE_END_TAG] == keys[2]

    def test_a_region_that_failed_links_to_its_run_and_row(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        simulator: Simulator,
        few: FewRegions,
    ) -> None:
        keys = few(1)
        fail_at(simulator, keys[0])
        run = launcher.collect(keys[0])
        (record,) = instance.fetch_observations(PLACES, limit=10).records
        told = cast("Any", record).event_log_entry.asset_observation.metadata
        assert isinstance(told["failed_in_run"], dg.DagsterRunMetadataValue)
        assert told["failed_in_run"].value == run.run_id
        assert told["attempt"].value == 1
        assert (
            read(database, told["execution_row"].value.rstrip(";"))[0]["execution_id"] == run.run_id
        )
