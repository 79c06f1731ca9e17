"""sql/roles.sql: the collecting role does all that a collection does and nothing more, the reading
role reads.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.errors import DatabaseUnavailable, NotPermitted
from mohe_assets.postgres import roles, schema
from mohe_assets.postgres.databases import ensure_ready
from mohe_assets.store.api_calls import ApiCalls
from mohe_assets.store.api_state import ApiAccount, read_state
from mohe_assets.store.database import Database, rows
from mohe_assets_tests.support.commands import Mohe
from mohe_assets_tests.support.databases import execute, read
from mohe_assets_tests.support.environments import Environment

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
    """Return whether the role may execute this; roll it back."""

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
    may_gather = (
        "SELECT has_table_privilege('mohe_collector', name, 'MAINTAIN') AS may "
        "FROM unnest('{%s}'::text[]) name"
    )
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
        (
            "CREATE OR REPLACE FUNCTION budget_clock() RETURNS timestamptz LANGUAGE sql VOLATILE "
            "AS 'SELECT now()'"
        ),
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
        "CREATE TEMPORARY TABLE mine (id integer)",
        "SELECT 1 FROM batch_checkpoint FOR SHARE",
        "LOCK TABLE region_refresh IN ROW SHARE MODE",
        f"LOCK TABLE {schema.VERSION_TABLE} IN ROW EXCLUSIVE MODE",
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
        "does not let this role do that: permission denied for table batch_checkpoint. Grant the "
        "rights" in refused.stderr
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


DIGESTS = (
    ("api_budget", "account"),
    ("api_budget", "proven"),
    ("api_budget", "blocked"),
    ("api_budget", "unavailable_for"),
    ("api_usage", "account"),
)


@pytest.mark.parametrize(("table", "column"), DIGESTS)
def test_the_reading_role_sees_no_digest_and_every_other_column(
    connected_as: As, database: Database, table: str, column: str
) -> None:
    reader = connected_as(roles.READER)
    for sql in (
        "SELECT {column} FROM {table}",
        "SELECT 1 FROM {table} WHERE {column} = 'x'",
        "SELECT * FROM {table}",
    ):
        assert not may(reader, sql.format(table=table, column=column))
    named = "SELECT column_name AS name FROM information_schema.columns WHERE table_name = :table"
    others = {row["name"] for row in read(database, named, table=table)} - {
        name for of, name in DIGESTS if of == table
    }
    assert len(others) > 4
    assert may(reader, f"SELECT {', '.join(sorted(others))} FROM {table}")


def test_digests_of_earlier_versions_are_removed_and_those_of_this_one_stay(
    database: Database,
) -> None:
    fast, slow = "f" * 32, "scrypt$salt$digest"
    insert = """INSERT INTO api_budget (api, account, proven, blocked, blocked_at, blocked_why,
                                        unavailable_for, unavailable_since, unavailable_reason)
                VALUES (:api, 'a', :proven, :blocked, now(), 'refused',
                        :service, now(), 'HTTP 503')"""
    execute(database, insert, api="old", proven=fast, blocked=fast, service=fast)
    execute(database, insert, api="new", proven="abcd", blocked=slow, service="12345678")
    used = read(database, "SELECT api, updated_at FROM api_budget ORDER BY api")
    execute(database, f"UPDATE {schema.VERSION_TABLE} SET version_num = '011'")
    assert schema.migrate(database) == schema.head_revision()
    assert read(database, "SELECT api, updated_at FROM api_budget ORDER BY api") == used
    new, old = read(
        database,
        """SELECT proven, blocked, blocked_why, unavailable_for, unavailable_reason,
                  unavailable_since IS NULL AS available FROM api_budget ORDER BY api""",
    )
    assert list(new.values()) == ["abcd", slow, "refused", "12345678", "HTTP 503", False]
    assert list(old.values()) == [None, None, None, None, None, True]


def test_the_reading_role_has_the_state_of_an_account_whose_client_id_it_knows(
    connected_as: As, database: Database, database_url: str
) -> None:
    reader = connected_as(roles.READER)
    account = ApiAccount.of("naver-classic", "id", "secret", rate=1, daily=10, monthly=None)
    calls = ApiCalls(database=database, account=account)
    calls.reserve(1)
    calls.block("refused")
    (stored,) = read(database, "SELECT account, blocked FROM api_budget")
    state = read_state(reader, account)
    assert (state.used_today, state.blocked_why) == (1, "refused")
    (seen,) = read(
        reader, "SELECT * FROM account_budget('naver-classic', :account)", account=account.account
    )
    assert seen["blocked"] == stored["blocked"].rpartition("$")[0] + "$"
    assert seen["proven"] is None
    # A table of one's own with the name of ours changes nothing of what the owner's functions read.
    execute(
        database, f"GRANT TEMPORARY ON DATABASE {make_url(database_url).database} TO {roles.READER}"
    )

    def shadowed(connection: Connection) -> list[dict[str, Any]]:
        connection.execute(text("CREATE TEMPORARY TABLE api_budget AS SELECT 1 AS mine"))
        connection.execute(text("CREATE TEMPORARY TABLE api_usage AS SELECT 1 AS mine"))
        return rows(
            connection,
            "SELECT blocked FROM account_budget('naver-classic', :account)",
            account=account.account,
        )

    assert reader.transaction(shadowed) == [{"blocked": seen["blocked"]}]


def test_the_reading_role_holds_nothing_that_a_collection_or_a_migration_waits_for(
    connected_as: As, environment: Environment, database: Database
) -> None:
    settings = settings_module.load({**environment, "MOHE_SEARCH_KEYWORDS": "카페"})
    with App.open(settings) as app:
        app.refresh_regions()
        listed = read(
            database, "SELECT region_code FROM batch_checkpoint ORDER BY region_code LIMIT 1"
        )
        codes = frozenset(row["region_code"] for row in listed)
        with connected_as(roles.READER).engine.connect() as reading, reading.begin():
            for lock in (7_310_511_680, 7_310_511_681):
                reading.execute(text(f"SELECT pg_advisory_xact_lock({lock})"))
            reading.execute(text("SET idle_in_transaction_session_timeout = 0"))
            for table in (
                "region_refresh",
                schema.VERSION_TABLE,
                "places",
                "search_query",
                "batch_checkpoint",
            ):
                reading.execute(text(f"LOCK TABLE {table} IN ACCESS SHARE MODE"))
            execute_in(app, codes)
            reading.execute(text("SELECT 1"))  # it was there all the time


def execute_in(app: App, codes: frozenset[str]) -> None:
    """What takes the locks, with less patience than a person."""
    url = make_url(app.settings.database_url.get_secret_value())  # type: ignore[union-attr]
    hurried = replace(
        app,
        database=Database.connect(
            url.update_query_dict({"options": "-c lock_timeout=3s"}).render_as_string(
                hide_password=False
            )
        ),
    )
    hurried.refresh_regions()
    with hurried.collection("run", ClaimFilter(codes=codes)) as run:
        assert {one.outcome.value for one in run.outcomes()} == {"completed"}
    assert schema.migrate(hurried.database) == schema.head_revision()
    execute(hurried.database, f"UPDATE {schema.VERSION_TABLE} SET version_num = '011'")
    assert schema.migrate(hurried.database) == schema.head_revision()
    hurried.database.close()


def test_only_roles_with_rights_here_connect_and_the_reader_is_limited(
    connected_as: As, database: Database, database_url: str, admin: Database
) -> None:
    stranger, friend = f"stranger_{uuid.uuid4().hex[:8]}", f"friend_{uuid.uuid4().hex[:8]}"
    for role in (stranger, friend):
        execute(admin, f"CREATE ROLE {role} LOGIN")
    try:
        execute(database, f"GRANT SELECT ON places TO {friend}")
        roles.grant(database)
        assert may(connected_as(friend), "SELECT count(*) FROM places")
        refused = Database.connect(url_as(stranger, database_url))
        with pytest.raises(DatabaseUnavailable, match="permission denied for database"):
            replace(refused, reconnect_seconds=0).transaction(
                lambda connection: connection.execute(text("SELECT 1"))
            )
        refused.close()
        assert not may(connected_as(friend), "CREATE TEMPORARY TABLE mine (id integer)")
        assert may(connected_as(roles.COLLECTOR), "CREATE TEMPORARY TABLE mine (id integer)")
        (limits,) = read(
            database,
            "SELECT rolconnlimit, rolconfig FROM pg_roles WHERE rolname = :role",
            role=roles.READER,
        )
        assert limits["rolconnlimit"] == 20
        assert limits["rolconfig"] == [
            "statement_timeout=60s",
            "idle_in_transaction_session_timeout=60s",
        ]
    finally:
        for role in (stranger, friend):
            execute(database, f"DROP OWNED BY {role}")
            execute(admin, f"DROP ROLE {role}")


def test_limits_that_a_person_set_stay(connected_as: As, database: Database) -> None:
    connected_as(roles.READER)
    execute(database, f"ALTER ROLE {roles.READER} CONNECTION LIMIT 7")
    execute(database, f"ALTER ROLE {roles.READER} SET statement_timeout = '5s'")
    try:
        roles.grant(database)
        (limits,) = read(
            database,
            "SELECT rolconnlimit, rolconfig FROM pg_roles WHERE rolname = :role",
            role=roles.READER,
        )
        assert limits["rolconnlimit"] == 7
        assert "statement_timeout=5s" in limits["rolconfig"]
    finally:
        execute(database, f"ALTER ROLE {roles.READER} CONNECTION LIMIT 20")
        execute(database, f"ALTER ROLE {roles.READER} SET statement_timeout = '60s'")


def test_the_reading_role_may_not_connect_to_dagsters_database(
    connected_as: As, empty_database_url: str
) -> None:
    connected_as(roles.READER)
    dagster = Database.connect(empty_database_url)
    execute(dagster, "CREATE TABLE event_logs (id integer)")
    roles.grant(dagster)
    assert may(connected_as_url(roles.COLLECTOR, empty_database_url), "DELETE FROM event_logs")
    refused = replace(connected_as_url(roles.READER, empty_database_url), reconnect_seconds=0)
    with pytest.raises(DatabaseUnavailable, match="permission denied for database"):
        refused.transaction(lambda connection: connection.execute(text("SELECT 1")))
    dagster.close()


def connected_as_url(role: str, url: str) -> Database:
    return Database.connect(url_as(role, url))


class TestOutdatedRights:
    """A migration without --roles names the rights of an earlier version's roles that differ."""

    def test_current_rights_are_not_mentioned_and_asking_changes_nothing(
        self, connected_as: As, database: Database
    ) -> None:
        connected_as(roles.READER)
        assert roles.outdated(database) == []
        assert roles.outdated(database) == []

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ("GRANT SELECT ON api_budget TO mohe_reader", "table api_budget"),
            ("REVOKE SELECT (pace) ON api_budget FROM mohe_reader", "column api_budget.pace"),
            ("REVOKE SELECT ON places FROM mohe_reader", "table places"),
            ("REVOKE DELETE ON places FROM mohe_collector", "table places"),
            ("GRANT TEMPORARY ON DATABASE {database} TO PUBLIC", "database {database}"),
            ("GRANT CREATE ON SCHEMA public TO PUBLIC", "schema public"),
            (
                (
                    "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES "
                    "FROM mohe_reader"
                ),
                "tables made later",
            ),
        ],
    )
    def test_each_difference_is_named_and_stays_until_a_person_acts(
        self, connected_as: As, database: Database, database_url: str, change: str, named: str
    ) -> None:
        connected_as(roles.READER)
        name = make_url(database_url).database
        execute(database, change.format(database=name))
        for _ in range(2):
            assert roles.outdated(database) == [named.format(database=name)]
        roles.grant(database)
        assert roles.outdated(database) == []

    def test_the_command_says_it_and_what_to_do(
        self, connected_as: As, database: Database, mohe: Mohe
    ) -> None:
        connected_as(roles.READER)
        execute(database, "GRANT SELECT ON api_budget TO mohe_reader")
        done = mohe("db", "migrate")
        assert done.status == 0
        assert "table api_budget" in done.err
        assert done.err.splitlines()[-1].endswith("Run `mohe db migrate --roles`.")
        assert "not those of this version" not in mohe("db", "migrate", "--roles").err
        assert "not those of this version" not in mohe("db", "migrate").err
