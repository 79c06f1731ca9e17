"""Runs of the jobs and of the asset `places`: each region's partition afterwards, and the searches
made again.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.storage.tags import (
    PARENT_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    ROOT_RUN_ID_TAG,
)

from mohe_assets.app import App
from mohe_assets.collection.heartbeat import Heartbeat
from mohe_assets.collection.run import CollectionRun
from mohe_assets.definitions import build_defs
from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.names import PLACES
from mohe_assets.defs.runtime.region_refresh import busy_keys, sync_partition_keys
from mohe_assets.defs.runtime.runs import SENSOR_TRIGGER, TRIGGER_TAG
from mohe_assets.errors import QuotaExhausted, RequestRefused
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.checkpoints import Checkpoints
from mohe_assets.store.database import Database
from mohe_assets.store.executions import Executions
from mohe_assets_tests.support.databases import execute, read
from mohe_assets_tests.support.environments import KEYWORDS, Environment
from mohe_assets_tests.support.launcher import Launcher
from mohe_assets_tests.support.processes import executions, materializations, partition_of, statuses
from mohe_assets_tests.support.rate_and_quota import call_once, set_noon
from mohe_assets_tests.support.regions import Collect, FewRegions, code_of, keys_of, name_of

SEARCHES = len(KEYWORDS)


def ledger(database: Database) -> dict[tuple[str, int], int]:
    """(Region code, round) → searches."""
    sql = "SELECT region_code, round, count(*) AS searches FROM search_query GROUP BY 1, 2"
    return {(row["region_code"], row["round"]): row["searches"] for row in read(database, sql)}


def calls(simulator: Simulator) -> int:
    return int(simulator.stats(brief=True)["naver"]["received"])


class TestStartingOver:
    def test_a_reset_leaves_no_partition_materialized(
        self, launcher: Launcher, instance: dg.DagsterInstance, few: FewRegions,
        process_environment: Callable[..., Environment],
    ) -> None:  # fmt: skip
        keys = few(2)
        launcher.collect(keys[0], keys[-1])
        assert instance.get_materialized_partitions(PLACES) == set(keys)
        command = [str(Path(sys.executable).with_name("mohe")), "db", "reset", "--yes"]
        done = subprocess.run(
            command, env=process_environment(), capture_output=True, text=True, check=True
        )
        assert "no partition is shown as materialized" in done.stdout
        assert instance.get_materialized_partitions(PLACES) == set()

    def test_nor_does_a_batch_that_begins_by_emptying_everything(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        environment: Environment,
        few: FewRegions,
    ) -> None:
        keys = few(2)
        launcher.collect(keys[0], keys[-1])
        changed = {**environment, "BATCH_AUTO_INITIALIZATION": "true", "MOHE_DAILY_QUOTA": "1"}
        again = build_defs(resource_overrides={"mohe": MoheResource(environment=changed)})
        done = Launcher(instance=instance, definitions=again).job("place_ingestion_batch")
        assert done.succeeded
        assert (
            "No region was collected. 0 of 2 regions are completed. The quota is used up until"
            in done.log
        )
        assert instance.get_materialized_partitions(PLACES) == set()

    def test_a_batch_with_keys_of_another_origin_ends_with_the_sentence(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        environment: Environment,
        few: FewRegions,
        simulator: Simulator,
    ) -> None:
        keys = few(2)
        launcher.collect(keys[0])
        received = calls(simulator)
        real = {
            **environment,
            "NAVER_CLIENT_ID": "an-id-of-a-person",
            "MOHE_REGION_REFRESH_DAYS": "0.000001",
        }
        definitions = build_defs(resource_overrides={"mohe": MoheResource(environment=real)})
        others = Launcher(instance=instance, definitions=definitions)
        jobs = ("place_ingestion_batch", "refine_places", "refresh_regions")
        for done in [*map(others.job, jobs), others.collect(keys[1])]:
            assert not done.succeeded
            assert "made up by the simulator" in done.log
        assert calls(simulator) == received


class TestACollection:
    def test_every_region_is_materialized_by_itself_and_says_what_was_found(
        self, launcher: Launcher, instance: dg.DagsterInstance, database: Database, few: FewRegions
    ) -> None:
        keys = few(3)
        done = launcher.collect(keys[0], keys[2])
        assert done.succeeded
        assert done.materialized == tuple(keys)
        assert statuses(database) == {"COMPLETED": 3}
        assert instance.get_materialized_partitions(PLACES) == set(keys)
        rows = {row["region_code"]: row for row in read(database, "SELECT * FROM batch_checkpoint")}
        for record in materializations(instance):
            shown = {
                name: value.value
                for name, value in cast("Any", record.asset_materialization).metadata.items()
            }
            key = partition_of(record.event_log_entry)
            row = rows[code_of(key)]
            assert shown["region"] == row["region_name"] == name_of(key)
            assert (
                shown["places"]
                == shown["dagster/partition_row_count"]
                == row["processed_count"]
                > 0
            )
            assert shown["places_new"] + shown["places_known_before"] == shown["places"]
            assert {"strays", "items_set_aside", "searches_full"} <= set(shown)
            assert (shown["searches"], shown["calls"]) == (SEARCHES, SEARCHES)
            assert shown["duration_seconds"] > 0
            assert (shown["round"], shown["attempt"]) == (1, 1)
            assert shown["collected_by_run"] == done.run_id
            assert done.run_id in shown["execution_row"]
        assert [(run["execution_id"], run["status"]) for run in executions(database)] == [
            (done.run_id, "COMPLETED")
        ]

    def test_a_region_that_fails_fails_the_run_and_the_others_stay(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        simulator: Simulator,
        few: FewRegions,
    ) -> None:
        keys = few(4)
        simulator.add_faults(
            [{"api": "naver", "fault": "status", "status": 503, "query_contains": name_of(keys[1])}]
        )
        done = launcher.collect(keys[0], keys[3])
        assert not done.succeeded
        assert done.materialized == (keys[0], keys[2], keys[3])
        assert f"{name_of(keys[1])}: " in done.log
        assert "503" in done.log
        assert keys_of(database, failed(database)) == [keys[1]]

        simulator.clear_faults()
        again = launcher.collect(keys[1])
        assert again.succeeded, "a person does not wait for retry_at"
        assert instance.get_materialized_partitions(PLACES) == set(keys)

    def test_a_quota_that_ends_in_the_middle_is_a_success_with_what_was_done(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        simulator: Simulator,
        few: FewRegions,
    ) -> None:
        keys = few(10)
        set_noon(database, simulator)
        simulator.configure(daily_quota=9)
        done = launcher.collect(keys[0], keys[9])
        assert done.succeeded
        assert "KST" in done.log
        reached = instance.get_materialized_partitions(PLACES)
        assert reached == set(done.materialized)
        assert 1 <= len(reached) <= 4
        assert statuses(database) == {"COMPLETED": len(reached), "PENDING": 10 - len(reached)}

    def test_a_refused_key_fails_the_run_once_with_the_variable_and_no_region(
        self, launcher: Launcher, database: Database, simulator: Simulator, few: FewRegions
    ) -> None:
        keys = few(5)
        simulator.configure(client_secret="changed-at-the-other-end")
        done = launcher.collect(keys[0], keys[4])
        assert not done.succeeded
        assert "NAVER_CLIENT_SECRET" in done.log
        assert statuses(database) == {"PENDING": 5}

    def test_a_region_held_by_a_live_run_is_left_to_it(
        self, launcher: Launcher, database: Database, app: App, few: FewRegions
    ) -> None:
        keys = few(3)
        app.executions.start("a-live-run")
        (lease,) = app.checkpoints.claim("a-live-run", codes=[code_of(keys[1])])
        done = launcher.collect(keys[0], keys[2])
        assert done.succeeded
        assert done.materialized == (keys[0], keys[2])
        assert f"{name_of(keys[1])} is left to run a-live-run" in done.log
        assert app.checkpoints.release(lease), "nobody took it away"
        assert statuses(database) == {"COMPLETED": 2, "PENDING": 1}


def _stopped_after(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a signal that comes while this is done for the first time: done it is, and nothing
    after it.
    """
    original, came = getattr(owner, name), list[str]()

    def stopped(*arguments: Any, **values: Any) -> Any:
        result = original(*arguments, **values)
        if not came:
            came.append(name)
            raise dg.DagsterExecutionInterruptedError
        return result

    monkeypatch.setattr(owner, name, stopped)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Executions, "start"),  # its row is there, and nothing else yet
        (Executions, "reap_dead_runs"),
        (App, "_region_worker"),  # ready to collect
        (Heartbeat, "stop"),  # all is collected, and its row not ended
        (Checkpoints, "mark_reported"),
        (CollectionRun, "_ending"),
        (CollectionRun, "_shut_down"),
    ],
)
def test_whenever_a_run_is_told_to_stop_its_row_says_that_it_is_over(
    owner: type,
    name: str,
    launcher: Launcher,
    database: Database,
    few: FewRegions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = few(2)
    _stopped_after(owner, name, monkeypatch)
    with suppress(dg.DagsterExecutionInterruptedError):
        launcher.collect(keys[0], keys[1])
    assert [run["status"] for run in executions(database)] == ["INTERRUPTED"]


def failed(database: Database) -> list[str]:
    return [
        row["region_code"]
        for row in read(
            database, "SELECT region_code FROM batch_checkpoint WHERE status = 'FAILED'"
        )
    ]


class TestWhatIsAskedAgain:
    def test_a_person_who_materializes_a_completed_region_gets_it_collected_afresh(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        simulator: Simulator,
        few: FewRegions,
    ) -> None:
        keys = few(2)
        first = launcher.collect(keys[0], keys[1])
        second = launcher.collect(keys[0])
        assert first.materialized == tuple(keys)
        assert second.materialized == (keys[0],)
        assert ledger(database) == {
            (code_of(keys[0]), 1): SEARCHES,
            (code_of(keys[1]), 1): SEARCHES,
            (code_of(keys[0]), 2): SEARCHES,
        }
        assert calls(simulator) == 3 * SEARCHES
        newest = instance.get_latest_materialization_event(PLACES)
        shown = cast("Any", newest).asset_materialization.metadata
        assert shown["round"].value == 2
        assert shown["places_new"].value == 0, "the world has not changed meanwhile"

    def test_the_sensor_does_not(
        self,
        launcher: Launcher,
        database: Database,
        simulator: Simulator,
        few: FewRegions,
        collect_elsewhere: Collect,
    ) -> None:
        keys = few(2)
        collect_elsewhere([keys[0]])
        done = launcher.collect(keys[0], keys[1], **{TRIGGER_TAG: SENSOR_TRIGGER})
        assert done.succeeded
        assert statuses(database) == {"COMPLETED": 2}
        assert calls(simulator) == 2 * SEARCHES

    def test_a_re_execution_does_only_what_its_lineage_has_left(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        simulator: Simulator,
        few: FewRegions,
    ) -> None:
        keys = few(4)
        simulator.add_faults(
            [{"api": "naver", "fault": "wrong_shape", "query_contains": name_of(keys[2])}]
        )
        first = launcher.collect(keys[0], keys[3])
        assert not first.succeeded
        simulator.clear_faults()
        before = calls(simulator)

        lineage = {ROOT_RUN_ID_TAG: first.run_id, PARENT_RUN_ID_TAG: first.run_id}
        second = launcher.collect(keys[0], keys[3], **lineage)
        assert second.succeeded
        assert calls(simulator) - before == SEARCHES
        assert set(second.materialized) == set(keys), "the others are said to be done once more"
        assert instance.get_materialized_partitions(PLACES) == set(keys)

        before = calls(simulator)
        third = launcher.collect(
            keys[0], keys[3], **{ROOT_RUN_ID_TAG: first.run_id, PARENT_RUN_ID_TAG: second.run_id}
        )
        assert third.succeeded
        assert calls(simulator) == before

    @pytest.mark.parametrize("what", ["the quota", "an outage"])
    def test_completed_regions_that_a_closed_api_kept_from_a_new_round_wait_for_the_sensor(
        self,
        launcher: Launcher,
        database: Database,
        app: App,
        simulator: Simulator,
        few: FewRegions,
        collect_elsewhere: Collect,
        what: str,
    ) -> None:
        keys = few(5)
        collect_elsewhere(keys)
        api = app.account.api
        before = calls(simulator)
        if what == "the quota":
            call_once(app, QuotaExhausted("used up", api=api, reset_at=None))
        else:
            simulator.add_faults([{"api": "naver", "fault": "status", "status": 503}])
            call_once(app, RequestRefused("HTTP 503", api=api))
        done = launcher.collect(keys[0], keys[4])
        assert done.succeeded, "nothing is red because of a quota"
        assert done.materialized == (), "what was not collected is not reported"
        assert calls(simulator) - before <= 1, "a person's run probes once"
        assert statuses(database) == {"PENDING": 5}, "the request survives"
        assert "completed regions wait for their new round" in done.log

        simulator.clear_faults()
        sql = (
            "UPDATE api_budget SET exhausted_until = now() - interval '1 s', next_probe_at = "
            "now() - interval '1 s'"
        )
        execute(database, sql)
        finished = launcher.collect(keys[0], keys[4], **{TRIGGER_TAG: SENSOR_TRIGGER})
        assert finished.materialized == tuple(keys)
        assert read(database, "SELECT DISTINCT round FROM batch_checkpoint") == [{"round": 2}]

    def test_what_another_run_completed_since_is_reported_and_not_repeated(
        self, launcher: Launcher, simulator: Simulator, few: FewRegions, collect_elsewhere: Collect
    ) -> None:
        keys = few(3)
        asked = launcher.create(keys[0], keys[2])
        collect_elsewhere(keys[:2])
        done = launcher.execute(asked)
        assert done.succeeded
        assert done.materialized == tuple(keys)
        assert calls(simulator) == 3 * SEARCHES

    def test_a_new_round_makes_completed_regions_due_and_keeps_the_history(
        self,
        launcher: Launcher,
        database: Database,
        app: App,
        simulator: Simulator,
        few: FewRegions,
        collect_elsewhere: Collect,
    ) -> None:
        keys = few(3)
        collect_elsewhere(keys[:2])
        execute(database, "UPDATE batch_checkpoint SET status = 'FAILED' WHERE status = 'PENDING'")
        places = read(database, "SELECT count(*) AS found FROM places")
        assert launcher.job("new_round").succeeded
        assert statuses(database) == {"PENDING": 2, "FAILED": 1}
        assert app.checkpoints.due_keys() == set(keys[:2])
        assert read(database, "SELECT count(*) AS found FROM places") == places
        assert len(executions(database)) == 1
        launcher.collect(keys[0], keys[1], **{TRIGGER_TAG: SENSOR_TRIGGER})
        assert ledger(database) == {
            (code_of(key), number): SEARCHES for key in keys[:2] for number in (1, 2)
        }
        assert calls(simulator) == 4 * SEARCHES


class TestTheRegions:
    REFRESH: Mapping[str, object] = {
        "ops": {"sigungu_regions": {"config": {"accept_any_change": True}}}
    }

    @staticmethod
    def without(simulator: Simulator, codes: list[str]) -> None:
        simulator.configure(region_edits=[{"op": "drop", "code": f"{one}00000"} for one in codes])

    def partitions(self, instance: dg.DagsterInstance) -> list[str]:
        return list(instance.get_dynamic_partitions(str(sigungu_partitions.name)))

    def test_a_refresh_adds_what_is_missing_and_says_what_the_list_has(
        self, launcher: Launcher, instance: dg.DagsterInstance, database: Database
    ) -> None:
        keys = keys_of(database)
        instance.delete_dynamic_partition(str(sigungu_partitions.name), keys[5])
        assert launcher.job("refresh_regions").succeeded
        assert sorted(self.partitions(instance)) == keys
        newest = instance.get_latest_materialization_event(dg.AssetKey("sigungu_regions"))
        shown = {
            name: value.value
            for name, value in cast("Any", newest).asset_materialization.metadata.items()
        }
        assert (shown["leaf_regions"], shown["added"], shown["abolished"], shown["source"]) == (
            256,
            0,
            0,
            "api",
        )

    def test_an_abolished_region_loses_its_partition_and_is_not_collected(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        app: App,
        simulator: Simulator,
    ) -> None:
        keys = keys_of(database)
        gone = keys[7]
        self.without(simulator, [code_of(gone)])
        assert launcher.job("refresh_regions", self.REFRESH).succeeded
        assert sorted(self.partitions(instance)) == [key for key in keys if key != gone]
        assert gone not in app.checkpoints.due_keys()
        row = read(
            database, "SELECT status FROM region WHERE region_code = :code", code=code_of(gone)
        )
        assert row == [{"status": "ABOLISHED"}]

    def test_a_key_that_a_queued_run_names_goes_when_that_run_ends_and_the_run_collects_the_others(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        app: App,
        simulator: Simulator,
    ) -> None:
        keys = keys_of(database)[:6]
        queued = launcher.create(keys[1], keys[3])
        self.without(simulator, [code_of(keys[1]), code_of(keys[2]), code_of(keys[5])])
        assert launcher.job("refresh_regions", self.REFRESH).succeeded
        assert {keys[1], keys[2]} <= set(self.partitions(instance))
        assert keys[5] not in self.partitions(instance), "nobody names it"

        done = launcher.execute(queued)
        assert done.succeeded
        assert done.materialized == (keys[3],)
        assert f"Skipped, abolished since the run was requested: {keys[1]}, {keys[2]}." in done.log
        assert {code for code, _ in ledger(database)} == {code_of(keys[3])}
        sync_partition_keys(instance, app)
        assert not {keys[1], keys[2]} & set(self.partitions(instance))

    def test_new_keys_come_last_and_are_in_no_range_that_was_asked_for_before(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        simulator: Simulator,
    ) -> None:
        keys = keys_of(database)
        asked = launcher.create(keys[0], keys[-1])
        before = busy_keys(self.partitions(instance), [asked])
        simulator.configure(
            region_edits=[{"op": "add", "code": "1118800000", "name": "서울특별시 한강구"}]
        )
        assert launcher.job("refresh_regions").succeeded
        assert self.partitions(instance)[-1] == "11188_서울특별시_한강구"
        assert busy_keys(self.partitions(instance), [asked]) == before == set(keys)

    def test_a_code_that_comes_back_has_a_key_that_is_not_materialized_and_is_collected_again(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        app: App,
        simulator: Simulator,
        few: FewRegions,
        collect_elsewhere: Collect,
    ) -> None:
        key = few(1)[0]
        collect_elsewhere([key])
        launcher.collect(key)
        self.without(simulator, [code_of(key)])
        assert launcher.job("refresh_regions", self.REFRESH).succeeded
        late = dg.DagsterRun(job_name="ingest_places", tags={PARTITION_NAME_TAG: key})
        assert key not in self.partitions(instance)
        simulator.configure(region_edits=[])
        assert launcher.job("refresh_regions").succeeded

        back = f"{key}_2"
        assert (key in self.partitions(instance), self.partitions(instance)[-1]) == (False, back)
        assert busy_keys(self.partitions(instance), [late]) == {key}, (
            "a run for the old life does not hold the new one up"
        )
        assert back not in instance.get_materialized_partitions(PLACES)
        assert back in app.checkpoints.due_keys()
        done = launcher.collect(back, **{TRIGGER_TAG: SENSOR_TRIGGER})
        assert done.materialized == (back,)
        assert max(number for _, number in ledger(database)) == 3, (
            "after two rounds of the life before"
        )

    def test_the_page_of_a_refresh_shows_what_became_of_what(
        self, launcher: Launcher, instance: dg.DagsterInstance, simulator: Simulator
    ) -> None:
        simulator.configure(
            region_edits=[
                {
                    "op": "recode",
                    "code": "1111000000",
                    "to": "1119900000",
                    "name": "서울특별시 종묘구",
                }
            ]
        )
        assert launcher.job("refresh_regions").succeeded
        newest = instance.get_latest_materialization_event(dg.AssetKey("sigungu_regions"))
        shown = {
            name: value.value
            for name, value in cast("Any", newest).asset_materialization.metadata.items()
        }
        assert (
            shown["successions"],
            shown["added"],
            shown["abolished"],
            shown["places_without_region"],
        ) == (1, 1, 1, 0)
        assert (
            "| 11110 서울특별시 종로구 | 11199 서울특별시 종묘구 | 87 | 100% | 100% |"
            in shown["what_became_of_them"]
        )

    def test_a_batch_collects_with_the_list_it_has_when_the_new_one_is_not_believed(
        self, launcher: Launcher, database: Database, simulator: Simulator, few: FewRegions
    ) -> None:
        keys = keys_of(database)
        few(2)  # neither of which is gone
        execute(database, "UPDATE region_refresh SET refreshed_at = now() - interval '1 year'")
        gone = keys[2::5]
        self.without(simulator, [code_of(key) for key in gone])
        batch = launcher.job("place_ingestion_batch")
        assert batch.succeeded
        assert f"lacks {len(gone)} of the 256 regions known" in batch.log
        assert "The batch collects with the previous list." in batch.log
        assert statuses(database) == {"COMPLETED": 2}
        assert read(database, "SELECT DISTINCT status FROM region") == [{"status": "ACTIVE"}]

    def test_a_list_that_lacks_a_third_is_refused_until_a_person_accepts_it(
        self,
        launcher: Launcher,
        instance: dg.DagsterInstance,
        database: Database,
        simulator: Simulator,
    ) -> None:
        keys = keys_of(database)
        gone = keys[::3]
        self.without(simulator, [code_of(key) for key in gone])
        refused = launcher.job("refresh_regions")
        assert not refused.succeeded
        assert str(len(gone)) in refused.log
        assert "accept_any_change" in refused.log
        assert sorted(self.partitions(instance)) == keys

        assert launcher.job("refresh_regions", self.REFRESH).succeeded
        assert sorted(self.partitions(instance)) == sorted(set(keys) - set(gone))
