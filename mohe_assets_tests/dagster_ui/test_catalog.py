"""The job `publish_catalog`: files with every place, and a report on the collection."""

import base64
import codecs
import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from pyarrow import parquet

from mohe_assets.app import App
from mohe_assets.definitions import build_defs
from mohe_assets.defs.resources import MoheResource
from mohe_assets.publishing import catalog as catalog_module
from mohe_assets.publishing.catalog import NAMES, WRITERS
from mohe_assets.settings import Settings
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets.store.reads import places as store_module
from mohe_assets_tests.support.databases import execute, read
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.regions import Collect, FewRegions

Publish = Callable[[], dict[str, Mapping[str, Any]]]

OPTIONAL = ("category_2", "category_3", "region_code", "region_name", "sido_name")
# Values that break files written without a library; no region, no road.
AWKWARD = """
INSERT INTO places (name, category, address, latitude, longitude, naver_place_id)
VALUES
       (E'카페 "봄", 여름\n<&>', '음식점>카페,디저트>테마카페', '강남구 역삼동 1', 37.12345678,
        127.87654321, 'zz-awkward'),
       ('공원', '공원', '독도', 37.24, 131.86, 'zz-plain')
"""


@pytest.fixture
def folder(settings: Settings) -> Path:
    return settings.catalog_folder


@pytest.fixture
def publish(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Publish:
    """Runs the job; returns the metadata that each asset's page shows."""

    def run() -> dict[str, Mapping[str, Any]]:
        result = definitions.resolve_job_def("publish_catalog").execute_in_process(
            instance=instance
        )
        names = ("place_catalog", "collection_report")
        events = {name: result.asset_materializations_for_node(name) for name in names}
        return {
            name: {key: entry.value for key, entry in event.metadata.items()}
            for name, (event,) in events.items()
        }

    return run


@pytest.fixture
def collected(few: FewRegions, collect_elsewhere: Collect, database: Database) -> list[str]:
    """Three regions, and two places that are hard to write down; returns the partition keys."""
    keys = few(3)
    collect_elsewhere(keys)
    execute(database, AWKWARD)
    return keys


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*WRITERS, "catalog.json")}


def stored(database: Database) -> list[dict[str, Any]]:
    return read(database, 'SELECT * FROM places ORDER BY naver_place_id COLLATE "C"')


