"""A database of the batch system is adopted whole or not at all, even with views and triggers on
its tables.
"""

import datetime as dt
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from mohe_assets.domain.places import place_key
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.packaged_files import packaged_file
from mohe_assets.postgres import schema
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.store.database import Database, rows
from mohe_assets_tests.support import legacy_database

KST = dt.timezone(dt.timedelta(hours=9))
VIEW = """
CREATE VIEW slow_regions WITH (security_barrier=true) AS
    SELECT region_name, end_time - start_time AS took, start_time FROM batch_checkpoint
    WHERE status = 'COMPLETED';
CREATE VIEW slowest_region AS SELECT * FROM slow_regions ORDER BY took DESC, region_name LIMIT 1;
COMMENT ON VIEW slow_regions IS 'for the dashboard';
GRANT SELECT ON slow_regions TO PUBLIC;
"""
PLACE: dict[str, Any] = {
    "name": "카페 <b>온도</b>",
    "address": "서울특별시 강남구 역삼동 1",
    "latitude": "37.49794620",
    "longitude": "127.02762450",
    "naver_place_id": "NAVER-1",
}


@pytest.fixture
def old(empty_database_url: str) -> Iterator[Database]:
    database = Database.connect(empty_database_url)
    legacy_database.in_database(database)
    yield database
    database.close()


def read(database: Database, sql: str, **values: Any) -> list[dict[str, Any]]:
    return database.transaction(lambda connection: rows(connection, sql, **values))


def execute(database: Database, sql: str) -> None:
    def work(connection: Connection) -> None:
        connection.exec_driver_sql(sql)

    database.transaction(work)


def kept(database: Database) -> list[dict[str, Any]]:
    """Every checkpoint as the batch system's own columns have it; its times are KST."""
    return read(
        database,
        """SELECT id, batch_name, region_type, region_code, region_name, parent_code, status,
             start_time::timestamp,
                  end_time::timestamp, coalesce(processed_count, 0) AS places, error_message,
                  created_at::timestamp,
                  updated_at::timestamp FROM batch_checkpoint ORDER BY id""",
    )


def column_types(database: Database) -> dict[tuple[str, str], tuple[str, str]]:
    found = read(
        database,
        """SELECT table_name, column_name, data_type || coalesce(character_maximum_length::text,
             '') AS type, is_nullable
             FROM information_schema.columns WHERE table_schema = current_schema()""",
    )
    return {
        (row["table_name"], row["column_name"]): (row["type"], row["is_nullable"]) for row in found
    }


def test_no_row_is_lost_and_what_failed_is_due_again(old: Database) -> None:
    before = kept(old)
    assert schema.migrate(old) == schema.head_revision()

    assert kept(old) == before
    assert read(
        old,
        "SELECT count(*) AS due FROM batch_checkpoint WHERE status = 'FAILED' "
        "AND retry_at <= now()",
    ) == [{"due": 5}]
    marks = {"plan": None, "promise": 0, "attempt": 0}
    assert read(old, "SELECT DISTINCT plan, promise, attempt FROM batch_checkpoint") == [marks]
    assert read(
        old,
        "SELECT execution_id, status, note, completed_regions FROM batch_execution_metadata "
        "ORDER BY id",
    ) == [
        {"execution_id": "17", "status": "COMPLETED", "note": None, "completed_regions": 40},
        {
            "execution_id": "18",
            "status": "RUNNING",
            "note": "the batch system called it STARTED",
            "completed_regions": 0,
        },
    ]
    assert schema.migrate(old) == schema.head_revision()
    assert kept(old) == before


def test_its_columns_become_as_wide_and_as_strict_as_ours(
    old: Database, database: Database
) -> None:
    schema.migrate(old)
    adopted, ours = column_types(old), column_types(database)
    # Places without coordinates are kept, too.
    loose = {("places", "latitude"), ("places", "longitude")}
    assert {key for key, kind in ours.items() if adopted[key] != kind} == loose
    assert read(old, "SELECT start_time FROM batch_checkpoint WHERE id = 1") == [
        {"start_time": legacy_database.STARTED.replace(tzinfo=KST)}
    ]
    values = (
        "(name, category, address, latitude, longitude, naver_place_id) "
        "VALUES ('', '', '', 1, 1, '')"
    )
    execute(old, f"INSERT INTO places {values}")


