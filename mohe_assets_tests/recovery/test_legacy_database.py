"""A database of the batch system, adopted and completed by one batch: finished regions are not
collected again.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support import legacy_database
from mohe_assets_tests.support.databases import execute, read
from mohe_assets_tests.support.environments import KEYWORDS, Environment
from mohe_assets_tests.support.processes import (
    PLACES,
    Collected,
    StartWorker,
    assert_the_page_agrees,
    executions,
    statuses,
)

STANDING = """
SELECT region_code, start_time, end_time, processed_count, attempt, round, calls_used,
searches_done, plan, refinements
  FROM batch_checkpoint WHERE region_code = ANY(:codes) ORDER BY region_code
"""


@pytest.fixture
def old(empty_database_url: str) -> Iterator[Database]:
    database = Database.connect(empty_database_url)
    legacy_database.in_database(database)
    yield database
    database.close()


def old_places(reference: Collected) -> list[dict[str, Any]]:
    """Five that will be found again, two of them without a key and one twice, and one that will
    not.
    """
    names = (
        "naver_place_id",
        "name",
        "category",
        "address",
        "road_address",
        "latitude",
        "longitude",
    )
    task = {f"{region}" for region in legacy_database.codes("PENDING")}
    known = [
        dict(zip(names, place, strict=False))
        for place in reference.places.values()
        if place[-1] in task
    ][:5]
    for n, place in enumerate(known):
        place["naver_place_id"] = f"NAVER-{n}" if n > 1 else None
    gone = known[0] | {"name": "문 닫은 카페", "naver_place_id": "NAVER-gone"}
    return [*known, known[-1] | {"naver_place_id": "NAVER-twice"}, gone]


def test_what_the_batch_system_completed_is_kept_and_the_rest_is_collected(
    simulator: Simulator,
    old: Database,
    empty_database_url: str,
    instance: dg.DagsterInstance,
    start_worker: StartWorker,
    process_environment: Callable[..., Environment],
    reference: Collected,
) -> None:
    old.transaction(
        lambda connection: legacy_database.add_places(connection, old_places(reference))
    )
    before = read(
        old, "SELECT id, name, latitude, longitude, naver_place_id FROM places ORDER BY id"
    )
    here = {"MOHE_DATABASE_URL": empty_database_url}
    mohe = str(Path(sys.executable).with_name("mohe"))
    subprocess.run(
        [mohe, "db", "migrate"], env=process_environment(**here), check=True, capture_output=True
    )
    # Here the simulator stands for the API that filled the old database.
    execute(old, "UPDATE data_origin SET origin = 'simulator' WHERE origin = 'api'")
    done = legacy_database.codes("COMPLETED")
    kept = read(old, STANDING, codes=done)

    start_worker(**here).succeed()

    assert statuses(old) == {"COMPLETED": 256}
    assert read(old, STANDING, codes=done) == kept
    assert {(row["attempt"], row["calls_used"], row["plan"]) for row in kept} == {(0, 0, None)}
    searched = {
        row["region_code"] for row in read(old, "SELECT DISTINCT region_code FROM search_query")
    }
    assert searched == {
        code
        for status in ("PROCESSING", "FAILED", "PENDING")
        for code in legacy_database.codes(status)
    }
    answers = simulator.stats()["naver"]["answers_per_search"]
    assert (len(answers), set(answers.values())) == (156 * len(KEYWORDS), {1})
    assert Collected.of(old).searches == reference.only(searched).searches

    rows_now = read(
        old,
        """SELECT id, name, latitude, longitude, naver_place_id, old_place_id, region_code
                              FROM places ORDER BY id""",
    )
    after = rows_now[: len(before)]
    # The one that was there twice is there twice, and no third time.
    points = [(row["name"], row["latitude"], row["longitude"]) for row in rows_now]
    assert len(points) - len(set(points)) == 1
    assert [(row["id"], row["name"]) for row in after] == [
        (row["id"], row["name"]) for row in before
    ]
    assert [row["old_place_id"] or row["naver_place_id"] for row in after[2:]] == [
        row["naver_place_id"] for row in before[2:]
    ]
    assert all(row["region_code"] for row in after)
    # The run it left behind is buried, ours has ended.
    assert [run["status"] for run in executions(old)] == ["COMPLETED", "INTERRUPTED", "COMPLETED"]
    with App.open(settings_module.load(process_environment(**here))) as app:
        assert_the_page_agrees(instance, app)
        assert app.reopen_regions_with_old_plan() == []
    assert len(instance.get_materialized_partitions(PLACES)) == 256