class TestFiles:
    def test_every_place_is_in_the_parquet_file_with_its_region_and_its_times_in_utc(
        self, collected: list[str], publish: Publish, folder: Path, database: Database
    ) -> None:
        shown = publish()["place_catalog"]
        rows = parquet.read_table(folder / "places.parquet").to_pylist()
        expected = stored(database)
        assert len(rows) == len(expected) == shown["dagster/row_count"] > len(collected)
        for row, place in zip(rows, expected, strict=True):
            kept = {
                name: row[name]
                for name in NAMES
                if name in place and name not in ("latitude", "longitude")
            }
            assert kept == {name: place[name] for name in kept}
            assert (row["latitude"], row["longitude"]) == (
                float(place["latitude"]),
                float(place["longitude"]),
            )
        assert {row["region_name"] for row in rows} >= {
            key.partition("_")[2].replace("_", " ") for key in collected
        }
        assert str(rows[0]["first_seen_at"].tzinfo) == "UTC"

    @pytest.mark.usefixtures("collected")
    def test_csv_and_geojson_have_the_same_rows_in_the_same_order(
        self, publish: Publish, folder: Path
    ) -> None:
        publish()
        table = pd.read_parquet(folder / "places.parquet")
        text = pd.read_csv(
            folder / "places.csv", keep_default_na=False, dtype={"region_code": "str"}
        )
        assert list(table.columns) == list(text.columns) == list(NAMES)
        assert list(table["naver_place_id"]) == sorted(table["naver_place_id"])
        for name in NAMES:
            told = pd.to_datetime(text[name]) if name.endswith("_at") else text[name]
            assert list(told) == list(
                table[name].fillna("") if name in OPTIONAL else table[name]
            ), name
        features = json.loads((folder / "places.geojson").read_text("utf-8"))["features"]
        assert [one["properties"]["naver_place_id"] for one in features] == list(
            table["naver_place_id"]
        )
        assert [one["geometry"]["coordinates"] for one in features] == table[
            ["longitude", "latitude"]
        ].to_numpy().tolist()

    @pytest.mark.usefixtures("collected")
    def test_quotes_line_breaks_and_missing_values_survive_every_format(
        self, publish: Publish, folder: Path
    ) -> None:
        publish()
        awkward, plain = parquet.read_table(folder / "places.parquet").to_pylist()[-2:]
        assert awkward["name"] == '카페 "봄", 여름\n<&>'
        assert [awkward[f"category_{level}"] for level in (1, 2, 3)] == [
            "음식점",
            "카페,디저트",
            "테마카페",
        ]
        assert [plain[name] for name in OPTIONAL] == [None] * len(OPTIONAL)
        with (folder / "places.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        assert (rows[-2]["name"], rows[-1]["region_code"]) == (awkward["name"], "")
        features = json.loads((folder / "places.geojson").read_text("utf-8"))["features"]
        assert (features[-2]["properties"]["name"], features[-1]["properties"]["region_code"]) == (
            awkward["name"],
            None,
        )

    @pytest.mark.usefixtures("collected")
    def test_the_csv_has_no_formula_and_every_value_can_be_had_back(
        self, publish: Publish, folder: Path, database: Database
    ) -> None:
        first = {
            "=": "=cmd|' /C calc'!A0",
            "+": "+1",
            "-": "-1+1",
            "@": "@SUM(1)",
            "tab": "\t=1",
            "return": "\r=1",
            "space": " =1",
            "wide": "＝1",
            "quote": "'=1",
            "plain": "a=1",
        }
        for number, text in enumerate(first.values()):
            link = "javascript:alert(1)" if number % 2 else "https://example.com/"
            execute(
                database,
                "INSERT INTO places (name, category, address, phone, website_url, latitude, "
                "longitude,"
                " naver_place_id) VALUES (:text, :text, :text, :text, :link, 37, 127, :key)",
                text=text,
                link=link,
                key=f"zz-{number}",
            )
        publish()
        table = {
            row["naver_place_id"]: row
            for row in parquet.read_table(folder / "places.parquet").to_pylist()
        }
        with (folder / "places.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = {row["naver_place_id"]: row for row in csv.DictReader(file)}
        for number, text in enumerate(first.values()):
            shown, kept = rows[f"zz-{number}"], table[f"zz-{number}"]
            assert (
                kept["website_url"]
                == shown["website_url"]
                == ("" if number % 2 else "https://example.com/")
            )
            for column in ("name", "category", "address", "phone", "category_1"):
                assert shown[column].strip()[:1] not in tuple("=+-@＝"), column
                assert shown[column].removeprefix("'") == kept[column], column
            assert kept["name"] == text
        assert rows["zz-9"]["name"] == "a=1"

    def test_a_country_without_places_gives_files_without_rows(
        self, publish: Publish, folder: Path
    ) -> None:
        assert publish()["place_catalog"]["dagster/row_count"] == 0
        assert parquet.read_table(folder / "places.parquet").schema.names == list(NAMES)
        assert json.loads((folder / "places.geojson").read_text()) == {
            "type": "FeatureCollection",
            "features": [],
        }
        assert (folder / "places.csv").read_text("utf-8-sig").strip() == ",".join(NAMES)
        # Without it Excel takes the file for another encoding.
        assert (folder / "places.csv").read_bytes().startswith(codecs.BOM_UTF8)

    @pytest.mark.usefixtures("collected")
    def test_places_are_read_a_batch_at_a_time(
        self, publish: Publish, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "BATCH_ROWS", 4)
        publish()
        file = parquet.ParquetFile(folder / "places.parquet")
        assert [
            file.metadata.row_group(group).num_rows for group in range(file.num_row_groups - 1)
        ] == [4] * ((file.metadata.num_rows - 1) // 4)


class TestRebuilding:
    @pytest.mark.usefixtures("collected")
    def test_unchanged_places_leave_the_files_as_they_are(
        self, publish: Publish, folder: Path
    ) -> None:
        assert publish()["place_catalog"]["rebuilt"] is True
        inodes = {name: (folder / name).stat().st_ino for name in WRITERS}
        shown = publish()["place_catalog"]
        assert (shown["rebuilt"], shown["why"]) == (False, "unchanged: the files are up to date")
        assert {name: (folder / name).stat().st_ino for name in WRITERS} == inodes

    @pytest.mark.usefixtures("collected")
    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE places SET name = '새 이름' WHERE naver_place_id = 'zz-plain'",
            "DELETE FROM places WHERE naver_place_id = 'zz-plain'",
            "UPDATE region SET region_name = region_name || ' 새 이름'",
        ],
        ids=["a-place-changed", "a-place-less", "a-region-renamed"],
    )
    def test_any_change_of_what_is_published_rebuilds(
        self, publish: Publish, database: Database, change: str
    ) -> None:
        publish()
        execute(database, change)
        assert publish()["place_catalog"]["rebuilt"] is True

    @pytest.mark.usefixtures("collected")
    @pytest.mark.parametrize(
        ("name", "left"),
        [("places.csv", "cut off"), ("catalog.json", "{")],
        ids=["file", "manifest"],
    )
    def test_a_damaged_file_is_written_again(
        self, publish: Publish, folder: Path, name: str, left: str
    ) -> None:
        publish()
        before = contents(folder)
        (folder / name).write_text(left)
        assert publish()["place_catalog"]["rebuilt"] is True
        assert (folder / "places.csv").read_bytes() == before["places.csv"]


class TestBadDays:
    @pytest.mark.usefixtures("collected")
    def test_a_write_that_fails_leaves_the_old_files_and_nothing_else(
        self, publish: Publish, folder: Path, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish()
        before, names = contents(folder), {path.name for path in folder.iterdir()}
        execute(database, "UPDATE places SET name = '새 이름' WHERE naver_place_id = 'zz-plain'")

        def full(place: object) -> str:
            del place
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(catalog_module, "_feature", full)
            with pytest.raises(OSError, match="No space left"):
                publish()
        assert contents(folder) == before
        assert {path.name for path in folder.iterdir()} == names
        assert publish()["place_catalog"]["rebuilt"] is True

    @pytest.mark.usefixtures("collected")
    def test_a_connection_that_is_lost_half_way_costs_no_row_and_doubles_none(
        self,
        publish: Publish,
        folder: Path,
        database: Database,
        admin: Database,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(store_module, "BATCH_ROWS", 4)
        write, name = catalog_module.GeoJsonWriter.write, database.engine.url.database
        cut: list[int] = []

        def cutting(
            writer: catalog_module.GeoJsonWriter, places: Sequence[catalog_module.Place]
        ) -> None:
            if not cut:
                sql = """SELECT count(pg_terminate_backend(pid)) AS cut FROM pg_stat_activity
                          WHERE datname = :name AND application_name = 'mohe'
                          AND query LIKE '%FETCH%'"""
                cut.append(read(admin, sql, name=name)[0]["cut"])
            write(writer, places)

        monkeypatch.setattr(catalog_module.GeoJsonWriter, "write", cutting)
        publish()
        assert cut == [1]
        keys = parquet.read_table(folder / "places.parquet")["naver_place_id"].to_pylist()
        assert keys == [place["naver_place_id"] for place in stored(database)]

    def test_a_folder_that_cannot_be_made_ends_the_run_with_a_sentence_that_names_the_variable(
        self, environment: Environment, tmp_path: Path, instance: dg.DagsterInstance
    ) -> None:
        (tmp_path / "file").write_text("")
        variables = {**environment, "MOHE_CATALOG_DIR": str(tmp_path / "file" / "catalog")}
        definitions = build_defs(resource_overrides={"mohe": MoheResource(environment=variables)})
        job = definitions.resolve_job_def("publish_catalog")
        with pytest.raises(
            dg.Failure, match=r"MOHE_CATALOG_DIR is '.*file/catalog'; it has to be a folder"
        ):
            job.execute_in_process(instance=instance)


class TestReport:
    def test_it_names_failed_regions_with_their_reasons_and_when_they_are_tried_again(
        self,
        few: FewRegions,
        simulator: Simulator,
        collect_elsewhere: Collect,
        publish: Publish,
        folder: Path,
    ) -> None:
        keys = few(4)
        name = keys[1].partition("_")[2].replace("_", " ")
        simulator.add_faults([{"api": "naver", "fault": "wrong_shape", "query_contains": name}])
        collect_elsewhere(keys)
        shown = publish()["collection_report"]
        assert (shown["regions"], shown["completed"], shown["failed"]) == (4, 3, 1)
        markdown = shown["report"]
        line = next(line for line in markdown.splitlines() if line.startswith(f"| {name} |"))
        assert "## Failed regions (1)" in markdown
        assert len(line.split(" | ")) == 5
        assert line.split(" | ")[4].strip("| ")
        written = (folder / "report.md").read_text("utf-8")
        assert written == re.sub(r"\(data:[^)]*\)", "(report.png)", markdown)

    @pytest.mark.usefixtures("collected")
    def test_its_picture_is_in_the_event_and_beside_the_catalog(
        self, publish: Publish, folder: Path
    ) -> None:
        markdown = publish()["collection_report"]["report"]
        found = re.search(r"\(data:image/png;base64,([^)]*)\)", markdown)
        assert found is not None
        picture = base64.b64decode(found.group(1))
        assert picture == (folder / "report.png").read_bytes()
        assert picture.startswith(b"\x89PNG\r\n")
        assert 20_000 < len(picture) < len(markdown) < 300_000

    @pytest.mark.usefixtures("collected")
    def test_it_says_what_the_api_allows_and_when_all_is_done(
        self, publish: Publish, app: App, database: Database
    ) -> None:
        execute(database, "UPDATE batch_checkpoint SET status = 'PENDING', round = round + 1")
        shown = publish()["collection_report"]
        left = app.remaining_work().base  # regions without a checkpoint included
        assert shown["calls_left"] == left > 6
        assert re.search(
            rf"\*\*API\*\*: {shown['calls']} of 1,000,000 calls used today; open", shown["report"]
        )
        assert re.search(
            rf"Base plan of every region\*\*: {left} calls left on 1 day, done \d{{4}}-.* KST",
            shown["report"],
        )

    def test_before_the_first_call_there_is_a_report_too(self, publish: Publish) -> None:
        shown = publish()["collection_report"]
        assert (shown["regions"], shown["completed"], shown["calls"]) == (256, 0, 0)
        assert "## Failed regions\n\nNone." in shown["report"]

    def test_abolished_regions_are_history(
        self, few: FewRegions, publish: Publish, database: Database
    ) -> None:
        code = few(3)[0].partition("_")[0]
        execute(
            database,
            "UPDATE region SET status = 'ABOLISHED', abolished_at = now() "
            "WHERE region_code = :code",
            code=code,
        )
        assert publish()["collection_report"]["regions"] == 2

    def test_without_keys_it_says_so_and_counts_the_whole_quota(
        self, environment: Environment, instance: dg.DagsterInstance
    ) -> None:
        variables = {
            name: value for name, value in environment.items() if not name.startswith("NAVER_")
        }
        definitions = build_defs(resource_overrides={"mohe": MoheResource(environment=variables)})
        result = definitions.resolve_job_def("publish_catalog").execute_in_process(
            instance=instance
        )
        (event,) = result.asset_materializations_for_node("collection_report")
        assert "**API**: no keys are set" in str(event.metadata["report"].value)
