"""The tables: the same through psql and through `mohe db migrate`, any number of times, and what
they refuse.
"""

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError

from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.packaged_files import packaged_file
from mohe_assets.postgres import schema
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.store.checkpoints import Status
from mohe_assets.store.database import Database
from mohe_assets.store.executions import Ending
from mohe_assets_tests.support.databases import PROGRESS_QUERY, execute, read

CHECKPOINT_COLUMNS = {
    "id",
    "batch_name",
    "region_type",
    "region_code",
    "region_name",
    "parent_code",
    "status",
    "start_time",
    "end_time",
    "processed_count",
    "error_message",
    "created_at",
    "updated_at",
}
EXECUTION_COLUMNS = {
    "id",
    "batch_name",
    "execution_id",
    "start_time",
    "end_time",
    "status",
    "total_regions",
    "completed_regions",
    "failed_regions",
    "last_checkpoint_id",
    "created_at",
    "updated_at",
}
PLACE_COLUMNS = {
    "id",
    "name",
    "category",
    "address",
    "road_address",
    "latitude",
    "longitude",
    "phone",
    "website_url",
    "naver_place_id",
    "created_at",
    "updated_at",
    "region_code",
    "first_seen_at",
    "last_seen_at",
}
# As the users of the batch system have them in their scripts, letter by letter.
REGIONS_QUERY = (
    "SELECT region_name, status, processed_count, error_message, updated_at FROM batch_checkpoint"
    " WHERE batch_name = 'place-ingestion-batch' ORDER BY updated_at DESC;"
)
RUNS_QUERY = (
    "SELECT * FROM batch_execution_metadata WHERE batch_name = 'place-ingestion-batch'"
    " ORDER BY start_time DESC;"
)

SHAPE = {
    "columns": """
        SELECT table_name, column_name, data_type, character_maximum_length, numeric_precision,
               numeric_scale, is_nullable, column_default
          FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name <> :version""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
         WHERE schemaname = 'public' AND tablename <> :version""",
    "constraints": """
        SELECT conrelid::regclass::text AS on_table, conname,
               pg_get_constraintdef(oid) AS definition
          FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> :version""",
    "functions": """
        SELECT proname, pg_get_function_arguments(oid) AS arguments, prosrc FROM pg_proc
         WHERE pronamespace = 'public'::regnamespace AND :version <> ''""",
    "triggers": """
        SELECT tgname, tgrelid::regclass::text AS on_table FROM pg_trigger
         WHERE NOT tgisinternal AND :version <> ''""",
}

