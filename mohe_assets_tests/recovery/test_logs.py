"""The output of a run: each line about a region names it and its attempt, in text and in JSON."""

import json
from typing import Any

import pytest

from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.processes import StartWorker, executions
from mohe_assets_tests.support.regions import FewRegions


@pytest.fixture
def failing(simulator: Simulator, database: Database, few: FewRegions) -> dict[str, Any]:
    """Of three regions one fails."""
    codes = few(3)
    region = read(
        database,
        "SELECT region_code, region_name FROM region WHERE region_code = :code",
        code=codes[1],
    )[0]
    simulator.add_faults(
        [
            {
                "api": "naver",
                "fault": "status",
                "status": 500,
                "query_contains": region["region_name"],
            }
        ]
    )
    return region


def test_a_run_prints_json_lines_that_say_region_and_attempt(
    database: Database, start_worker_from_a_shell: StartWorker, failing: dict[str, Any]
) -> None:
    worker = start_worker_from_a_shell(MOHE_LOG_FORMAT="json")
    assert worker.wait() != 0
    lines = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
    # Dagster's command line prints its own lines before and after; no line of the run is text.
    others = [line for line in worker.output.splitlines() if not line.startswith("{")]
    assert not [line for line in others if " - dagster - " in line or "HTTP 500" in line]

    run_id = executions(database)[0]["execution_id"]
    assert {line["run_id"] for line in lines if "run_id" in line} == {run_id}
    assert all({"timestamp", "level", "logger", "message"} <= line.keys() for line in lines)
    (reason,) = [
        line
        for line in lines
        if line["level"] == "error" and line["message"].endswith("HTTP 500 with a blank body")
    ]
    expected = {
        "batch": "place-ingestion-batch",
        "attempt": 1,
        "round": 1,
        "job": "place_ingestion_batch",
        **failing,
    }
    assert {name: reason[name] for name in expected} == expected
    done = [line for line in lines if line.get("dagster_event") == "ASSET_MATERIALIZATION"]
    assert {line["region_code"] for line in done} == {
        row["region_code"]
        for row in read(
            database, "SELECT region_code FROM batch_checkpoint WHERE status = 'COMPLETED'"
        )
    }
    assert all(
        line["attempt"] == 1 and line["partition"].startswith(line["region_code"]) for line in done
    )


def test_in_text_the_same_facts_stand_at_the_end_of_the_line(
    start_worker_from_a_shell: StartWorker, failing: dict[str, Any]
) -> None:
    worker = start_worker_from_a_shell()
    assert worker.wait() != 0
    code, name = failing.values()
    facts = f"[batch=place-ingestion-batch region_code={code} region_name={name} round=1 attempt=1]"
    (reason,) = [
        line
        for line in worker.output.splitlines()
        if " - ERROR - " in line and line.endswith(facts)
    ]
    assert "HTTP 500" in reason
    done = [line for line in worker.output.splitlines() if "ASSET_MATERIALIZATION - " in line]
    assert len(done) == 2
    assert all(line.endswith(" round=1 attempt=1]") and " region_code=" in line for line in done)
