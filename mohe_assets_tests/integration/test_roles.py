"""sql/roles.sql: the collecting role does all that a collection does and nothing more, the reading
role reads.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.errors import NotPermitted
from mohe_assets.postgres import roles, schema
from mohe_assets.postgres.databases import ensure_ready
from mohe_assets.store.database import Database
from mohe_assets_tests.conftest import Environment
from mohe_assets_tests.integration.test_schema import execute, read

As = Callable[[str], Database]


def url_as(role: str, url: str) -> str:
    return make_url(url).set(username=role).render_as_string(hide_password=False)


@pytest.fixture
def connected_as(database: Database, database_url: str) -> Iterator[As]:
    """Connects as one of the roles, whose rights were given twice: the file may be run any number
    of times.
    """
    roles.grant(database)
    roles.grant(database)
    opened: list[Database] = []

    def connect(role: str) -> Database:
        opened.append(Database.connect(url_as(role, database_url)))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def may(database: Database, sql: str) -> bool:
    """Whether the role may; nothing of it stays."""

    def attempt() -> None:
        with database.engine.connect() as connection, connection.begin() as transaction:
            connection.execute(text(sql))
            transaction.rollback()

    try:
        database.transaction(lambda _: attempt())
    except NotPermitted:
        return False
    return True


def test_the_collecting_role_does_all_that_a_collection_a_replay_and_a_reset_need(
    connected_as: As, environment: Environment, database_url: str
) -> None:
    connected_as(roles.COLLECTOR)
    few = {"MOHE_SEARCH_KEYWORDS": "카페,공원", "MOHE_MAX_CALLS_PER_REGION": "6"}
    settings = settings_module.load(
        {**environment, **few, "MOHE_DATABASE_URL": url_as(roles.COLLECTOR, database_url)}
    )
    ensure_ready(settings)  # a current schema needs no right to change it
    with App.open(settings) as app:
        app.refresh_regions()
        listed = read(
            app.database, "SELECT region_code FROM batch_checkpoint ORDER BY region_code LIMIT 2"
        )
        codes = frozenset(row["region_code"] for row in listed)
        for request in (ClaimFilter(codes=codes), ClaimFilter(codes=codes, refine=True)):
            with app.collection(f"run-{request.refine}", request) as run:
                assert {one.outcome.value for one in run.outcomes()} <= {"completed", "refined"}
        app.reopen_regions_with_old_plan()
        assert app.api_state() is not None
        assert app.replay().searches > 0
        assert sorted(app.checkpoints.new_round()) == sorted(codes)
        app.refresh_regions()
        assert app.checkpoints.reset() == 256


def test_the_collecting_role_gathers_statistics_of_what_a_refresh_fills(
    connected_as: As, database: Database
) -> None:
    connected_as(roles.COLLECTOR)
    version = read(database, "SELECT current_setting('server_version_num')::int AS version")[0][
        "version"
    ]
    if version < 170000:
        pytest.skip("PostgreSQL 17 is the first that lets a role analyse tables of another")
    may_gather = "SELECT has_table_privilege('mohe_collector', name, 'MAINTAIN') AS may FROM unnest('{%s}'::text[]) name"
    assert read(database, may_gather % "region,legal_dong,batch_checkpoint") == [{"may": True}] * 3
    assert read(database, may_gather % "places,search_query") == [{"may": False}] * 2


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE mine (id integer)",
        "ALTER TABLE places ADD COLUMN mine integer",
        "CREATE INDEX mine ON places (name)",
        "DROP TABLE search_query",
        "TRUNCATE places",
        "DELETE FROM region",
        "DELETE FROM region_refresh",
        "DELETE FROM batch_execution_metadata",
        "DELETE FROM api_usage",
        "DELETE FROM api_budget",
        f"UPDATE {schema.VERSION_TABLE} SET version_num = '001'",
        "CREATE OR REPLACE FUNCTION budget_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT now()'",
        "CREATE ROLE mine",
        f"ALTER ROLE {roles.READER} SUPERUSER",
    ],
)
def test_the_collecting_role_changes_no_table_and_deletes_no_history(
    connected_as: As, sql: str
) -> None:
    assert not may(connected_as(roles.COLLECTOR), sql)


def test_the_reading_role_reads_every_table_and_writes_none(
    connected_as: As, database: Database
) -> None:
    reader = connected_as(roles.READER)
    tables = [
        row["tablename"]
        for row in read(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    assert len(tables) > 8
    for table in tables:
        assert may(reader, f"SELECT count(*) FROM {table}")
        assert not may(reader, f"DELETE FROM {table}")
    for sql in (
        "INSERT INTO api_budget (api, account) VALUES ('a', 'b')",
        "UPDATE batch_checkpoint SET status = 'PENDING'",
        "SELECT nextval('places_id_seq')",
        "CREATE TABLE mine (id integer)",
        "SELECT slow_down('a', 'b')",
    ):
        assert not may(reader, sql), sql


def test_mohe_status_needs_the_reading_role_only_and_what_it_may_not_is_one_sentence(
    connected_as: As, process_environment: Callable[..., Environment], database_url: str
) -> None:
    connected_as(roles.READER)

    def mohe(*arguments: str) -> subprocess.CompletedProcess[str]:
        variables = process_environment(MOHE_DATABASE_URL=url_as(roles.READER, database_url))
        program = Path(sys.executable).with_name("mohe")
        return subprocess.run(
            [program, *arguments], env=variables, capture_output=True, text=True, check=False
        )

    status = mohe("status", "--json")
    assert json.loads(status.stdout)["progress"]["completed"] == 0, status.stderr
    refused = mohe("retry")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("mohe: The database postgresql://mohe_reader@")
    assert (
        "does not let this role do that: permission denied for table batch_checkpoint. Grant the rights"
        in refused.stderr
    )


def test_tables_that_a_later_migration_makes_have_their_rights_at_once(
    connected_as: As, database: Database
) -> None:
    collector, reader = connected_as(roles.COLLECTOR), connected_as(roles.READER)
    execute(database, "CREATE TABLE later (id bigserial PRIMARY KEY)")
    assert may(collector, "INSERT INTO later DEFAULT VALUES")
    assert not may(collector, "DELETE FROM later")
    assert may(reader, "SELECT * FROM later")
    assert not may(reader, "INSERT INTO later DEFAULT VALUES")


def test_who_may_not_migrate_is_told_so(
    connected_as: As, empty_database_url: str, environment: Environment
) -> None:
    connected_as(roles.COLLECTOR)
    url = url_as(roles.COLLECTOR, empty_database_url)
    settings = settings_module.load(
        {**environment, "MOHE_DATABASE_URL": url, "MOHE_DAGSTER_DATABASE_URL": url}
    )
    with pytest.raises(NotPermitted, match="permission denied for schema public"):
        ensure_ready(settings)


def test_the_roles_of_a_database_without_tables_are_refused_with_what_to_do(
    empty_database_url: str,
) -> None:
    database = Database.connect(empty_database_url)
    with pytest.raises(Exception, match="run `mohe db migrate` first"):
        roles.grant(database)
    database.close()


def test_a_password_is_sent_as_what_the_server_keeps_of_it(
    connected_as: As, database: Database
) -> None:
    connected_as(roles.READER)
    password = "p@ss'w\"ord \\ %"
    roles.set_password(database, roles.READER, password)
    sql = "SELECT rolpassword FROM pg_authid WHERE rolname = :role"
    assert read(database, sql, role=roles.READER)[0]["rolpassword"].startswith("SCRAM-SHA-256$")
