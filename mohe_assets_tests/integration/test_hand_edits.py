"""Tables that a person empties or edits by hand: right after the next run, or named by `mohe
doctor`. A test per table.
"""

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import rows
from mohe_assets_tests.support.commands import Mohe
from mohe_assets_tests.support.environments import Environment

CODES = frozenset({"11680", "36110"})


@pytest.fixture(scope="module")
def template(regions_template: str) -> str:
    return regions_template


@pytest.fixture
def app(environment: Environment) -> Iterator[App]:
    """256 regions, two of them collected with one keyword."""
    with App.open(settings_module.load({**environment, "MOHE_SEARCH_KEYWORDS": "카페"})) as app:
        collect(app, "first")
        yield app


def collect(app: App, run_id: str) -> int:
    """Two of the regions, as a batch does; returns how many it completed."""
    app.prepare_batch()
    with app.collection(run_id, ClaimFilter(codes=CODES)) as run:
        return sum(outcome.completion is not None for outcome in run.outcomes())


def execute(app: App, sql: str) -> None:
    app.database.transaction(lambda connection: connection.execute(text(sql)))


def count(app: App, of: str) -> int:
    return int(
        app.database.transaction(
            lambda connection: rows(connection, f"SELECT count(*) AS n FROM {of}")
        )[0]["n"]
    )


def named(mohe: Mohe, table: str) -> list[str]:
    """What doctor finds wrong with a table."""
    found = json.loads(mohe("doctor", "--no-calls", "--json").out)
    return [
        one["found"]
        for one in found
        if one["check"] == f"table {table}" and one["level"] == "warning" and one["advice"]
    ]


def test_nothing_is_wrong_before_a_person_has_edited_anything(app: App, mohe: Mohe) -> None:
    del app
    found = {one["check"]: one for one in json.loads(mohe("doctor", "--no-calls", "--json").out)}
    assert found["tables"]["level"] == "ok"
    assert not any(check.startswith("table ") for check in found)


def test_checkpoints_that_were_deleted_to_start_again(
    app: App, mohe: Mohe, simulator: Simulator
) -> None:
    execute(app, "DELETE FROM batch_checkpoint")
    assert named(mohe, "batch_checkpoint") == ["256 regions have no checkpoint."]
    shown = mohe("status").out
    assert "no regions yet" not in shown
    assert "256 regions have no checkpoint" in shown
    assert "0 of 256 completed" in shown
    assert (
        json.loads(mohe("plan", "--json", MOHE_SEARCH_KEYWORDS="카페").out)["base"]["calls"] == 256
    )

    before = simulator.stats(brief=True)["naver"]["received"]
    assert collect(app, "second") == 2
    assert count(app, "batch_checkpoint") == 256
    assert simulator.stats(brief=True)["naver"]["received"] == before + 2, (
        "they are collected anew, in a round of their own"
    )
    assert count(app, "search_query WHERE round = 2") == 2
    assert named(mohe, "batch_checkpoint") == []


def test_one_checkpoint_that_was_deleted_comes_back_with_a_refresh_too(app: App) -> None:
    execute(app, "DELETE FROM batch_checkpoint WHERE region_code = '11680'")
    app.refresh_regions()
    assert (
        count(
            app,
            "batch_checkpoint WHERE region_code = '11680' AND status = 'PENDING' AND round = 2",
        )
        == 1
    )


def test_a_person_who_names_a_region_without_a_checkpoint_is_told_so(app: App, mohe: Mohe) -> None:
    execute(app, "DELETE FROM batch_checkpoint WHERE region_code = '11680'")
    assert "11680 (no checkpoint)" in mohe("retry", "11680").out


def test_a_checkpoint_of_the_batch_systems_for_an_unknown_region_is_named_and_left(
    app: App, mohe: Mohe
) -> None:
    execute(
        app,
        "INSERT INTO batch_checkpoint (batch_name, region_type, region_code, region_name, status) "
        "VALUES ('place-ingestion-batch', 'sigungu', '99999', '없는 곳', 'PENDING')",
    )
    assert named(mohe, "batch_checkpoint") == [
        "1 checkpoints are of regions that the list does not have."
    ]
    assert not app.refresh_is_due(), "no list brings it back"
    assert collect(app, "second") == 0
    assert app.checkpoints.progress().total == 256


def test_a_ledger_that_was_emptied_is_named_and_a_new_round_collects_again(
    app: App, mohe: Mohe
) -> None:
    execute(app, "DELETE FROM search_query")
    assert named(mohe, "search_query") == ["2 completed regions have no searches in search_query."]
    assert count(app, "places") > 0
    mohe("new-round", "11680", "36110")
    assert collect(app, "second") == 2
    assert named(mohe, "search_query") == []


def test_a_row_of_the_ledger_that_was_deleted_is_asked_again_by_a_region_that_is_due(
    app: App, simulator: Simulator
) -> None:
    execute(app, "DELETE FROM search_query WHERE region_code = '11680'")
    execute(app, "UPDATE batch_checkpoint SET status = 'PENDING' WHERE region_code = '11680'")
    before = simulator.stats(brief=True)["naver"]["received"]
    assert collect(app, "second") == 1
    assert simulator.stats(brief=True)["naver"]["received"] == before + 1


