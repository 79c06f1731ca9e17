"""Faults of real servers: read-only after a failover, full, locked, in another encoding. Each is
one sentence.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, text

from mohe_assets.cli import recovery as asked
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.ops import doctor
from mohe_assets.postgres.databases import ensure_ready
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.settings import load
from mohe_assets.store.database import Database, rows
from mohe_assets.store.database_url import DatabaseUrl
from mohe_assets_tests.support.commands import Mohe
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.stores import Store


def alone(admin: Database, sql: str) -> None:
    admin.transaction(lambda connection: connection.execute(text(sql)), autocommit=True)


def named(url: str) -> str:
    return DatabaseUrl.parse(url).database


def set_for(admin: Database, url: str, setting: str, value: str) -> None:
    """As an administrator does for a database: sessions that begin later have it."""
    alone(admin, f"ALTER DATABASE {named(url)} SET {setting} = {value}")


@pytest.fixture
def role(admin: Database) -> Iterator[str]:
    """A role that may have one connection."""
    name = f"one_{uuid.uuid4().hex[:8]}"
    alone(admin, f"CREATE ROLE {name} LOGIN SUPERUSER")
    yield name
    alone(admin, f"DROP ROLE {name}")


@pytest.fixture
def findings(mohe: Mohe) -> Any:
    def run(**changes: str) -> dict[str, dict[str, str]]:
        done = mohe("doctor", "--json", **changes)
        assert done.err == ""
        return {one["check"]: one for one in json.loads(done.out)}

    return run


@pytest.mark.parametrize("encoding", ["EUC_KR", "LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_character_is_refused_before_anything_starts(
    mohe: Mohe, admin: Database, postgres: EmbeddedServer, encoding: str
) -> None:
    name = f"test_{uuid.uuid4().hex[:12]}"
    alone(
        admin,
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE "
        "template0",
    )
    try:
        for command in (("db", "migrate"), ("status",), ("retry",)):
            done = mohe(*command, MOHE_DATABASE_URL=postgres.url(name))
            assert done.status == 1
            assert f"has the encoding {encoding}, and UTF8 is needed" in done.err
            assert "ENCODING 'UTF8'" in done.err
            assert done.err.count("\n") == 1
    finally:
        alone(admin, f"DROP DATABASE {name} WITH (FORCE)")


def test_dagsters_database_is_made_with_utf8_whatever_the_servers_default_is(
    admin: Database, postgres: EmbeddedServer, environment: Environment
) -> None:
    name = f"test_{uuid.uuid4().hex[:12]}"
    ensure_ready(load({**environment, "MOHE_DAGSTER_DATABASE_URL": postgres.url(name)}))
    made = Database.connect(postgres.url(name), session={"timezone": "UTC"})
    sql = "SELECT current_setting('server_encoding') AS encoding, datcollate, setting"
    sql += " FROM pg_database, pg_settings WHERE datname = current_database() AND name = 'TimeZone'"
    try:
        found = made.transaction(lambda connection: rows(connection, sql))[0]
        assert found == {"encoding": "UTF8", "datcollate": "C", "setting": "UTC"}
    finally:
        made.close()
        alone(admin, f"DROP DATABASE {name} WITH (FORCE)")


def test_a_server_that_is_read_only_is_left_for_the_new_primary(
    admin: Database, store: Store, database_url: str
) -> None:
    del store
    set_for(admin, database_url, "default_transaction_read_only", "on")
    tries: list[bool] = []

    def promoted(_: float) -> None:
        set_for(admin, database_url, "default_transaction_read_only", "off")

    def work(connection: Connection) -> str:
        tries.append(
            rows(connection, "SHOW transaction_read_only")[0]["transaction_read_only"] == "on"
        )
        connection.execute(text("UPDATE batch_checkpoint SET error_message = 'written'"))
        return "written"

    database = replace(Database.connect(database_url), sleep=promoted)
    assert database.transaction(work) == "written"
    assert tries == [True, False], "the pool's connections to the old primary are given up"
    database.close()


def test_commands_say_that_a_replica_is_read_only(
    mohe: Mohe,
    findings: Any,
    admin: Database,
    store: Store,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del store
    monkeypatch.setattr(asked, "COMMAND_SECONDS", 0.0)
    set_for(admin, database_url, "default_transaction_read_only", "on")
    done = mohe("retry")
    assert done.status == 1
    assert "cannot execute UPDATE in a read-only transaction" in done.err
    assert "target_session_attrs=read-write" in done.err
    found = findings()["database"]
    assert found["level"] == "error"
    assert "read-only" in found["found"]
    assert "primary" in found["advice"]


def test_a_role_without_a_free_connection_is_told_how_many_are_needed(
    mohe: Mohe, findings: Any, admin: Database, database_url: str, role: str
) -> None:
    alone(admin, f"ALTER ROLE {role} NOSUPERUSER CONNECTION LIMIT 1")
    url = str(replace(DatabaseUrl.parse(database_url), user=role))
    holding = Database.connect(url)
    with holding.engine.connect():
        refused = mohe("status", MOHE_DATABASE_URL=url)
        found = findings(MOHE_DATABASE_URL=url)["database"]
    holding.close()
    assert refused.status == 1
    assert "too many connections for role" in refused.err
    for said in (refused.err, found["advice"]):
        assert "raise max_connections" in said
        assert "at most 76" in said
        assert "password" not in said


def test_doctor_ends_in_seconds_where_a_table_is_locked(
    findings: Any, store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    del store
    monkeypatch.setattr(doctor, "PATIENCE", {"lock_timeout": "200ms"})
    with database.engine.begin() as connection:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text("LOCK TABLE batch_checkpoint IN ACCESS EXCLUSIVE MODE"))
        found = findings()
    assert any("holds a lock on our tables" in one["advice"] for one in found.values()), found


@pytest.mark.parametrize("setting", ["statement_timeout", "transaction_timeout"])
def test_what_takes_as_long_as_the_data_is_large_is_freed_from_time_outs(
    admin: Database, database_url: str, setting: str
) -> None:
    known = admin.transaction(
        lambda connection: rows(connection, f"SELECT FROM pg_settings WHERE name = '{setting}'")
    )
    if not known:
        pytest.skip(f"this server has no {setting}")
    set_for(admin, database_url, setting, "'400ms'")
    database = replace(Database.connect(database_url), reconnect_seconds=0)

    def work(connection: Connection) -> str:
        for _ in range(2):
            connection.execute(text("SELECT pg_sleep(0.5)"))
        return "done"

    with pytest.raises(
        DatabaseUnavailable, match=r"statement timeout.* with ALTER ROLE|closed the connection"
    ):
        database.transaction(work)
    assert database.transaction(work, unlimited=True) == "done"
    database.close()


@pytest.mark.parametrize("where", ["statvfs", "inodes"])
def test_a_full_disk_is_a_finding(
    findings: Any, store: Store, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    del store
    there = os.statvfs("/")

    class Full:
        f_files, f_favail = there.f_files or 1, 3

    def look(_: object) -> Full:
        if where == "statvfs":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return Full()

    monkeypatch.setattr(os, "statvfs", look)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**12}))
    found = findings()["MOHE_HOME"]
    assert found["level"] == "error"
    assert ("No space left" if where == "statvfs" else "3 more files") in found["found"]


class Swallowing:
    """A proxy before the server that can drop all bytes of its connections and closes none."""

    def __init__(self, server: str) -> None:
        self.swallows = False
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self.swallows:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@pytest.mark.parametrize("how", ["call", "transact"])
def test_a_connection_whose_bytes_are_swallowed_is_given_up_and_the_work_is_done_by_another(
    postgres: EmbeddedServer, database_url: str, how: str
) -> None:
    proxy = Swallowing(f"{postgres.socket_folder}/.s.PGSQL.5432")
    there = DatabaseUrl.parse(database_url)
    url = f"postgresql://{there.user}@127.0.0.1:{proxy.port}/{there.database}?connect_timeout=2"
    database = replace(Database.connect(url), answer_seconds=1.5)

    def ask() -> object:
        if how == "call":
            return database.call("SELECT 1")
        return [
            tuple(row) for row in database.transaction(lambda c: c.execute(text("SELECT 1")).all())
        ]

    assert ask() == [(1,)]
    proxy.swallows = True
    healed = threading.Timer(1.0, lambda: setattr(proxy, "swallows", False))
    healed.start()
    began = time.monotonic()
    assert ask() == [(1,)]
    assert 1.0 < time.monotonic() - began < 30
    healed.join()
    database.close()
    proxy.close()