def test_psql_takes_the_files_over_it_twice_and_a_migration_finishes_what_they_began(
    old: Database, empty_database_url: str, postgres: EmbeddedServer
) -> None:
    before = kept(old)
    old.transaction(lambda connection: legacy_database.add_places(connection, [PLACE]))
    for file in 2 * sorted(packaged_file("sql").glob("[0-9]*.sql")):
        command = [
            str(postgres.psql()),
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-f",
            str(file),
            empty_database_url,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{file.name}: {done.stderr}"
    assert kept(old) == before
    assert schema.migrate(old) == schema.head_revision()
    assert read(old, "SELECT old_place_id FROM places") == [{"old_place_id": "NAVER-1"}]


def test_views_of_its_users_are_put_back_with_their_rights(old: Database) -> None:
    execute(old, VIEW)
    slowest = "SELECT region_name, took FROM slowest_region"
    about = """SELECT relname, relacl::text, reloptions, obj_description(oid, 'pg_class') AS comment
                 FROM pg_class
                WHERE relname IN ('slow_regions', 'slowest_region') ORDER BY 1"""
    before = read(old, slowest), read(old, about)
    schema.migrate(old)
    assert (read(old, slowest), read(old, about)) == before
    assert read(old, "SELECT pg_typeof(start_time)::text AS type FROM slow_regions LIMIT 1") == [
        {"type": "timestamp with time zone"}
    ]


def test_what_cannot_be_put_back_is_named_and_everything_stays_as_it_was(old: Database) -> None:
    execute(old, "CREATE MATERIALIZED VIEW done_regions AS SELECT end_time FROM batch_checkpoint")
    before = kept(old), column_types(old)
    with pytest.raises(
        DatabaseUnavailable, match="is as it was: done_regions reads a table of the batch system"
    ):
        schema.migrate(old)
    assert (kept(old), column_types(old)) == before
    assert schema.current_revision(old) is None


def test_tables_that_are_in_use_are_left_alone_and_the_sentence_says_so(
    old: Database, empty_database_url: str
) -> None:
    impatient = make_url(empty_database_url).update_query_dict(
        {"options": "-c lock_timeout=300ms"}, append=True
    )
    database = Database.connect(impatient.render_as_string(hide_password=False))
    holder = psycopg2.connect(empty_database_url)
    try:
        holder.cursor().execute("UPDATE batch_checkpoint SET status = status WHERE id = 1")
        with pytest.raises(DatabaseUnavailable, match="another program holds its tables locked"):
            schema.migrate(database)
        assert schema.current_revision(database) is None
    finally:
        holder.close()
        database.close()
    schema.migrate(old)


def test_a_place_keeps_its_row_and_gets_our_key_and_the_key_before_is_kept(old: Database) -> None:
    twice = [PLACE, PLACE | {"name": "카페 온도", "naver_place_id": None}]
    nowhere = PLACE | {"latitude": None, "longitude": None, "naver_place_id": None}
    old.transaction(lambda connection: legacy_database.add_places(connection, [*twice, nowhere]))
    execute(old, "INSERT INTO bookmarks (place_id) SELECT id FROM places")
    schema.migrate(old)

    found = read(
        old,
        "SELECT id, naver_place_id AS key, old_place_id, rating, website_url FROM places "
        "ORDER BY id",
    )
    first, second, third = [row["id"] for row in found]
    latitude, longitude = (
        read(old, "SELECT latitude, longitude FROM places WHERE id = :id", id=first)[0]
    ).values()
    assert [row["key"] for row in found] == [
        place_key("카페 온도", latitude, longitude),
        f"old-{second}",
        f"old-{third}",
    ]
    assert [row["old_place_id"] for row in found] == ["NAVER-1", None, None]
    assert {row["website_url"] for row in found} == {""}
    assert read(
        old, "SELECT DISTINCT first_seen_at, last_seen_at, created_at, updated_at FROM places"
    ) == [
        {
            name: dt.datetime(2025, 11, day, 2, tzinfo=KST)
            for name, day in (
                ("first_seen_at", 3),
                ("last_seen_at", 4),
                ("created_at", 3),
                ("updated_at", 4),
            )
        }
    ]
    assert read(old, "SELECT count(*) AS kept FROM bookmarks") == [{"kept": 3}]


def test_codes_of_ten_digits_become_those_of_the_regions(empty_database_url: str) -> None:
    database = Database.connect(empty_database_url)
    try:
        legacy_database.in_database(database, codes_of_ten_digits=True)
        schema.migrate(database)
        found = read(
            database,
            "SELECT region_code FROM batch_checkpoint WHERE status = 'COMPLETED' ORDER BY id",
        )
    finally:
        database.close()
    assert [row["region_code"] for row in found] == legacy_database.codes("COMPLETED")


def test_tables_in_another_schema_are_taken_over_where_they_are(empty_database_url: str) -> None:
    url = make_url(empty_database_url).update_query_dict(
        {"options": "-c search_path=batch"}, append=True
    )
    database = Database.connect(url.render_as_string(hide_password=False))
    public = Database.connect(empty_database_url)
    try:
        # Constraints of the same names beside it must not be taken for its own.
        schema.migrate(public)
        execute(database, "CREATE SCHEMA batch")
        legacy_database.in_database(database)
        schema.migrate(database)
        assert read(database, "SELECT count(*) AS rows FROM batch.batch_checkpoint") == [
            {"rows": 256}
        ]
        assert read(public, "SELECT count(*) AS rows FROM public.batch_checkpoint") == [{"rows": 0}]
        with pytest.raises(Exception, match="batch_checkpoint_status_known"):
            database.transaction(
                lambda connection: connection.execute(
                    text("UPDATE batch_checkpoint SET status = 'DONE'")
                )
            )
    finally:
        database.close()
        public.close()
