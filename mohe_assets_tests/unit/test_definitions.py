"""The definitions load without a warning or an outside effect, and keep the names that people rely
on.
"""

import re
import subprocess
import sys
from pathlib import Path

import dagster as dg

from mohe_assets.definitions import build_defs

# Runs in a process of its own: refuses what an import must not do, then imports.
IMPORT = """
import sys

TOUCHES = ("socket.connect", "socket.bind", "socket.getaddrinfo", "sqlite3.connect", "os.mkdir")

def refuse(event, arguments):
    if event in TOUCHES:
        raise AssertionError(f"the import does {event}{arguments}")

def refused(*arguments, **options):
    raise AssertionError("the import opens a database")

sys.addaudithook(refuse)
import psycopg2
psycopg2.connect = psycopg2._connect = refused

import mohe_assets.definitions
heavy = {"aiohttp", "matplotlib", "numpy", "pandas", "pandera", "pyarrow", "requests"}
heavy &= set(sys.modules)
print("imported", len(list(mohe_assets.definitions.defs().assets)), heavy)
"""


def _import(code: str, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", code]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MOHE_DAILY_QUOTA": "nonsense",
    }
    return subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_importing_is_light_opens_nothing_writes_nothing_and_survives_a_bad_setting(
    tmp_path: Path,
) -> None:
    done = _import(IMPORT, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "imported 4 set()"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_dagster_finds_everything_loadable_and_warns_of_nothing() -> None:
    # Warnings are errors in these tests.
    dg.Definitions.validate_loadable(build_defs())


def test_dagsters_own_validation_of_the_workspace_is_clean(tmp_path: Path) -> None:
    # Dagster remarks on a home without its file, even on an empty one that is not there.
    (tmp_path / "dagster.yaml").touch()
    command = [
        str(Path(sys.executable).with_name("dagster")),
        "definitions",
        "validate",
        "-w",
        "workspace.yaml",
    ]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "All code locations passed validation" in told
    assert not re.search("WARNING|ERROR", told), told


def test_the_public_surface_is_as_other_people_know_it() -> None:
    repository = build_defs().get_repository_def()
    graph = repository.asset_graph
    nodes = {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}
    assets = {
        name: (
            node.group_name,
            sorted(node.kinds),
            list(node.owners),
            node.partitions_def.name
            if isinstance(node.partitions_def, dg.DynamicPartitionsDefinition)
            else None,
            sorted(parent.to_user_string() for parent in node.parent_keys),
        )
        for name, node in nodes.items()
    }
    surface = {
        "assets": assets,
        "checks": sorted(key.to_user_string() for key in graph.asset_check_keys),
        "jobs": sorted(
            job.name for job in repository.get_all_jobs() if not job.name.startswith("__")
        ),
        "sensors": {
            sensor.name: (sensor.job_name, sensor.default_status.name)
            for sensor in repository.sensor_defs
        },
        "schedules": {
            schedule.name: (
                schedule.job_name,
                schedule.cron_schedule,
                schedule.execution_timezone,
                schedule.default_status.name,
            )
            for schedule in repository.schedule_defs
        },
    }
    assert surface == {
        "assets": {
            "sigungu_regions": ("regions", ["postgres", "python"], ["team:mohe"], None, []),
            "places": (
                "places",
                ["postgres", "python"],
                ["team:mohe"],
                "sigungu",
                ["sigungu_regions"],
            ),
            "place_catalog": (
                "catalog",
                ["csv", "parquet", "python"],
                ["team:mohe"],
                None,
                ["places"],
            ),
            "collection_report": (
                "catalog",
                ["markdown", "python"],
                ["team:mohe"],
                None,
                ["places"],
            ),
        },
        "checks": [
            "places:attribution_rate",
            "places:checkpoints_match_partitions",
            "places:collection_is_complete",
            "places:coordinates_inside_korea",
            "places:few_items_rejected",
            "places:no_duplicate_places",
            "places:no_national_drop",
            "places:no_search_skipped",
            "places:no_sudden_drop",
            "places:nothing_left_failed",
            "places:places_fit_their_schema",
            "places:places_near_their_region",
            "places:regions_have_places",
            "sigungu_regions:regions_match_the_list",
        ],
        "jobs": [
            "ingest_places",
            "maintenance",
            "new_round",
            "place_ingestion_batch",
            "publish_catalog",
            "refine_places",
            "refresh_regions",
        ],
        "sensors": {
            "pending_region_sensor": ("ingest_places", "RUNNING"),
            "refinement_sensor": ("refine_places", "RUNNING"),
        },
        "schedules": {
            "weekly_region_refresh": ("refresh_regions", "0 4 * * 1", "Asia/Seoul", "STOPPED"),
            "daily_catalog": ("publish_catalog", "0 6 * * *", "Asia/Seoul", "STOPPED"),
            "monthly_new_round": ("new_round", "0 3 1 * *", "Asia/Seoul", "STOPPED"),
            "daily_maintenance": ("maintenance", "0 5 * * *", "Asia/Seoul", "RUNNING"),
        },
    }


# The page of an asset before its first run: a table, files, a report.
SAID = {
    "sigungu_regions": {"dagster/table_name", "dagster/column_schema"},
    "places": {"dagster/table_name", "dagster/column_schema"},
    "place_catalog": {"dagster/column_schema"},
    "collection_report": set[str](),
}


def test_every_asset_says_what_it_is_where_its_rows_are_and_which_code_made_them() -> None:
    graph = build_defs().get_repository_def().asset_graph
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.code_version, key
        assert SAID[key.to_user_string()] <= set(node.metadata), key


def test_backfills_take_as_many_regions_per_run_as_the_setting_says() -> None:
    places = build_defs().get_repository_def().asset_graph.get(dg.AssetKey("places"))
    assert places.backfill_policy is not None
    assert places.backfill_policy.max_partitions_per_run == 64