Connect = Callable[[str], Database]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens databases that are closed after the test."""
    opened: list[Database] = []

    def open_one(url: str) -> Database:
        opened.append(Database.connect(url))
        return opened[-1]

    yield open_one
    for database in opened:
        database.close()


@pytest.fixture
def empty_database(empty_database_url: str, connect: Connect) -> Database:
    return connect(empty_database_url)


def shape(database: Database) -> dict[str, set[tuple[Any, ...]]]:
    found = {what: read(database, sql, version=schema.VERSION_TABLE) for what, sql in SHAPE.items()}
    return {what: {tuple(row.values()) for row in result} for what, result in found.items()}


def columns(database: Database, table: str) -> set[str]:
    sql = """SELECT column_name FROM information_schema.columns
              WHERE table_schema = 'public' AND table_name = :table"""
    return {row["column_name"] for row in read(database, sql, table=table)}


def run_files(server: EmbeddedServer, url: str) -> None:
    for file in sorted(packaged_file("sql").glob("*.sql")):
        done = subprocess.run(
            [str(server.psql()), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file), url],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{file.name}: {done.stderr}"


def add_checkpoint(database: Database, code: str = "11680") -> None:
    execute(
        database,
        "INSERT INTO batch_checkpoint (batch_name, region_type, region_code, region_name)"
        " VALUES ('place-ingestion-batch', 'sigungu', :code, 'x')",
        code=code,
    )


def test_migrations_are_named_after_their_revisions_and_follow_each_other() -> None:
    folder = Path(schema.__file__).with_name("migrations")
    scripts = list(ScriptDirectory(str(folder)).walk_revisions())
    named = {str(script.revision): Path(script.path).name.partition("_")[0] for script in scripts}
    assert named == {revision: revision for revision in named}
    assert ScriptDirectory(str(folder)).get_current_head() == schema.head_revision()


class TestFiles:
    def test_psql_takes_all_files_in_order_twice_and_makes_what_a_migration_makes(
        self,
        postgres: EmbeddedServer,
        empty_database: Database,
        empty_database_url: str,
        database: Database,
    ) -> None:
        run_files(postgres, empty_database_url)
        once = shape(empty_database)
        run_files(postgres, empty_database_url)
        assert shape(empty_database) == once == shape(database)
        assert {table for table, *_ in once["columns"]} >= {
            "region",
            "batch_checkpoint",
            "places",
            "search_query",
            "api_usage",
        }

    def test_a_database_made_with_psql_is_migrated_without_losing_a_row(
        self, postgres: EmbeddedServer, empty_database: Database, empty_database_url: str
    ) -> None:
        run_files(postgres, empty_database_url)
        add_checkpoint(empty_database)
        assert schema.migrate(empty_database) == schema.head_revision()
        assert read(empty_database, "SELECT region_code FROM batch_checkpoint") == [
            {"region_code": "11680"}
        ]

    def test_the_tables_of_the_batch_system_before_are_taken_over_with_their_rows(
        self, empty_database: Database
    ) -> None:
        execute(
            empty_database,
            """CREATE TABLE batch_checkpoint (
                 id BIGSERIAL PRIMARY KEY, batch_name VARCHAR(100) NOT NULL,
                 region_type VARCHAR(50) NOT NULL, region_code VARCHAR(20) NOT NULL,
                 region_name VARCHAR(200) NOT NULL, parent_code VARCHAR(20),
                 status VARCHAR(20) NOT NULL DEFAULT 'PENDING', start_time TIMESTAMP,
                 end_time TIMESTAMP, processed_count INTEGER DEFAULT 0, error_message TEXT,
                 created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
                 updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
               CREATE TABLE batch_execution_metadata (
                 id BIGSERIAL PRIMARY KEY, batch_name VARCHAR(100) NOT NULL,
                 execution_id VARCHAR(100) NOT NULL, start_time TIMESTAMP NOT NULL,
                 end_time TIMESTAMP, status VARCHAR(20) NOT NULL, total_regions INTEGER DEFAULT 0,
                 completed_regions INTEGER DEFAULT 0, failed_regions INTEGER DEFAULT 0,
                 last_checkpoint_id BIGINT, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
                 updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)""",
        )
        add_checkpoint(empty_database)
        schema.migrate(empty_database)
        assert read(empty_database, "SELECT status, attempt, round FROM batch_checkpoint") == [
            {"status": "PENDING", "attempt": 0, "round": 1}
        ]

    def test_migrating_again_changes_nothing(self, database: Database) -> None:
        before = shape(database)
        assert schema.migrate(database) == schema.head_revision()
        assert shape(database) == before

    def test_two_that_migrate_at_once_both_succeed(
        self, empty_database_url: str, connect: Connect, database: Database
    ) -> None:
        both = [connect(empty_database_url) for _ in range(2)]
        with ThreadPoolExecutor(2) as threads:
            assert set(threads.map(schema.migrate, both)) == {schema.head_revision()}
        assert shape(both[0]) == shape(database)

    def test_a_database_with_dagsters_own_version_table_is_migrated_beside_it(
        self, empty_database: Database
    ) -> None:
        execute(
            empty_database, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"
        )
        execute(empty_database, "INSERT INTO alembic_version VALUES ('dagsters-own')")
        assert schema.current_revision(empty_database) is None
        schema.migrate(empty_database)
        assert read(empty_database, "SELECT version_num FROM alembic_version") == [
            {"version_num": "dagsters-own"}
        ]
        assert schema.current_revision(empty_database) == schema.head_revision()

    def test_a_failed_migration_leaves_nothing_behind(self, empty_database: Database) -> None:
        execute(empty_database, "CREATE VIEW places AS SELECT 1 AS id")
        with pytest.raises(Exception, match="places"):
            schema.migrate(empty_database)
        assert schema.current_revision(empty_database) is None
        assert columns(empty_database, "region") == set()

    def test_an_empty_or_old_schema_is_refused_with_what_to_do(
        self, empty_database: Database
    ) -> None:
        with pytest.raises(DatabaseUnavailable, match=r"is empty, .* run `mohe db migrate`\.$"):
            schema.require_current(empty_database)
        schema.migrate(empty_database)
        schema.require_current(empty_database)
        execute(empty_database, f"UPDATE {schema.VERSION_TABLE} SET version_num = '001'")
        with pytest.raises(DatabaseUnavailable, match="is at revision 001"):
            schema.require_current(empty_database)

    def test_a_schema_of_a_newer_version_is_refused_and_left_alone(
        self, empty_database: Database
    ) -> None:
        schema.migrate(empty_database)
        execute(empty_database, f"UPDATE {schema.VERSION_TABLE} SET version_num = '999'")
        for needs_it in (schema.require_current, schema.migrate):
            with pytest.raises(
                DatabaseUnavailable, match=r"is at revision 999, which this version does not know"
            ):
                needs_it(empty_database)


class TestWhatUsersRelyOn:
    @pytest.mark.parametrize(
        ("table", "promised"),
        [
            ("batch_checkpoint", CHECKPOINT_COLUMNS),
            ("batch_execution_metadata", EXECUTION_COLUMNS),
            ("places", PLACE_COLUMNS),
        ],
    )
    def test_no_promised_column_is_missing(
        self, database: Database, table: str, promised: set[str]
    ) -> None:
        assert promised <= columns(database, table)

    def test_their_queries_run_unchanged(self, database: Database) -> None:
        for number, status in enumerate(Status):
            add_checkpoint(database, code=f"1111{number}")
            execute(
                database,
                "UPDATE batch_checkpoint SET status = :status WHERE region_code = :code",
                status=status.value,
                code=f"1111{number}",
            )
        execute(database, "INSERT INTO batch_execution_metadata (batch_name, execution_id)"
                          " VALUES ('place-ingestion-batch', 'run')")  # fmt: skip
        assert read(database, PROGRESS_QUERY) == [
            {"total_regions": 4, "completed": 1, "failed": 1, "processing": 1, "pending": 1}
        ]
        assert [set(row) for row in read(database, REGIONS_QUERY)] == [
            {"region_name", "status", "processed_count", "error_message", "updated_at"}
        ] * 4
        assert set(read(database, RUNS_QUERY)[0]) >= EXECUTION_COLUMNS

    @pytest.mark.parametrize(
        ("table", "on", "unique"),
        [
            ("batch_checkpoint", "(batch_name, region_type, region_code)", True),
            ("batch_checkpoint", "(batch_name, status)", False),
            ("batch_checkpoint", "(region_type, region_code)", False),
            ("batch_checkpoint", "(parent_code)", False),
            ("places", "(naver_place_id)", True),
        ],
    )
    def test_their_indexes_are_there(
        self, database: Database, table: str, on: str, *, unique: bool
    ) -> None:
        found = read(
            database, "SELECT indexdef FROM pg_indexes WHERE tablename = :table", table=table
        )
        assert any(
            row["indexdef"].endswith(f" {on}") and ("UNIQUE" in row["indexdef"]) == unique
            for row in found
        )

    def test_coordinates_have_their_precision(self, database: Database) -> None:
        sql = """SELECT column_name, numeric_precision AS p, numeric_scale AS s
                   FROM information_schema.columns
                  WHERE table_name = 'places' AND column_name IN ('latitude', 'longitude')
                  ORDER BY 1"""
        assert [tuple(row.values()) for row in read(database, sql)] == [
            ("latitude", 10, 8),
            ("longitude", 11, 8),
        ]


class TestConstraints:
    @pytest.mark.parametrize(
        ("constraint", "known"),
        [
            ("batch_checkpoint_status_known", {status.value for status in Status}),
            ("batch_execution_status_known", {ending.value for ending in Ending} | {"RUNNING"}),
        ],
    )
    def test_sql_and_python_know_the_same_statuses(
        self, database: Database, constraint: str, known: set[str]
    ) -> None:
        sql = """SELECT match[1] AS status FROM pg_constraint,
                        regexp_matches(pg_get_constraintdef(oid), '''([A-Z]+)''', 'g') AS match
                        WHERE conname = :name"""
        assert {row["status"] for row in read(database, sql, name=constraint)} == known

    @pytest.mark.parametrize(
        "change",
        ["status = 'DONE'", "status = 'pending'", "attempt = -1", "round = 0", "calls_used = -1"],
    )
    def test_a_checkpoint_outside_of_the_state_machine_is_refused(
        self, database: Database, change: str
    ) -> None:
        add_checkpoint(database)
        with pytest.raises(IntegrityError):
            execute(database, f"UPDATE batch_checkpoint SET {change}")

    def test_a_region_has_one_checkpoint_in_a_batch(self, database: Database) -> None:
        add_checkpoint(database)
        with pytest.raises(IntegrityError):
            add_checkpoint(database)

    def test_a_run_of_unknown_status_is_refused(self, database: Database) -> None:
        with pytest.raises(IntegrityError):
            execute(
                database,
                "INSERT INTO batch_execution_metadata (batch_name, execution_id, status) "
                "VALUES ('b', 'r', 'DEAD')",
            )

    def test_a_partition_key_with_a_space_or_a_comma_is_refused(self, database: Database) -> None:
        insert = partial(
            execute,
            database,
            """INSERT INTO region (region_type, region_code, region_name, sido_name, sigungu_name,
                 parent_code, is_leaf,
                                   partition_key, source, as_of)
               VALUES ('sigungu', '1', 'x', 'x', 'x', '1', true, :key, 'api', '2026-10-08')""",
        )
        for key in ("1_a b", "1_a,b", "1_a\tb"):
            with pytest.raises(IntegrityError):
                insert(key=key)
        insert(key="1_a_b")

    @pytest.mark.parametrize(
        "table", ["batch_checkpoint", "batch_execution_metadata", "places", "api_budget"]
    )
    def test_every_update_moves_updated_at(self, database: Database, table: str) -> None:
        inserts = {
            "batch_checkpoint": (
                "(batch_name, region_type, region_code, region_name, updated_at) "
                "VALUES ('b', 's', '1', 'x', {})"
            ),
            "batch_execution_metadata": (
                "(batch_name, execution_id, updated_at) VALUES ('b', 'r', {})"
            ),
            "places": "(name, category, address, latitude, longitude, naver_place_id, updated_at) "
            "VALUES ('', '', '', 1, 1, '', {})",
            "api_budget": "(api, account, updated_at) VALUES ('a', 'b', {})",
        }
        execute(database, f"INSERT INTO {table} " + inserts[table].format("'2000-01-01'"))
        key = "account" if table == "api_budget" else "id"
        execute(database, f"UPDATE {table} SET {key} = {key}")
        assert read(
            database, f"SELECT updated_at > now() - interval '1 hour' AS moved FROM {table}"
        ) == [{"moved": True}]
