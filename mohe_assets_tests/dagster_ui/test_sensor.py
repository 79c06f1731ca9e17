"""The sensor on a real database: the runs it requests, the reasons it gives for waiting, and its
repairs.
"""

import dataclasses
import datetime as dt
import re
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.test_utils import create_run_for_test

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime import recovery
from mohe_assets.defs.runtime.names import PLACES
from mohe_assets.defs.runtime.recovery import end_what_has_not_begun
from mohe_assets.defs.runtime.region_refresh import busy_keys
from mohe_assets.defs.sensors import RECONCILE_SECONDS, pending_region_sensor
from mohe_assets.domain.kst import KST
from mohe_assets.errors import ApiBlocked, QuotaExhausted, RequestRefused
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import execute, read, statements
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import (
    executions,
    materializations,
    partition_of,
    run_status,
    statuses,
)
from mohe_assets_tests.support.rate_and_quota import call_once
from mohe_assets_tests.support.regions import Collect, FewRegions, keys_of

GIVE_UP = (
    "UPDATE batch_checkpoint SET status = 'FAILED', retry_at = NULL, failures = 5, end_time = now()"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sensor:
    """The sensor on this test's database; a call is one tick."""

    instance: dg.DagsterInstance
    environment: Environment

    def __call__(self, *, cursor: str | None = None, **changes: str) -> dg.SensorResult:
        context = dg.build_sensor_context(instance=self.instance, cursor=cursor)
        result = pending_region_sensor(
            context, mohe=MoheResource(environment={**self.environment, **changes})
        )
        assert isinstance(result, dg.SensorResult)
        return result

    def skip(self, **changes: str) -> str:
        """The reason of a tick that looks at nothing."""
        context = dg.build_sensor_context(instance=self.instance)
        result = pending_region_sensor(
            context, mohe=MoheResource(environment={**self.environment, **changes})
        )
        assert isinstance(result, dg.SkipReason)
        return str(result.skip_message)

    def asked(self, **changes: str) -> list[list[str]]:
        """Return the partition keys of each requested run."""
        requests = self(**changes).run_requests or []
        keys = self.instance.get_dynamic_partitions(str(sigungu_partitions.name))
        return [
            sorted(busy_keys(keys, [dg.DagsterRun(job_name="any", tags=one.tags)]))
            for one in requests
        ]

    def reason(self, **changes: str) -> str:
        """Return the reason for requesting no run."""
        result = self(**changes)
        assert not result.run_requests
        assert result.skip_reason is not None
        return str(result.skip_reason.skip_message)


@pytest.fixture
def sensor(instance: dg.DagsterInstance, environment: Environment) -> Sensor:
    return Sensor(instance=instance, environment=environment)


def launched(
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    *,
    job: str = "ingest_places",
    **tags: str,
) -> dg.DagsterRun:
    """A run that has this status in Dagster and no process."""
    there = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("mohe_assets"), "__repository__")
    run: dg.DagsterRun = create_run_for_test(
        instance,
        job_name=job,
        status=status,
        tags=tags,
        asset_selection={PLACES} if job in {"ingest_places", "__ASSET_JOB"} else None,
        remote_job_origin=RemoteJobOrigin(there, job),
    )
    return run


