"""Transactions outlive what happens to their connection, and give up with a sentence that shows no
password.
"""

import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import pytest
from dagster_postgres.run_storage import PostgresRunStorage
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError

from mohe_assets import settings as settings_module
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.postgres.embedded import DATA_DATABASE, SUPERUSER, EmbeddedServer
from mohe_assets.store.database import LOSS_NOTICED, Database, Refusal, rows
from mohe_assets.store.database_url import DatabaseUrl

END_ME = "SELECT pg_terminate_backend(pg_backend_pid())"
END_THE_OTHERS = """
SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def execute(database: Database, sql: str) -> None:
    def work(connection: Connection) -> None:
        connection.execute(text(sql))

    database.transaction(work)


def count(database: Database) -> int:
    return int(
        database.transaction(
            lambda connection: rows(connection, "SELECT count(*) AS n FROM written")
        )[0]["n"]
    )


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    """A database with one table, and no patience to wait for."""
    connected = Database.connect(empty_database_url)
    database = Database(engine=connected.engine, sleep=lambda _: None)
    execute(database, "CREATE TABLE written (n integer)")
    yield database
    database.close()


def test_a_transaction_whose_connection_is_cut_runs_again_from_its_start(empty: Database) -> None:
    tries: list[int] = []

    def work(connection: Connection) -> str:
        tries.append(len(tries))
        connection.execute(text("INSERT INTO written VALUES (1)"))
        if len(tries) < 3:
            connection.execute(text(END_ME))
        return "done"

    assert empty.transaction(work) == "done"
    assert len(tries) == 3
    assert count(empty) == 1


def test_connections_cut_while_they_were_idle_are_not_noticed(
    empty: Database, empty_database_url: str
) -> None:
    other = Database.connect(empty_database_url)
    execute(other, "INSERT INTO written VALUES (1)")
    execute(empty, END_THE_OTHERS)
    assert count(other) == 1
    other.close()


def test_a_call_whose_connection_is_cut_runs_again(
    empty: Database, empty_database_url: str
) -> None:
    other = Database.connect(empty_database_url)
    sql = "INSERT INTO written VALUES (%(n)s) RETURNING n"
    assert [other.call(sql, n=1), other.call(sql, n=2)] == [[(1,)], [(2,)]]
    execute(empty, END_THE_OTHERS)
    assert other.call(sql, n=3) == [(3,)]
    assert count(empty) == 3
    other.close()


@pytest.mark.parametrize("cut", [False, True])
def test_a_function_that_refuses_is_told_apart_from_trouble(
    empty: Database, empty_database_url: str, *, cut: bool
) -> None:
    raising = "RAISE EXCEPTION USING ERRCODE = 'MH999', DETAIL = 'a,b'"
    execute(
        empty,
        f"""CREATE FUNCTION refuse() RETURNS integer LANGUAGE plpgsql
                       AS $$ BEGIN INSERT INTO written VALUES (1); {raising}; END $$""",
    )
    other = Database.connect(empty_database_url)
    other.check()
    if cut:
        execute(empty, END_THE_OTHERS)
    with pytest.raises(Refusal) as caught:
        other.call("SELECT refuse()")
    assert (caught.value.code, caught.value.detail, count(empty)) == ("MH999", "a,b", 0)
    other.close()


def test_a_call_to_a_server_that_is_not_there_is_given_up_on() -> None:
    connected = Database.connect("postgresql://someone:recognisable-secret@127.0.0.1:1/mohe")
    with pytest.raises(DatabaseUnavailable) as caught:
        Database(engine=connected.engine, reconnect_seconds=0).call("SELECT 1")
    assert "recognisable-secret" not in str(caught.value)


@pytest.mark.parametrize("autocommit", [True, False])
def test_an_error_of_our_own_is_raised_at_once_and_rolls_back(
    empty: Database, *, autocommit: bool
) -> None:
    tries: list[int] = []

    def work(connection: Connection) -> None:
        tries.append(1)
        connection.execute(text("INSERT INTO written VALUES (1)"))
        connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(ProgrammingError):
        empty.transaction(work, autocommit=autocommit)
    assert len(tries) == 1
    assert count(empty) == int(autocommit)


def test_two_transactions_that_lock_each_other_out_both_get_through(
    empty_database_url: str,
) -> None:
    database = Database.connect(empty_database_url)
    execute(database, "CREATE TABLE written AS SELECT n, 0 AS hits FROM generate_series(1, 2) n")
    both_hold_one = threading.Barrier(2, timeout=30)

    def lock(first: int, second: int) -> None:
        tries: list[int] = []

        def work(connection: Connection) -> None:
            tries.append(1)
            connection.execute(
                text("UPDATE written SET hits = hits + 1 WHERE n = :n"), {"n": first}
            )
            if len(tries) == 1:
                both_hold_one.wait()
            connection.execute(
                text("UPDATE written SET hits = hits + 1 WHERE n = :n"), {"n": second}
            )

        database.transaction(work)

    threads = [threading.Thread(target=lock, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = database.transaction(lambda connection: rows(connection, "SELECT hits FROM written"))
    assert [row["hits"] for row in found] == [2, 2]
    database.close()


@pytest.mark.parametrize(
    ("url", "patience"),
    [
        ("postgresql://someone:recognisable-secret@127.0.0.1:1/mohe", 0.0),
        ("postgresql://someone:recognisable-secret@127.0.0.1:1/mohe", 0.5),
        ("postgresql:///mohe?host=127.0.0.1&port=1&user=someone&password=recognisable-secret", 0.0),
    ],
)
def test_a_server_that_is_not_there_is_given_up_on_without_showing_the_password(
    url: str, patience: float
) -> None:
    connected = Database.connect(url)
    with pytest.raises(DatabaseUnavailable) as caught:
        Database(engine=connected.engine, reconnect_seconds=patience).transaction(lambda _: None)
    sentence = str(caught.value)
    assert "recognisable-secret" not in sentence
    assert "127.0.0.1" in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_statement_that_fails_does_not_show_the_values_it_was_given(empty: Database) -> None:
    execute(empty, "ALTER TABLE written ADD CONSTRAINT small CHECK (n < 10)")
    with pytest.raises(IntegrityError) as caught:
        empty.transaction(
            lambda c: c.execute(text("INSERT INTO written VALUES (:n)"), {"n": 424_242})
        )
    assert "parameters hidden" in str(caught.value)


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """A server of this test's own, to be stopped and killed."""
    home = Path(mkdtemp(prefix="mohe-restart-"))
    home.chmod(0o755)
    server = EmbeddedServer(home=home)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(home)


