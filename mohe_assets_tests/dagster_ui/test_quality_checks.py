"""Each check of the data passes after a normal collection, and fails with the rows on the fault it
is for.
"""

from collections.abc import Callable
from typing import Any, cast

import dagster as dg
import pytest

from mohe_assets.app import App
from mohe_assets.definitions import build_defs
from mohe_assets.defs import checks
from mohe_assets.defs.checks import QUALITY_CHECKS
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.names import PLACES
from mohe_assets.store.database import Database
from mohe_assets.store.reads import quality
from mohe_assets_tests.support.databases import execute, read
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.regions import Collect, FewRegions

Run = Callable[..., dg.AssetCheckResult]
ADD = """INSERT INTO places (name, category, address, latitude, longitude, naver_place_id,
           region_code)
         VALUES (:name, '카페', :address, :latitude, :longitude, :key, :code)"""
JONGNO = {
    "address": "서울특별시 종로구 청운동 1",
    "latitude": 37.58,
    "longitude": 126.97,
    "code": "11110",
}


def add(database: Database, key: str, **changes: object) -> None:
    execute(database, ADD, **{**JONGNO, "name": f"가게 {key}", "key": key, **changes})


def shown(result: dg.AssetCheckResult) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", result.metadata["rows"].value)


def number(result: dg.AssetCheckResult, name: str = "offending") -> object:
    return result.metadata[name].value


@pytest.fixture
def run(environment: Environment) -> Run:
    """Runs a check on this test's database."""

    def run(check: dg.AssetChecksDefinition, **arguments: object) -> dg.AssetCheckResult:
        mohe = MoheResource(environment=environment)
        if arguments:
            return cast("dg.AssetCheckResult", check(**arguments, mohe=mohe))
        job = dg.define_asset_job("check", selection=dg.AssetSelection.checks(*check.check_keys))
        definitions = dg.Definitions(asset_checks=[check], jobs=[job], resources={"mohe": mohe})
        (found,) = (
            definitions.resolve_job_def("check").execute_in_process().get_asset_check_evaluations()
        )
        return cast("dg.AssetCheckResult", found)

    return run


@pytest.fixture
def collected(few: FewRegions, collect_elsewhere: Collect) -> list[str]:
    """The partition keys of three regions, COMPLETED; no other has a checkpoint."""
    keys = few(3)
    collect_elsewhere(keys)
    return keys


def test_after_a_whole_collection_every_check_passes_in_dagster(
    collected: list[str], database: Database, environment: Environment, instance: dg.DagsterInstance
) -> None:
    execute(
        database,
        "DELETE FROM legal_dong WHERE NOT region_code = ANY(:codes)",
        codes=[key[:5] for key in collected],
    )
    execute(
        database,
        "DELETE FROM region WHERE is_leaf AND NOT region_code = ANY(:codes)",
        codes=[key[:5] for key in collected],
    )
    for key in set(instance.get_dynamic_partitions("sigungu")) - set(collected):
        instance.delete_dynamic_partition("sigungu", key)
    # Strays would name regions that are deleted above.
    execute(
        database,
        "DELETE FROM places WHERE NOT region_code = ANY(:codes)",
        codes=[key[:5] for key in collected],
    )
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.all_asset_checks())
    definitions = dg.Definitions(
        asset_checks=QUALITY_CHECKS,
        jobs=[job],
        resources={"mohe": MoheResource(environment=environment)},
    )
    result = definitions.resolve_job_def("checks").execute_in_process(instance=instance)
    found = {
        one.check_name: (one.passed, one.metadata["offending"].value)
        for one in result.get_asset_check_evaluations()
    }
    assert found == {key.name: (True, 0) for check in QUALITY_CHECKS for key in check.check_keys}