def test_places_that_were_deleted_are_named_and_rebuilt_without_a_call(
    app: App, mohe: Mohe
) -> None:
    places = count(app, "places")
    execute(app, "DELETE FROM places")
    assert named(mohe, "places") == [f"{places} places that searches have found are not in places."]
    assert mohe("replay").status == 0
    assert count(app, "places") == places
    assert named(mohe, "places") == []


def test_regions_that_were_emptied_are_downloaded_again_at_the_next_batch(
    app: App, mohe: Mohe
) -> None:
    execute(app, "TRUNCATE region, legal_dong")
    assert named(mohe, "region")[0].endswith("checkpoints have lost their row in region.")
    assert app.list_is_missing()
    assert app.refresh_is_due()
    app.refresh_regions()
    assert (count(app, "region WHERE is_leaf"), named(mohe, "region")) == (256, [])
    assert app.checkpoints.progress().completed == 2, "what was collected is still complete"


def test_regions_and_checkpoints_that_were_emptied_together_are_named(app: App, mohe: Mohe) -> None:
    execute(app, "TRUNCATE region, legal_dong, batch_checkpoint")
    found = [
        one
        for one in json.loads(mohe("doctor", "--no-calls", "--json").out)
        if one["check"] == "regions"
    ]
    assert [one["level"] for one in found] == ["warning"]
    assert found[0]["found"].startswith("none in the table region, which had the list of ")
    assert "no regions yet" in mohe("status").out
    assert app.refresh_is_due()
    app.refresh_regions()
    assert collect(app, "second") == 2


def test_one_region_that_was_deleted_makes_a_refresh_due(app: App, mohe: Mohe) -> None:
    execute(app, "DELETE FROM legal_dong WHERE region_code = '11680'")
    execute(app, "DELETE FROM region WHERE region_code = '11680'")
    assert named(mohe, "region") == ["1 checkpoints have lost their row in region."]
    assert app.refresh_is_due()
    app.refresh_regions()
    assert (named(mohe, "region"), app.refresh_is_due()) == ([], False)


def test_a_region_that_was_renamed_by_hand_gets_its_name_back_with_the_next_list(
    app: App,
) -> None:
    execute(app, "UPDATE region SET region_name = '강남' WHERE region_code = '11680'")
    app.refresh_regions()
    assert app.regions.leaf_names()["11680"] == "서울특별시 강남구"


def test_dongs_that_were_deleted_make_a_refresh_due(app: App, mohe: Mohe) -> None:
    execute(app, "DELETE FROM legal_dong WHERE region_code = '11680'")
    assert named(mohe, "legal_dong") == ["1 regions have no dong in legal_dong."]
    assert app.refresh_is_due()
    app.refresh_regions()
    assert (named(mohe, "legal_dong"), app.refresh_is_due()) == ([], False)


def test_a_forgotten_reading_of_the_list_is_said_and_read_again(app: App, mohe: Mohe) -> None:
    execute(app, "DELETE FROM region_refresh")
    (regions,) = [
        one
        for one in json.loads(mohe("doctor", "--no-calls", "--json").out)
        if one["check"] == "regions"
    ]
    assert regions["level"] == "warning"
    assert "region_refresh does not know" in regions["found"]
    assert app.refresh_is_due()
    assert app.refresh_regions().seeded == 0


def test_successions_that_were_deleted_are_named(app: App, mohe: Mohe) -> None:
    execute(
        app,
        "UPDATE region SET status = 'ABOLISHED', abolished_at = now() WHERE region_code = '11680'",
    )
    execute(app, "DELETE FROM region_succession")
    assert named(mohe, "region_succession") == [
        "1 abolished regions have no successor for their old addresses."
    ]


@pytest.mark.parametrize("sql", ["TRUNCATE api_budget, api_usage", "DELETE FROM api_usage", (
    "TRUNCATE batch_execution_metadata"
),
                                 "DELETE FROM batch_plan", "DELETE FROM data_origin"])  # fmt: skip
def test_what_counts_and_records_is_made_again_by_the_next_run(app: App, sql: str) -> None:
    execute(app, sql)
    execute(
        app,
        "UPDATE batch_checkpoint SET status = 'PENDING', round = round + 1 "
        "WHERE status = 'COMPLETED'",
    )
    assert collect(app, "second") == 2
    assert count(app, "api_usage WHERE reserved > 0") == 1
    assert count(app, "batch_plan") == 1
    assert count(app, "batch_execution_metadata WHERE execution_id = 'second'") == 1
    assert count(app, "data_origin WHERE part = 'places' AND origin = 'simulator'") == 1


def test_a_checkpoint_left_processing_by_hand_is_taken_back(app: App) -> None:
    execute(app, "UPDATE batch_checkpoint SET status = 'PROCESSING' WHERE region_code = '11110'")
    app.executions.reap_dead_runs(app.checkpoints)
    assert count(app, "batch_checkpoint WHERE region_code = '11110' AND status = 'PENDING'") == 1