class TestWhatItAsksFor:
    def test_ranges_of_the_regions_that_are_due(self, sensor: Sensor, database: Database) -> None:
        keys = keys_of(database)
        assert sensor.asked() == [keys[0:22], keys[22:65], keys[65:129]]
        assert sensor.asked(MOHE_REGIONS_PER_RUN="200", MOHE_RUNS_IN_FLIGHT="2") == [
            keys[:100],
            keys[100:],
        ]

    def test_completed_regions_are_left_alone(
        self, sensor: Sensor, few: FewRegions, collect_elsewhere: Collect
    ) -> None:
        keys = few(7)
        collect_elsewhere([keys[2], keys[3]])
        assert sensor.asked() == [keys[0:2], keys[4:7]]

    @pytest.mark.parametrize(
        ("job", "status"),
        [
            ("ingest_places", dg.DagsterRunStatus.QUEUED),
            ("ingest_places", dg.DagsterRunStatus.STARTED),
            ("ingest_places", dg.DagsterRunStatus.CANCELING),
            ("__ASSET_JOB", dg.DagsterRunStatus.NOT_STARTED),
            ("__ASSET_JOB", dg.DagsterRunStatus.STARTING),
        ],
        ids=lambda value: getattr(value, "name", value),
    )
    def test_what_an_unfinished_run_is_going_to_collect_is_not_asked_for(
        self,
        sensor: Sensor,
        instance: dg.DagsterInstance,
        few: FewRegions,
        job: str,
        status: dg.DagsterRunStatus,
    ) -> None:
        keys = few(8)
        launched(
            instance,
            status,
            job=job,
            **{ASSET_PARTITION_RANGE_START_TAG: keys[1], ASSET_PARTITION_RANGE_END_TAG: keys[3]},
        )
        launched(instance, status, job=job, **{PARTITION_NAME_TAG: keys[6]})
        assert sensor.asked(MOHE_RUNS_IN_FLIGHT="9") == [[keys[0]], keys[4:6], [keys[7]]]

    def test_regions_that_wait_for_a_run_to_begin_are_not_called_nothing(
        self, sensor: Sensor, instance: dg.DagsterInstance, few: FewRegions
    ) -> None:
        keys = few(3)
        tags = {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[2]}
        launched(instance, dg.DagsterRunStatus.QUEUED, **tags)
        assigned = "All due regions are assigned to 1 unfinished run."
        assert sensor.reason() == f"{assigned} 0 of 3 regions are completed, 3 are pending."

    @pytest.mark.parametrize(
        "ended",
        [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
        ids=lambda s: s.name,
    )
    def test_what_a_run_that_is_over_did_not_collect_is_asked_for_again(
        self,
        sensor: Sensor,
        instance: dg.DagsterInstance,
        few: FewRegions,
        ended: dg.DagsterRunStatus,
    ) -> None:
        keys = few(3)
        request = (sensor().run_requests or [])[0]
        launched(instance, ended, **request.tags)
        assert sensor.asked() == [keys]

    def test_runs_under_way_take_their_share_of_the_room(
        self, sensor: Sensor, instance: dg.DagsterInstance, database: Database
    ) -> None:
        keys = keys_of(database)
        for key in keys[-2:]:
            launched(instance, dg.DagsterRunStatus.STARTED, **{PARTITION_NAME_TAG: key})
        launched(instance, dg.DagsterRunStatus.STARTED, job="refresh_regions")
        assert sensor.asked() == [keys[:64]], (
            "at full size: they end at another time than the others anyway"
        )

    def test_a_failed_region_is_asked_for_once_its_time_has_come(
        self, sensor: Sensor, database: Database, few: FewRegions
    ) -> None:
        later, now, never = few(3)
        for key, retry_at in (
            (later, "now() + interval '1 hour'"),
            (now, "now() - interval '1 second'"),
            (never, "NULL"),
        ):
            code = key.partition("_")[0]
            execute(database, f"{GIVE_UP} WHERE region_code = :code", code=code)
            execute(
                database,
                f"UPDATE batch_checkpoint SET retry_at = {retry_at} WHERE region_code = :code",
                code=code,
            )
        assert sensor.asked() == [[now]]


class TestWhatItWaitsFor:
    def test_a_person_when_auto_resume_is_off(self, sensor: Sensor) -> None:
        assert "CHECKPOINT_AUTO_RESUME is false" in sensor.reason(CHECKPOINT_AUTO_RESUME="false")

    def test_the_quota_and_it_says_until_when(self, sensor: Sensor, app: App) -> None:
        until = dt.datetime.now(KST).replace(microsecond=0) + dt.timedelta(hours=5)
        call_once(
            app, QuotaExhausted("Naver says 010", api=app.account.api, reset_at=until, calls=1)
        )
        reason = sensor.reason()
        assert f"{until:%Y-%m-%d %H:%M:%S} KST" in reason
        assert "Naver says 010" in reason

    def test_the_month_of_the_hub_and_nothing_is_launched_until_it_ends(
        self, sensor: Sensor
    ) -> None:
        hub = {
            "NCP_APIGW_API_KEY_ID": "an-id-of-the-hub",
            "NCP_APIGW_API_KEY": "a-key-of-the-hub",
            "MOHE_MONTHLY_QUOTA": "1",
        }
        with App.open(settings_module.load({**sensor.environment, **hub})) as app:
            call_once(app)
        next_month = (dt.datetime.now(KST).replace(day=1) + dt.timedelta(days=32)).replace(day=1)
        reason = sensor.reason(**hub)
        assert (
            f"Waiting for the quota until {next_month:%Y-%m-%d} 00:00:00 KST: the month's 1 calls "
            "are used" in reason
        )

    def test_the_credentials_and_it_names_their_variables(self, sensor: Sensor, app: App) -> None:
        why = "NAVER_CLIENT_ID or NAVER_CLIENT_SECRET is refused."
        blocked = ApiBlocked(
            why, api=app.account.api, variables=("NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET"), calls=1
        )
        call_once(app, blocked)
        reason = sensor.reason()
        assert "NAVER_CLIENT_ID" in reason
        assert "NAVER_CLIENT_SECRET" in reason
        assert sensor.asked(NAVER_CLIENT_SECRET="another-secret"), (
            "credentials that changed are worth a try"
        )

    def test_an_api_that_is_unavailable_and_then_one_run_probes_it(
        self, sensor: Sensor, app: App, database: Database
    ) -> None:
        call_once(app, RequestRefused("HTTP 404, SE05", api=app.account.api, advice="set keys"))
        reason = sensor.reason()
        for words in ("unavailable since", "SE05; set keys", "next probe is due"):
            assert words in reason
        execute(
            database, "UPDATE api_budget SET next_probe_at = budget_clock() - interval '1 second'"
        )
        assert len(sensor.asked()) == 1
        assert len(sensor.asked(NAVER_CLIENT_SECRET="another-secret")) > 1, "they are tried at once"

    def test_the_runs_in_flight(
        self, sensor: Sensor, instance: dg.DagsterInstance, database: Database
    ) -> None:
        for key in keys_of(database)[:2]:
            launched(instance, dg.DagsterRunStatus.STARTED, **{PARTITION_NAME_TAG: key})
        reason = sensor.reason(MOHE_RUNS_IN_FLIGHT="2")
        assert "2 runs are unfinished" in reason
        assert "0 of 256 regions are completed, 256 are pending" in reason, (
            "how far it is can be read in every tick"
        )

    def test_runs_that_have_not_begun_and_it_names_them_and_for_how_long(
        self, sensor: Sensor, instance: dg.DagsterInstance, database: Database
    ) -> None:
        first, second, third = (
            launched(instance, status, **{PARTITION_NAME_TAG: key})
            for status, key in zip(
                (
                    dg.DagsterRunStatus.QUEUED,
                    dg.DagsterRunStatus.NOT_STARTED,
                    dg.DagsterRunStatus.STARTED,
                ),
                keys_of(database),
                strict=False,
            )
        )
        execute(
            database, "UPDATE runs SET update_timestamp = update_timestamp - interval '40 seconds'"
        )
        reason = sensor.reason(MOHE_RUNS_IN_FLIGHT="3")
        assert "3 runs are unfinished" in reason
        assert f"{first.run_id[:8]} (QUEUED for 4" in reason
        assert f"{second.run_id[:8]} (NOT_STARTED for 4" in reason
        assert third.run_id[:8] not in reason

    def test_a_run_that_was_never_submitted_holds_no_place_of_another(
        self, sensor: Sensor, instance: dg.DagsterInstance, database: Database
    ) -> None:
        lost = launched(
            instance, dg.DagsterRunStatus.NOT_STARTED, **{PARTITION_NAME_TAG: keys_of(database)[0]}
        )
        sensor.reason(MOHE_RUNS_IN_FLIGHT="1")
        execute(
            database, "UPDATE runs SET update_timestamp = update_timestamp - interval '61 seconds'"
        )
        assert keys_of(database)[0] in sensor.asked(MOHE_RUNS_IN_FLIGHT="1")[0]
        assert run_status(instance, lost.run_id) is dg.DagsterRunStatus.CANCELED

    def test_the_batch_that_collects_everything(
        self, sensor: Sensor, instance: dg.DagsterInstance
    ) -> None:
        launched(instance, dg.DagsterRunStatus.STARTED, job="place_ingestion_batch")
        assert "place_ingestion_batch" in sensor.reason()

    def test_the_tick_names_a_region_list_that_was_not_believed(
        self, sensor: Sensor, database: Database, few: FewRegions
    ) -> None:
        few(1)
        execute(database, GIVE_UP)
        assert "Region list" not in sensor.reason()
        execute(
            database,
            """INSERT INTO unconfirmed_region_list
               VALUES ('sigungu', 'x', 196, '{}', 'It lacks 60.', false,
                       '2026-11-28', '2026-11-29')""",
        )
        reason = sensor.reason()
        assert "Region list: Not believed since 2026-11-28: It lacks 60. The old list" in reason
        assert "accept_any_change: true" in reason

    def test_nothing_and_then_it_counts(
        self, sensor: Sensor, database: Database, few: FewRegions, collect_elsewhere: Collect
    ) -> None:
        keys = few(6)
        collect_elsewhere(keys[:3])
        execute(database, f"{GIVE_UP} WHERE status = 'PENDING'")
        retry_at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=5)
        execute(
            database,
            "UPDATE batch_checkpoint SET retry_at = :retry_at WHERE region_code = :code",
            retry_at=retry_at,
            code=keys[5].partition("_")[0],
        )
        reason = sensor.reason()
        assert reason.startswith(
            "No region is due. 3 of 6 regions are completed, 3 failed "
            f"(next try {retry_at.astimezone(KST):%Y-%m-%d %H:%M:%S} KST)"
        )
        assert "2 of these only `mohe retry` tries again" in reason

    def test_regions_and_then_it_says_how_to_get_them(
        self, sensor: Sensor, database: Database
    ) -> None:
        execute(database, "DELETE FROM batch_checkpoint")
        execute(database, "DELETE FROM legal_dong")
        execute(database, "DELETE FROM region")
        assert "refresh_regions" in sensor.reason()

    def test_keys_of_another_origin_than_the_data(
        self,
        sensor: Sensor,
        database: Database,
        few: FewRegions,
        collect_elsewhere: Collect,
        simulator: Simulator,
    ) -> None:
        collect_elsewhere(few(2)[:1])
        received = simulator.stats(brief=True)["naver"]["received"]
        result = sensor.skip(NAVER_CLIENT_ID="an-id-of-a-person", MOHE_SEARCH_KEYWORDS="서점")
        assert "made up by the simulator" in result
        assert simulator.stats(brief=True)["naver"]["received"] == received
        assert statuses(database) == {"COMPLETED": 1, "PENDING": 1}, (
            "no other list of keywords is followed either"
        )

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"MOHE_REGIONS_PER_RUN": "many"}, "MOHE_REGIONS_PER_RUN is 'many'"),
            (
                {"NAVER_CLIENT_ID": "", "NAVER_CLIENT_SECRET": ""},
                "NAVER_CLIENT_ID and NAVER_CLIENT_SECRET are not set; ",
            ),
        ],
    )
    def test_a_setting_that_is_bad_or_missing_is_named_by_the_tick_that_skips(
        self, sensor: Sensor, changes: dict[str, str], sentence: str
    ) -> None:
        assert sensor.skip(**changes).startswith(sentence)

    def test_keys_and_then_no_database_is_started(self, sensor: Sensor, tmp_path: Path) -> None:
        without = dict.fromkeys(("MOHE_DATABASE_URL", "NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET"), "")
        home = tmp_path / "no home yet"
        assert "are not set" in sensor.skip(**without, MOHE_HOME=str(home))
        assert not home.exists()