def test_a_run_that_collects_does_not_check_the_whole_country_after_it(
    few: FewRegions, environment: Environment, instance: dg.DagsterInstance
) -> None:
    key = few(1)[0]
    definitions = build_defs(resource_overrides={"mohe": MoheResource(environment=environment)})
    job = definitions.get_repository_def().get_job("__ASSET_JOB")
    result = job.execute_in_process(asset_selection=[PLACES], partition_key=key, instance=instance)
    assert result.success
    checked = {one.check_name for one in result.get_asset_check_evaluations()}
    assert checked <= {"checkpoints_match_partitions"}


class TestPlaces:
    @pytest.mark.usefixtures("collected")
    def test_a_point_outside_of_korea_is_an_error(self, database: Database, run: Run) -> None:
        assert run(checks.coordinates_inside_korea).passed
        add(database, "sea", latitude=0, longitude=0)
        add(database, "tokyo", latitude=35.68, longitude=139.69)
        result = run(checks.coordinates_inside_korea)
        assert (result.passed, result.severity, number(result)) == (
            False,
            dg.AssetCheckSeverity.ERROR,
            2,
        )
        assert {row["name"] for row in shown(result)} == {"가게 sea", "가게 tokyo"}

    @pytest.mark.usefixtures("collected")
    def test_a_place_far_from_its_region_is_shown_with_its_distance(
        self, database: Database, run: Run
    ) -> None:
        assert run(checks.places_near_their_region).passed
        add(database, "busan", latitude=35.18, longitude=129.08)
        result = run(checks.places_near_their_region)
        assert (result.passed, number(result)) == (False, 1)
        (row,) = shown(result)
        assert row["region_code"] == "11110"
        assert 310 < row["km"] < 340
        assert row["bound_km"] == 200.0  # so few places cannot tell what is usual
        for n in range(20):
            add(database, f"{n}")
        assert shown(run(checks.places_near_their_region))[0]["bound_km"] == 30.0

    def test_a_region_of_far_islands_is_measured_by_itself(
        self, database: Database, run: Run
    ) -> None:
        for n in range(20):
            add(database, f"island {n}", latitude=37.60 + 0.2 * (n % 4), longitude=126.97)
        assert run(checks.places_near_their_region).passed

    def test_too_few_places_with_a_region_are_a_warning(self, database: Database, run: Run) -> None:
        assert run(checks.attribution_rate).passed  # nothing is collected yet
        for n in range(19):
            add(database, f"{n}")
        add(database, "lost", code=None)
        result = run(checks.attribution_rate)
        assert (result.passed, number(result), number(result, "attributed_share")) == (
            True,
            1,
            0.95,
        )
        add(database, "unknown", code="99999")
        result = run(checks.attribution_rate)
        assert (result.passed, result.severity, number(result)) == (
            False,
            dg.AssetCheckSeverity.WARN,
            2,
        )

    def test_one_title_at_one_address_or_a_few_steps_away_is_a_duplicate(
        self, database: Database, run: Run
    ) -> None:
        add(database, "a", name="Ａ 카페", latitude=37.58)
        add(
            database, "b", name="a카페", latitude=37.5801, address="서울특별시 종로구 청운동 2"
        )  # 11 m
        add(database, "c", name="a카페", latitude=37.60, address="서울특별시 종로구 청운동 3")
        add(database, "d", name="다른 카페")
        result = run(checks.no_duplicate_places)
        assert (result.passed, number(result)) == (False, 1)
        assert 10 < shown(result)[0]["metres"] < 12
        execute(database, "DELETE FROM places WHERE naver_place_id = 'b'")
        assert run(checks.no_duplicate_places).passed
        add(database, "e", name="A카페", latitude=37.61)  # same lot as a
        assert number(run(checks.no_duplicate_places)) == 1

    @pytest.mark.usefixtures("collected")
    def test_values_that_a_column_does_not_promise_are_told_by_rule(
        self, database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run(checks.places_fit_their_schema).passed
        for n in range(7):
            add(database, f"{n}", name=f"<b>가게</b> {n}", code="종로")
        execute(
            database,
            "UPDATE places SET first_seen_at = last_seen_at + interval '1 day' "
            "WHERE naver_place_id = '6'",
        )
        monkeypatch.setattr(
            quality, "PLACES_AT_ONCE", 3
        )  # most of what is wrong is in different batches
        result = run(checks.places_fit_their_schema)
        assert (result.passed, result.severity, number(result)) == (
            False,
            dg.AssetCheckSeverity.WARN,
            15,
        )
        found = {row["column"]: row for row in shown(result)}
        assert {name: row["count"] for name, row in found.items()} == {
            "name": 7,
            "region_code": 7,
            "first_seen_at": 1,
        }
        assert [one["value"] for one in found["name"]["sample"]] == [
            f"<b>가게</b> {n}" for n in range(5)
        ]
        assert found["first_seen_at"]["rule"] == "first_seen_at <= last_seen_at"

    def test_the_exact_number_is_told_when_only_some_are_shown(
        self, database: Database, run: Run
    ) -> None:
        for n in range(25):
            add(database, f"{n}", latitude=0)
        result = run(checks.coordinates_inside_korea)
        assert (number(result), len(shown(result))) == (25, 20)
        assert result.description == "25 offending, the first 20 are shown"


class TestMissingAnswers:
    @pytest.mark.usefixtures("collected")
    def test_regions_without_a_place_and_skipped_searches_are_shown(
        self, database: Database, run: Run
    ) -> None:
        execute(
            database, "UPDATE batch_checkpoint SET processed_count = 0 WHERE region_code = '11110'"
        )
        sql = """UPDATE search_query SET status = 'SKIPPED', error_message = 'SE99',
                        failed_rounds = 5
                  WHERE region_code = '11110' AND keyword = '공원'"""
        execute(database, sql)
        (row,) = shown(run(checks.regions_have_places))
        assert row["region_code"] == "11110"
        (row,) = shown(run(checks.no_search_skipped))
        assert (row["failed_rounds"], row["error_message"]) == (5, "SE99")

    @pytest.mark.usefixtures("collected")
    def test_a_reason_for_which_many_items_are_rejected_is_shown_with_its_share(
        self, database: Database, run: Run
    ) -> None:
        rejected = '[{"position": 0, "reason": "katech_coordinates"}]'
        sql = "UPDATE search_query SET result_count = 5, set_aside = CAST(:rejected AS jsonb)"
        execute(database, sql, rejected=rejected)
        (row,) = shown(run(checks.few_items_rejected))
        assert row == {"reason": "katech_coordinates", "share": 0.2}

    def test_a_national_drop_is_an_error(
        self,
        collected: list[str],
        database: Database,
        app: App,
        collect_elsewhere: Collect,
        run: Run,
    ) -> None:
        app.checkpoints.new_round()
        collect_elsewhere(collected, "second-round")
        assert run(checks.no_national_drop).passed
        execute(database, "UPDATE search_query SET place_ids = place_ids[1:1] WHERE round = 2")
        result = run(checks.no_national_drop)
        assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
        (row,) = shown(result)
        assert row["places_now"] < 0.9 * row["places_before"]


class TestRounds:
    def test_a_region_that_gives_half_of_what_it_gave_is_shown(
        self,
        collected: list[str],
        database: Database,
        app: App,
        collect_elsewhere: Collect,
        run: Run,
    ) -> None:
        assert run(checks.no_sudden_drop).passed
        app.checkpoints.new_round()
        collect_elsewhere(collected, "second-round")
        assert run(checks.no_sudden_drop).passed
        code = collected[0][:5]
        execute(
            database,
            "UPDATE search_query SET place_ids = place_ids[1:1] WHERE round = 2 "
            "AND region_code = :code AND keyword = '카페'",
            code=code,
        )
        execute(
            database,
            "DELETE FROM search_query WHERE round = 1 AND region_code = :code AND keyword = '공원'",
            code=code,
        )
        assert run(checks.no_sudden_drop).passed  # from five to one: a handful
        execute(
            database,
            "UPDATE search_query SET place_ids = ARRAY(SELECT generate_series(1, 9)) "
            "WHERE round = 1",
        )
        result = run(checks.no_sudden_drop)
        assert shown(result)[0] | {"region_name": ""} == {
            "region_code": code, "region_name": "", "round": 2, "places_before": 9, "places_now": 1,
        }  # fmt: skip

    def test_a_failed_region_is_a_warning_and_an_error_once_it_is_given_up(
        self, collected: list[str], database: Database, run: Run
    ) -> None:
        assert run(checks.nothing_left_failed).passed
        fail = """UPDATE batch_checkpoint SET status = 'FAILED', failure_kind = 'transient',
                    error_message = 'HTTP 503',
                         retry_at = {} WHERE region_code = :code"""
        execute(database, fail.format("now()"), code=collected[0][:5])
        result = run(checks.nothing_left_failed)
        assert (result.passed, result.severity, number(result, "given_up")) == (
            False,
            dg.AssetCheckSeverity.WARN,
            0,
        )
        assert shown(result)[0]["error_message"] == "HTTP 503"
        execute(database, fail.format("NULL"), code=collected[1][:5])
        result = run(checks.nothing_left_failed)
        assert (result.severity, number(result), number(result, "given_up")) == (
            dg.AssetCheckSeverity.ERROR,
            2,
            1,
        )

    def test_regions_that_wait_or_have_no_checkpoint_are_missing(
        self, collected: list[str], database: Database, run: Run
    ) -> None:
        execute(
            database,
            "UPDATE batch_checkpoint SET status = 'PENDING' WHERE region_code = :code",
            code=collected[0][:5],
        )
        result = run(checks.collection_is_complete)
        assert (result.passed, number(result)) == (False, 254)
        assert [row["status"] for row in shown(result)[:2]] == ["PENDING", "no checkpoint"]
        full = read(database, "SELECT count(*) AS n FROM search_query WHERE result_count = 5")[0][
            "n"
        ]
        assert (number(result, "completed"), number(result, "full_searches")) == (2, full)
        execute(
            database,
            "UPDATE region SET status = 'ABOLISHED', abolished_at = now() "
            "WHERE NOT region_code = ANY(:codes)",
            codes=[key[:5] for key in collected[1:]],
        )
        result = run(checks.collection_is_complete)
        assert (
            result.passed,
            number(result, "active_regions"),
            number(result, "abolished_regions"),
        ) == (True, 2, 254)


def test_regions_checkpoints_partitions_and_the_list_are_compared(
    database: Database, instance: dg.DagsterInstance, run: Run
) -> None:
    def look() -> dg.AssetCheckResult:
        return run(
            checks.regions_match_the_list,
            context=dg.build_asset_check_context(instance=instance),
        )

    result = look()
    assert (result.passed, number(result)) == (True, 0)
    assert [
        number(result, name) for name in ("active_regions", "checkpoints", "partition_keys")
    ] == [256, 256, 256]
    assert (number(result, "last_refresh"), number(result, "source")) == (1, "api")

    instance.delete_dynamic_partition("sigungu", "11110_서울특별시_종로구")
    instance.add_dynamic_partitions("sigungu", ["99999_없는_곳"])
    execute(database, "DELETE FROM batch_checkpoint WHERE region_code = '11140'")
    execute(database, "UPDATE region SET as_of = as_of - 30 WHERE region_code = '11170'")
    execute(
        database, "UPDATE batch_checkpoint SET region_code = '99998' WHERE region_code = '11200'"
    )
    result = look()
    assert (result.passed, number(result)) == (False, 6)
    assert {row["region_code"]: row["what"] for row in shown(result)} == {
        "11140": "no checkpoint",
        "11170": "not in the last list",
        "11200": "no checkpoint",
        "99998": "a checkpoint of no known region",
    }
    assert number(result, "without_a_partition") == ["11110_서울특별시_종로구"]