def test_transactions_wait_for_a_server_that_restarts_or_crashed(
    own_server: EmbeddedServer,
) -> None:
    database = Database.connect(own_server.url())
    execute(database, "CREATE TABLE written (n integer PRIMARY KEY)")
    own_server.stop()
    restart = threading.Timer(0.3, own_server.start)
    restart.start()
    execute(database, "INSERT INTO written VALUES (1)")
    restart.join()

    postmaster = int((own_server.data / "postmaster.pid").read_text(encoding="ascii").split()[0])
    tries: list[int] = []

    def work(connection: Connection) -> None:
        tries.append(1)
        # Safe to repeat, as `transact` demands: the commit may have come through before the crash.
        connection.execute(text("INSERT INTO written VALUES (2) ON CONFLICT DO NOTHING"))
        if len(tries) == 1:
            os.kill(
                postmaster, signal.SIGQUIT
            )  # immediate shutdown: what a crash looks like to its clients

    again = threading.Timer(1.0, own_server.start)
    again.start()
    database.transaction(work)
    again.join()
    assert count(database) == 2
    database.close()


def test_a_vanished_client_is_noticed_by_the_server_too(own_server: EmbeddedServer) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-k '{own_server.socket_folder}' -h 127.0.0.1 -p {port}"
    assert own_server._pg_ctl("-w", "-o", options, "restart").returncode == 0
    database = Database.connect(f"postgresql://{SUPERUSER}@127.0.0.1:{port}/{DATA_DATABASE}")
    names = (
        "tcp_keepalives_idle",
        "tcp_keepalives_interval",
        "tcp_keepalives_count",
        "tcp_user_timeout",
    )
    sql = "SELECT name, setting FROM pg_settings WHERE name = ANY(:names)"
    found = database.transaction(lambda connection: rows(connection, sql, names=list(names)))
    # As the kernel has them, in seconds, times, and milliseconds.
    assert {row["name"]: int(row["setting"]) for row in found} == dict(
        zip(names, (10, 5, 3, 20_000), strict=True)
    )
    database.close()


@pytest.mark.parametrize(
    ("named", "dagsters", "kept"),
    [
        (
            "postgresql://me:p%40ss@db.example:5432/mohe_db",
            "postgresql://me:p%40ss@db.example:5432/dagster",
            {},
        ),
        (
            "postgresql://me@h1:1,h2:2/mohe_db?options=-c search_path=app",
            "postgresql://me@/dagster",
            {"host": "h1,h2", "port": "1,2"},
        ),
    ],
)
def test_dagsters_connections_notice_loss_as_ours_do_once_and_for_all(
    tmp_path: Path, named: str, dagsters: str, kept: dict[str, str]
) -> None:
    def dagster_url(**variables: str) -> str:
        return resolve_urls(
            settings_module.load(
                {"MOHE_HOME": str(tmp_path), "MOHE_DATABASE_URL": named, **variables}
            )
        ).dagster

    url = dagster_url()
    assert url.partition("?")[0] == dagsters.partition("?")[0]
    assert make_url(url).query == {
        **{name: str(value) for name, value in LOSS_NOTICED.items()},
        **kept,
    }
    assert dagster_url(MOHE_DAGSTER_DATABASE_URL=url) == url
    other = (
        make_url(url)
        .update_query_dict({"tcp_user_timeout": "1000"})
        .render_as_string(hide_password=False)
    )
    assert make_url(dagster_url(MOHE_DAGSTER_DATABASE_URL=other)) == make_url(other), (
        "what a person wrote is theirs"
    )
    socket_url = "postgresql://me@/dagster?host=/run/postgresql"
    assert dagster_url(MOHE_DAGSTER_DATABASE_URL=socket_url) == socket_url


def test_both_databases_are_reached_by_a_url_with_several_hosts_and_every_common_parameter(
    empty_database_url: str, tmp_path: Path
) -> None:
    there = DatabaseUrl.parse(empty_database_url)
    url = (
        f"postgres://{there.user}:p@s/s%25@/{there.database}?host={tmp_path},{there.hosts[0]}&"
        "ssl=true&sslmode=prefer"
        "&target_session_attrs=read-write&connect_timeout=5&options=-c search_path=app,public"
    )
    named = {"MOHE_HOME": str(tmp_path), "MOHE_DATABASE_URL": url}
    urls = resolve_urls(settings_module.load(named))
    admin = Database.connect(urls.data)
    execute(admin, "CREATE SCHEMA app")
    assert (
        admin.transaction(lambda c: rows(c, "SELECT current_schema() AS name"))[0]["name"] == "app"
    )
    admin.close()
    assert "search_path" not in urls.dagster
    dagster = DatabaseUrl.parse(urls.dagster)
    assert dagster.database == "dagster"
    storage = PostgresRunStorage(str(replace(dagster, database=there.database)))
    assert storage.get_runs() == []
    storage.dispose()
