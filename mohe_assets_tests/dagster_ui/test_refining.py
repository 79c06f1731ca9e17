"""Refinement driven by Dagster: the sensor's reasons and its one run, the job, and the partitions
during it.
"""

import datetime as dt
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.utils import make_new_run_id

from mohe_assets.app import App
from mohe_assets.definitions import build_defs
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.names import PLACES
from mohe_assets.defs.runtime.reconciliation import disagreements, regions_of, shown
from mohe_assets.defs.sensors import refinement_sensor
from mohe_assets.domain.kst import KST
from mohe_assets.errors import QuotaExhausted
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import execute, read
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import statuses
from mohe_assets_tests.support.rate_and_quota import call_once
from mohe_assets_tests.support.regions import Collect, FewRegions


class Tick:
    """One tick of the sensor, with changes to its environment."""

    def __init__(self, instance: dg.DagsterInstance, environment: Environment) -> None:
        self._instance = instance
        self._environment = {**environment, "MOHE_REFINE": "true"}

    def __call__(self, **changes: str) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(instance=self._instance)
        result = refinement_sensor(
            context, mohe=MoheResource(environment={**self._environment, **changes})
        )
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    def reason(self, **changes: str) -> str:
        result = self(**changes)
        assert isinstance(result, dg.SkipReason), "it asks for a run"
        return str(result.skip_message)


@pytest.fixture
def tick(instance: dg.DagsterInstance, environment: Environment) -> Tick:
    return Tick(instance, environment)


class TestTheSensor:
    def test_asks_for_one_run_when_every_region_has_its_base_plan(
        self, tick: Tick, few: FewRegions, collect_elsewhere: Collect
    ) -> None:
        collect_elsewhere(few(3))
        result = tick()
        assert isinstance(result, dg.SensorResult)
        assert len(result.run_requests or []) == 1

    def test_waits_for_the_base_plan_of_every_region(
        self, tick: Tick, few: FewRegions, collect_elsewhere: Collect
    ) -> None:
        keys = few(3)
        collect_elsewhere(keys[:2])
        assert "base plan" in tick.reason()

    def test_waits_for_runs_that_collect(
        self, tick: Tick, few: FewRegions, collect_elsewhere: Collect, instance: dg.DagsterInstance
    ) -> None:
        collect_elsewhere(few(2))
        run = dg.DagsterRun(
            job_name="refine_places", run_id=make_new_run_id(), status=dg.DagsterRunStatus.STARTED
        )
        instance.add_run(run)
        assert "1 runs are collecting or refining" in tick.reason()

    def test_asks_for_nothing_with_keys_of_another_origin_than_the_data(
        self, tick: Tick, few: FewRegions, collect_elsewhere: Collect
    ) -> None:
        collect_elsewhere(few(2))
        assert "made up by the simulator" in tick.reason(NAVER_CLIENT_ID="an-id-of-a-person")

    def test_waits_for_the_quota_and_says_until_when(
        self, tick: Tick, few: FewRegions, collect_elsewhere: Collect, app: App
    ) -> None:
        collect_elsewhere(few(2))
        until = dt.datetime.now(KST).replace(microsecond=0) + dt.timedelta(hours=5)
        call_once(
            app, QuotaExhausted("Naver says 010", api=app.account.api, reset_at=until, calls=1)
        )
        assert f"{until:%Y-%m-%d %H:%M:%S} KST" in tick.reason()

    def test_launches_nothing_when_a_person_does_not_want_it(
        self, tick: Tick, few: FewRegions, collect_elsewhere: Collect
    ) -> None:
        collect_elsewhere(few(2))
        assert "MOHE_REFINE is false" in tick.reason(MOHE_REFINE="false")
        assert "CHECKPOINT_AUTO_RESUME is false" in tick.reason(CHECKPOINT_AUTO_RESUME="false")

    def test_says_when_nothing_promises_more(
        self, tick: Tick, few: FewRegions, collect_elsewhere: Collect, database: Database
    ) -> None:
        collect_elsewhere(few(2))
        execute(database, "UPDATE batch_checkpoint SET promise = 0")
        assert "No region has an expected gain" in tick.reason()


def test_the_job_searches_deeper_and_the_partitions_stay_green(
    environment: Environment,
    instance: dg.DagsterInstance,
    app: App,
    database: Database,
    few: FewRegions,
    collect_elsewhere: Collect,
) -> None:
    keys = few(2)
    collect_elsewhere(keys)
    before = read(database, "SELECT count(*) AS n FROM places")[0]["n"]
    mohe = MoheResource(environment={**environment, "MOHE_MAX_CALLS_PER_REGION": "30"})
    definitions = build_defs(resource_overrides={"mohe": mohe})
    result = definitions.resolve_job_def("refine_places").execute_in_process(instance=instance)
    assert result.success
    assert statuses(database) == {"COMPLETED": 2}
    assert read(database, "SELECT count(*) AS n FROM places")[0]["n"] > before
    assert instance.get_materialized_partitions(PLACES) == set(keys)
    assert disagreements(regions_of(app), shown(instance)) == {}
    newest = instance.get_latest_materialization_event(PLACES)
    metadata = cast("Any", newest).asset_materialization.metadata
    assert metadata["searches_beyond_the_base_plan"].value > 0
