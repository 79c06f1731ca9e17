"""No key is in any output, event or table, even when a server sends it back to us."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import StartWorker, Worker
from mohe_assets_tests.support.regions import FewRegions

# Each key contains a word that survives every encoding; the tests search for that word.
GOVERNMENT, CLIENT_ID, SECRET = "GovtNeedle7731", "IdNeedle4412", "SecretNeedle9083"
HUB_ID, HUB_KEY = "HubNeedle2208", "HubSecretNeedle5519"
NEEDLES = (GOVERNMENT, CLIENT_ID, SECRET, HUB_ID, HUB_KEY)
# The portal's encoded form: a %2B, and a + and = decoded by hand.
CONFIGURED_KEY = f"a%2Bb+{GOVERNMENT}%2F=="
REAL_KEY = f"a+b+{GOVERNMENT}/=="


@pytest.fixture
def environment(environment: Environment, simulator: Simulator) -> Environment:
    """Recognisable keys, and a region list that is refreshed in each run, so that all of them
    travel.
    """
    simulator.configure(
        government_key=REAL_KEY,
        client_id=CLIENT_ID,
        client_secret=SECRET,
        hub_key_id=HUB_ID,
        hub_key=HUB_KEY,
    )
    keys = {
        "GOVT_API_KEY": CONFIGURED_KEY,
        "NAVER_CLIENT_ID": CLIENT_ID,
        "NAVER_CLIENT_SECRET": SECRET,
    }
    return {**environment, **keys, "MOHE_REGION_REFRESH_DAYS": "0.0000001"}


@pytest.fixture
def databases(database: Database, dagster_url: str) -> Iterator[tuple[Database, Database]]:
    """Ours and Dagster's."""
    dagster = Database.connect(dagster_url)
    yield database, dagster
    dagster.close()


def where_keys_are(
    worker: Worker, environment: Environment, databases: tuple[Database, Database]
) -> list[str]:
    """Places in which a key was found."""
    found = [f"output: {needle}" for needle in NEEDLES if needle.lower() in worker.output.lower()]
    for path in Path(environment["DAGSTER_HOME"]).rglob("*"):
        if path.is_file():
            content = path.read_bytes().lower()
            found += [
                f"{path}: {needle}" for needle in NEEDLES if needle.lower().encode() in content
            ]
    for database in databases:
        found += list(rows_with_keys(database))
    return found


def rows_with_keys(database: Database) -> Iterator[str]:
    """Every table, every column of every row, as PostgreSQL itself writes it."""
    tables = read(
        database,
        """SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables
                                WHERE schemaname NOT IN ('pg_catalog', 'information_schema')""",
    )
    assert len(tables) > 5
    for table in tables:
        sql = f"SELECT one::text AS text FROM {table['name']} AS one WHERE one::text ~* :needles"
        for row in read(database, sql, needles="|".join(NEEDLES)):
            yield f"{table['name']}: {re.sub(r'[^ -~]', '?', row['text'])[:300]}"


@pytest.fixture(autouse=True)
def _list_of_the_same_keys(database: Database) -> None:
    """The template's list came with the simulator's own keys; by others it would have to be read
    again first.
    """
    sql = text("DELETE FROM data_origin WHERE part = 'regions'")
    database.transaction(lambda connection: connection.execute(sql))


def echo(api: str, status: int, body: Any, **more: Any) -> dict[str, Any]:
    return {"api": api, "fault": "status", "status": status, "body": json.dumps(body), **more}


def test_no_key_is_left_anywhere_by_a_success(
    simulator: Simulator,
    start_worker_from_a_shell: StartWorker,
    few: FewRegions,
    environment: Environment,
    databases: tuple[Database, Database],
) -> None:
    few(4)
    worker = start_worker_from_a_shell().succeed()

    assert simulator.stats()["regions"]["answered"] >= 21, "the government's key travelled"
    assert where_keys_are(worker, environment, databases) == []


def test_no_key_is_left_anywhere_by_failures_that_echo_it(
    simulator: Simulator,
    start_worker_from_a_shell: StartWorker,
    few: FewRegions,
    environment: Environment,
    databases: tuple[Database, Database],
) -> None:
    few(3)
    said = {"errorMessage": f"no luck with {CLIENT_ID} and {SECRET}", "errorCode": "SE99"}
    simulator.add_faults(
        [
            echo("naver", 500, said),
            echo("regions", 500, {"url": f"?ServiceKey={CONFIGURED_KEY}&{REAL_KEY}"}),
        ]
    )
    worker = start_worker_from_a_shell(MOHE_LOG_FORMAT="json")

    assert worker.wait() == 0, "an API that is unavailable is waited for"
    assert "could not be refreshed" in worker.output
    assert '"region_code"' in worker.output
    assert where_keys_are(worker, environment, databases) == []


def test_no_key_is_left_anywhere_when_the_keys_are_refused(
    simulator: Simulator,
    start_worker_from_a_shell: StartWorker,
    few: FewRegions,
    environment: Environment,
    databases: tuple[Database, Database],
) -> None:
    few(3)
    simulator.add_faults(
        [echo("naver", 401, {"errorMessage": f"{CLIENT_ID} {SECRET} unknown", "errorCode": "024"})]
    )
    simulator.add_faults([{"api": "regions", "fault": "auth"}])
    worker = start_worker_from_a_shell()

    assert worker.wait() != 0
    assert "NAVER_CLIENT_SECRET" in worker.output
    assert where_keys_are(worker, environment, databases) == []


def test_no_key_of_the_hub_is_left_anywhere_when_it_refuses_them(
    simulator: Simulator,
    start_worker: StartWorker,
    few: FewRegions,
    environment: Environment,
    databases: tuple[Database, Database],
) -> None:
    few(3)
    wrapped = {"error": {"errorCode": "200", "message": f"no {HUB_ID}", "details": HUB_KEY}}
    simulator.add_faults([{**echo("naver", 401, wrapped), "from_call": 2}])
    worker = start_worker(
        NCP_APIGW_API_KEY_ID=HUB_ID, NCP_APIGW_API_KEY=HUB_KEY, MOHE_LOG_FORMAT="json"
    )

    assert worker.wait() != 0
    assert simulator.stats()["naver"]["answered"] == 1, (
        "its keys travelled, and one search was answered"
    )
    assert "NCP_APIGW_API_KEY" in worker.output
    assert where_keys_are(worker, environment, databases) == []