class TestWhatItRepairs:
    @pytest.mark.parametrize(
        "cursor",
        [
            "0",
            "2026-11-29",
            "2026-11-29T00:00:00",
            '{"version": 2}',
            "2100-01-01T00:00:00+00:00",
            "garbage",
        ],
    )
    def test_a_cursor_that_cannot_be_read_is_none(
        self, sensor: Sensor, few: FewRegions, cursor: str
    ) -> None:
        few(1)
        result = sensor(cursor=cursor)
        assert result.run_requests
        assert result.cursor != cursor
        assert dt.datetime.fromisoformat(str(result.cursor)).tzinfo is not None

    def test_checkpoints_that_were_deleted_are_there_again_and_due(
        self, sensor: Sensor, database: Database
    ) -> None:
        execute(database, "DELETE FROM batch_checkpoint")
        assert sensor.asked()
        assert statuses(database) == {"PENDING": 256}

    def test_no_partition_is_deleted_when_the_table_of_regions_was_emptied(
        self, sensor: Sensor, instance: dg.DagsterInstance, database: Database
    ) -> None:
        execute(database, "TRUNCATE region, legal_dong")
        assert "refresh_regions" in sensor.reason()
        assert len(instance.get_dynamic_partitions("sigungu")) == 256

    def test_the_partition_of_an_abolished_region_stays_while_a_backfill_is_unfinished(
        self, sensor: Sensor, instance: dg.DagsterInstance
    ) -> None:
        instance.add_dynamic_partitions("sigungu", ["99999_없어진_구"])

        def backfill(status: BulkActionStatus) -> PartitionBackfill:
            return PartitionBackfill(
                backfill_id="abcdefgh",
                status=status,
                from_failure=False,
                tags={},
                backfill_timestamp=0.0,
            )

        instance.add_backfill(backfill(BulkActionStatus.REQUESTED))
        sensor()
        assert instance.has_dynamic_partition("sigungu", "99999_없어진_구")
        instance.update_backfill(backfill(BulkActionStatus.COMPLETED_SUCCESS))
        sensor()
        assert not instance.has_dynamic_partition("sigungu", "99999_없어진_구")

    def test_a_completion_whose_event_was_lost_is_reported(
        self,
        sensor: Sensor,
        instance: dg.DagsterInstance,
        database: Database,
        few: FewRegions,
        collect_elsewhere: Collect,
    ) -> None:
        keys = few(3)
        collect_elsewhere(keys)
        execute(database, "UPDATE batch_checkpoint SET reported_at = NULL")
        # Within the minute between two comparisons of everything: this needs none.
        sensor(cursor=dt.datetime.now(dt.UTC).isoformat())
        events = [record.event_log_entry for record in materializations(instance)]
        assert sorted(map(partition_of, events)) == keys
        assert {entry.run_id for entry in events} == {""}, "no run of Dagster's can be blamed"
        assert (
            read(database, "SELECT 1 AS one FROM batch_checkpoint WHERE reported_at IS NULL") == []
        )
        sensor()
        assert len(materializations(instance)) == 3, "once is enough"

    def test_an_event_log_that_was_deleted_is_filled_again_within_a_minute(
        self,
        sensor: Sensor,
        instance: dg.DagsterInstance,
        few: FewRegions,
        collect_elsewhere: Collect,
    ) -> None:
        keys = few(5)
        collect_elsewhere(keys[:4])
        moment = dt.datetime.now(dt.UTC)
        sensor(cursor=(moment - dt.timedelta(seconds=RECONCILE_SECONDS / 2)).isoformat())
        assert instance.get_materialized_partitions(PLACES) == set()
        result = sensor(cursor=(moment - dt.timedelta(seconds=RECONCILE_SECONDS + 1)).isoformat())
        assert instance.get_materialized_partitions(PLACES) == set(keys[:4])
        assert dt.datetime.fromisoformat(str(result.cursor)) >= moment

    def test_more_than_a_tick_has_time_for_is_repaired_by_the_next_ticks_without_a_minute_between(
        self,
        sensor: Sensor,
        instance: dg.DagsterInstance,
        database: Database,
        few: FewRegions,
        collect_elsewhere: Collect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("mohe_assets.defs.runtime.reconciliation.REPAIRS_AT_ONCE", 2)
        monkeypatch.setattr("mohe_assets.defs.sensors.REPAIRS_AT_ONCE", 2)
        monkeypatch.setattr("mohe_assets.defs.runtime.recovery.REPAIRS_AT_ONCE", 1)
        keys = few(7)
        collect_elsewhere(keys)
        cursor, materialized = "", []
        while not cursor:
            cursor = str(sensor().cursor or "")
            materialized.append(len(instance.get_materialized_partitions(PLACES)))
        assert materialized == [2, 4, 6, 7]
        # The same for unreported completions.
        execute(database, "UPDATE batch_checkpoint SET reported_at = NULL")
        assert [len(materializations(instance)) for _ in range(2) if sensor(cursor=cursor)] == [
            8,
            9,
        ]

    def test_partition_keys_that_dagster_lost_come_back_and_are_collected(
        self, sensor: Sensor, instance: dg.DagsterInstance, few: FewRegions
    ) -> None:
        keys = few(4)
        name = str(sigungu_partitions.name)
        for key in keys:
            instance.delete_dynamic_partition(name, key)
        assert sensor.asked() == [keys]

    def test_a_run_that_died_gives_its_regions_back_and_ends_as_cancelled(
        self,
        sensor: Sensor,
        instance: dg.DagsterInstance,
        database: Database,
        app: App,
        few: FewRegions,
    ) -> None:
        keys = few(4)
        tags = {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[2]}
        dead = launched(instance, dg.DagsterRunStatus.STARTED, **tags)
        app.executions.start(dead.run_id, total=3)
        app.checkpoints.claim(dead.run_id, limit=3)
        assert sensor.asked() == [[keys[3]]], "it lives: its heart beats"

        execute(
            database, "UPDATE batch_execution_metadata SET heartbeat_at = now() - interval '1 hour'"
        )
        assert sensor.asked() == [keys]
        assert statuses(database) == {"PENDING": 4}
        assert [run["status"] for run in executions(database)] == ["INTERRUPTED"]
        assert run_status(instance, dead.run_id) is dg.DagsterRunStatus.CANCELED

    def test_a_run_that_dagster_knows_to_be_over_gives_its_regions_back_at_once(
        self,
        sensor: Sensor,
        instance: dg.DagsterInstance,
        database: Database,
        app: App,
        few: FewRegions,
    ) -> None:
        keys = few(2)
        over = launched(instance, dg.DagsterRunStatus.FAILURE)
        app.executions.start(over.run_id)
        app.checkpoints.claim(over.run_id, limit=2)
        assert sensor.asked() == [keys]
        assert [run["status"] for run in executions(database)] == ["INTERRUPTED"]
        assert run_status(instance, over.run_id) is dg.DagsterRunStatus.FAILURE

    @pytest.mark.parametrize(
        ("status", "since", "start_timeout", "ended"),
        [
            (dg.DagsterRunStatus.STARTED, 100, 180, False),
            (dg.DagsterRunStatus.STARTED, 130, 180, True),
            (dg.DagsterRunStatus.STARTING, 130, 180, True),
            # Its client died between creating and submitting it: it is in no queue.
            (dg.DagsterRunStatus.NOT_STARTED, 50, 180, False),
            (dg.DagsterRunStatus.NOT_STARTED, 65, 180, True),
            (dg.DagsterRunStatus.QUEUED, 3_600, 180, False),
            # In a cluster, a run waits for a node and an image: it is given the time that the
            # instance gives it.
            (dg.DagsterRunStatus.STARTING, 500, 600, False),
            (dg.DagsterRunStatus.STARTING, 550, 600, True),
        ],
    )
    def test_a_run_that_never_made_itself_known_is_ended_when_it_had_time_enough_to(
        self,
        sensor: Sensor,
        instance: dg.DagsterInstance,
        database: Database,
        few: FewRegions,
        status: dg.DagsterRunStatus,
        since: int,
        start_timeout: int,
        *,
        ended: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        few(1)
        monkeypatch.setitem(
            instance.run_monitoring_settings, "start_timeout_seconds", start_timeout
        )
        silent = launched(instance, status)
        execute(
            database,
            "UPDATE runs SET update_timestamp = update_timestamp - make_interval(secs => :s)",
            s=since,
        )
        sensor()
        assert (run_status(instance, silent.run_id) is dg.DagsterRunStatus.CANCELED) is ended

    @pytest.mark.parametrize(
        ("status", "server_age", "ended"),
        [
            (dg.DagsterRunStatus.NOT_STARTED, 19, False),
            (dg.DagsterRunStatus.NOT_STARTED, 21, True),
            (dg.DagsterRunStatus.STARTING, 21, True),
            (dg.DagsterRunStatus.STARTED, 21, True),
            (dg.DagsterRunStatus.QUEUED, 21, False),
            # Launched since this code server began: it may be in it.
            (dg.DagsterRunStatus.STARTED, 40, False),
        ],
    )
    def test_a_run_older_than_the_code_server_that_never_made_itself_known_is_ended_after_20_s(
        self,
        sensor: Sensor,
        instance: dg.DagsterInstance,
        database: Database,
        few: FewRegions,
        monkeypatch: pytest.MonkeyPatch,
        status: dg.DagsterRunStatus,
        server_age: int,
        *,
        ended: bool,
    ) -> None:
        few(1)
        silent = launched(instance, status)
        execute(
            database,
            "UPDATE runs SET update_timestamp = update_timestamp - interval '30 seconds'",
        )
        began = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=server_age)
        monkeypatch.setattr(recovery.THIS_CODE_SERVER, "started_at", began)
        sensor()
        assert (run_status(instance, silent.run_id) is dg.DagsterRunStatus.CANCELED) is ended

    def test_a_code_server_that_ends_cancels_the_runs_that_have_not_begun_and_no_other(
        self, instance: dg.DagsterInstance, app: App
    ) -> None:
        statuses = (
            dg.DagsterRunStatus.NOT_STARTED,
            dg.DagsterRunStatus.QUEUED,
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
        )
        runs = {status: launched(instance, status) for status in statuses}
        begun = launched(instance, dg.DagsterRunStatus.STARTED)
        app.executions.start(begun.run_id)
        end_what_has_not_begun(instance, app)
        left = {status: run_status(instance, run.run_id) for status, run in runs.items()}
        assert left == {
            dg.DagsterRunStatus.NOT_STARTED: dg.DagsterRunStatus.NOT_STARTED,
            dg.DagsterRunStatus.QUEUED: dg.DagsterRunStatus.QUEUED,
            dg.DagsterRunStatus.STARTING: dg.DagsterRunStatus.CANCELED,
            dg.DagsterRunStatus.STARTED: dg.DagsterRunStatus.CANCELED,
        }
        assert run_status(instance, begun.run_id) is dg.DagsterRunStatus.STARTED


def test_a_tick_takes_as_many_statements_for_250_due_regions_as_for_ten(
    sensor: Sensor, database: Database
) -> None:
    def tick(due: int) -> list[str]:
        codes = [key.partition("_")[0] for key in keys_of(database)]
        execute(database, GIVE_UP)
        execute(
            database,
            "UPDATE batch_checkpoint SET status = 'PENDING', failures = 0 "
            "WHERE region_code = ANY(:codes)",
            codes=codes[:due],
        )
        sensor(
            MOHE_RUNS_IN_FLIGHT="1"
        )  # paints statuses set by hand; a repair costs statements, a look at all is what counts
        with statements() as sent:
            asked = sensor.asked(MOHE_REGIONS_PER_RUN="300", MOHE_RUNS_IN_FLIGHT="1")
        assert [len(keys) for keys in asked] == [due]
        # Dagster writes the requested keys into one statement; their number is no further
        # statement.
        return [re.sub(r"IN \((%\(\w+\)s(, )?)+\)", "IN (…)", statement) for statement in sent]

    tick(1)
    few, many = tick(10), tick(250)
    assert few == many
    # SQLAlchemy reflects Dagster's tables once in each new instance.
    assert sum("pg_catalog" not in statement for statement in few) < 40
