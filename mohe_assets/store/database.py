"""The connection to PostgreSQL: one engine per process, transactions that outlive a restart of the
server.

Knows no table; the modules beside it do.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self, TypeVar, cast

import psycopg2
from sqlalchemy import (
    Connection,
    Engine,
    PoolProxiedConnection,
    TextClause,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

from mohe_assets.errors import DatabaseUnavailable, NotPermitted
from mohe_assets.store.database_url import DatabaseUrl
from mohe_assets.store.sqlstate import (
    INSUFFICIENT_PRIVILEGE,
    READ_ONLY,
    first_line,
    sqlstate,
    trouble,
)

log = logging.getLogger(__name__)

# Time that a run waits for a database that restarts; a PostgreSQL restart takes seconds.
RECONNECT_SECONDS = 120.0
CONNECT_TIMEOUT_SECONDS = 5
# A vanished peer is noticed in about half a minute: by keep-alives on an idle connection, by
# tcp_user_timeout on a busy one, whose kernel would otherwise resend for a quarter of an hour.
LOSS_NOTICED = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# A statement is answered in milliseconds, or after `lock_timeout` at most. Only this notices a
# proxy that drops bytes and keeps the connection.
ANSWER_SECONDS = 60.0
# Read-only commands do not wait for locks or for a server that restarts: they report them.
PATIENCE = {"lock_timeout": "3s", "statement_timeout": "10s"}
# The same on the server's side: it frees the locks and connection of a vanished client.
_SESSION = {
    "timezone": "Asia/Seoul",
    "lock_timeout": "30s",
    # No transaction of ours pauses: one that does belongs to a frozen or vanished process and must
    # not keep its locks.
    "idle_in_transaction_session_timeout": "5s",
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}

# Time-outs lifted for a transaction whose time grows with the data; older servers lack the second.
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_NO_LIMITS = """
SELECT set_config(name, '0', true) FROM pg_settings
 WHERE name IN ('statement_timeout', 'transaction_timeout')
"""
_SETTINGS = (
    "SELECT set_config(name, value, true) "
    "FROM unnest(%(names)s, %(settings)s) AS wanted (name, value)"
)
_DEADLINES_SECONDS = 0.5
# Error text of PgBouncer and similar poolers for a connection with its own settings.
_NO_OPTIONS = "startup parameter"

_T = TypeVar("_T")

Transaction = Connection
"""The transaction that `work` runs in; other folders pass it on and do not use it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """A batch and the type of its regions: the rows that a collection owns."""

    batch_name: str
    region_type: str

    @property
    def values(self) -> dict[str, object]:
        """The parameters `:batch` and `:type` of a statement."""
        return {"batch": self.batch_name, "type": self.region_type}


class Refusal(Exception):
    """A function of ours, under `sql/`, refused: `code` is its SQLSTATE, `detail` names what is
    concerned.

    Nothing was written.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


_REFUSALS = "MH"  # how the SQLSTATEs of our own functions begin


def reconnecting(
    seconds: float = RECONNECT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    *,
    on_failure: Callable[[BaseException], object] = lambda _: None,
) -> Retrying:
    """Retry errors of the database, Dagster's included, for that long; then raise the last
    error.
    """

    def is_passing(error: BaseException) -> bool:
        found = trouble(error)
        return found is not None and found.passes

    def note(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            log.warning("database: %s; trying again", first_line(error))
            on_failure(error)

    return Retrying(
        retry=retry_if_exception(is_passing),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.2, max=5) + wait_random(0, 0.5),
        sleep=sleep,
        before_sleep=note,
        reraise=True,
    )


@dataclass(frozen=True)
class Database:
    """An engine, and the single way to run a transaction on it.

    `session` has the settings of every session. Behind a pooler that keeps none, each transaction
    sets them. A transaction longer than `answer_seconds` has lost its connection, and is repeated
    on another.
    """

    engine: Engine
    session: Mapping[str, str] = field(default_factory=lambda: _SESSION)
    reconnect_seconds: float = RECONNECT_SECONDS
    answer_seconds: float | None = None
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        pool_size: int = 5,
        application_name: str = "mohe",
        reconnect_seconds: float = RECONNECT_SECONDS,
        session: Mapping[str, str] | None = None,
    ) -> Self:
        """Open nothing yet; the first transaction does. `session` overrides session settings."""
        address = make_url(url).set(drivername="postgresql+psycopg2")
        wanted = {**_SESSION, **(session or {})}
        # The URL's own options come last and win, such as a search_path for tables outside public.
        options = [
            *(f"-c {name}={value}" for name, value in wanted.items()),
            str(address.query.get("options", "")),
        ]
        engine = create_engine(
            address,
            pool_size=pool_size,
            max_overflow=4,
            pool_timeout=RECONNECT_SECONDS,
            pool_recycle=1800,
            hide_parameters=True,  # an exception must not carry rows, nor what a row may hold
            json_serializer=lambda value: json.dumps(value, ensure_ascii=False),
            connect_args={
                "application_name": application_name,
                "client_encoding": "utf8",  # overrides environment and role
                **LOSS_NOTICED,
                "options": " ".join(options),
            },
        )
        event.listen(engine, "do_connect", _Connecting())
        wanted |= DatabaseUrl.parse(url).session_settings
        return cls(engine=engine, session=wanted, reconnect_seconds=reconnect_seconds)

    def transaction(
        self,
        work: Callable[[Connection], _T],
        *,
        autocommit: bool = False,
        unlimited: bool = False,
        snapshot: bool = False,
    ) -> _T:
        """Run `work` in one transaction, from its start again when the connection is lost.

        `autocommit` saves two round trips where `work` is a single statement; `unlimited` lifts the
        role's time-outs for work whose time grows with the data. With `snapshot`, `work` reads one
        moment and may not write.

        `work` must be safe to repeat: after a connection lost while committing the result is
        unknown. Raises DatabaseUnavailable after `reconnect_seconds`, NotPermitted at once.
        """
        return self._with_retry(
            lambda: self._once(work, autocommit=autocommit, unlimited=unlimited, snapshot=snapshot)
        )

    def _with_retry(self, attempt: Callable[[], _T]) -> _T:
        try:
            return reconnecting(self.reconnect_seconds, self.sleep, on_failure=self._leave_replica)(
                attempt
            )
        except (DBAPIError, psycopg2.Error, NoConnectionFree) as error:
            found = trouble(error)
            if found is None:
                raise
            reason, state = first_line(error), sqlstate(error)
        if state == INSUFFICIENT_PRIVILEGE:
            raise NotPermitted(
                f"The database {self.where} does not let this role do that: {reason}.", found.advice
            )
        raise DatabaseUnavailable(
            f"The database {self.where} cannot be used: {reason}.", found.advice
        )

    def _leave_replica(self, error: BaseException) -> None:
        """Connect again after a failover: the server of the pooled connections is no primary any
        more.
        """
        if sqlstate(error) == READ_ONLY:
            self.engine.dispose()

    def _once(
        self,
        work: Callable[[Connection], _T],
        *,
        autocommit: bool = False,
        unlimited: bool = False,
        snapshot: bool = False,
    ) -> _T:
        with self.engine.connect() as connection, self._answering(connection.connection):
            lacking = self._lacking(connection.connection.dbapi_connection)
            if autocommit and not lacking:
                with _autocommit(connection.connection):
                    return work(connection)
            with connection.begin():
                if snapshot:  # before any query of the transaction
                    connection.exec_driver_sql(_SNAPSHOT)
                if lacking:
                    connection.exec_driver_sql(_SETTINGS, lacking)
                if unlimited:
                    connection.exec_driver_sql(_NO_LIMITS)
                return work(connection)

    def _answering(self, borrowed: PoolProxiedConnection) -> AbstractContextManager[None]:
        if self.answer_seconds is None:
            return nullcontext()
        connection = cast("psycopg2.extensions.connection", borrowed.dbapi_connection)
        return _DEADLINES.within(connection.fileno(), self.answer_seconds)

    def _lacking(self, connection: object) -> dict[str, list[str]] | None:
        """Return the settings that the session lacks because a pooler kept them, or None.

        The server reports one of them with every connection, so the check costs nothing.
        """
        if (
            cast("psycopg2.extensions.connection", connection).get_parameter_status("TimeZone")
            == self.session["timezone"]
        ):
            return None
        # The rest is about the server's own connection, which is the pooler's.
        wanted = {
            name: value for name, value in self.session.items() if not name.startswith("tcp_")
        }
        return {"names": list(wanted), "settings": list(wanted.values())}

    def call(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        """Run one statement with `%(name)s` parameters in its own transaction; return its rows.

        For frequent statements: SQLAlchemy takes three times as long as the driver. The statement
        must be safe to repeat. Raises Refusal where it is a function of ours that refuses.
        """
        try:
            return self._straight(sql, values)
        except (psycopg2.Error, NoConnectionFree) as error:
            met = [error]

        def by_driver(connection: Connection) -> list[tuple[Any, ...]]:
            try:
                return [tuple(row) for row in connection.exec_driver_sql(sql, values)]
            except DBAPIError as error:
                _raise_refusal(error.orig)
                raise

        def again() -> list[tuple[Any, ...]]:
            if met:
                raise met.pop()
            # By SQLAlchemy, whose pool notices here that its other connections are gone, too.
            return self._once(by_driver, autocommit=True)

        return self._with_retry(again)

    def _straight(self, sql: str, values: dict[str, object]) -> list[tuple[Any, ...]]:
        try:
            borrowed = self.engine.raw_connection()
        except OperationalError as error:
            raise cast("psycopg2.Error", error.orig) from None
        with closing(borrowed), self._answering(borrowed), _autocommit(borrowed) as connection:
            try:
                with connection.cursor() as cursor:
                    if lacking := self._lacking(connection):
                        # Sent together, they are one transaction and one round trip.
                        settings = cursor.mogrify(_SETTINGS, lacking).decode().replace("%", "%%")
                        sql = f"{settings}; {sql}"
                    cursor.execute(sql, values)
                    return cursor.fetchall()
            except psycopg2.Error as error:
                if connection.closed:
                    borrowed.invalidate()
                _raise_refusal(error)
                raise

    def execute_alone(self, sql: str) -> None:
        """Run a statement that PostgreSQL refuses in a transaction, such as CREATE DATABASE."""

        def attempt() -> None:
            with self.engine.connect() as connection, _autocommit(connection.connection):
                connection.execute(text(sql))

        self._with_retry(attempt)

    def check(self) -> None:
        """Raise DatabaseUnavailable at once if the server cannot be reached or its encoding is not
        UTF8.
        """
        Database(engine=self.engine, reconnect_seconds=0).transaction(self._require_utf8)

    def wait(self) -> None:
        """As `check`, but wait for a server that restarts."""
        self.transaction(self._require_utf8)

    def _require_utf8(self, connection: Connection) -> None:
        encoding = connection.execute(
            text("SELECT current_setting('server_encoding')")
        ).scalar_one()
        if encoding != "UTF8":
            raise DatabaseUnavailable(
                f"The database {self.where} has the encoding {encoding}, and UTF8 is needed: "
                "names of places hold any character.",
                "Create a database with ENCODING 'UTF8' TEMPLATE template0 LOCALE 'C.UTF-8', "
                "restore a dump of this one into it, "
                "and name it in MOHE_DATABASE_URL.",
            )

    @property
    def where(self) -> str:
        """The URL for messages, without the password."""
        url = self.engine.url
        place = {name: value for name, value in url.query.items() if name in ("host", "port")}
        return url.set(drivername="postgresql", query=place).render_as_string(hide_password=True)

    def close(self) -> None:
        self.engine.dispose()


class _Deadlines:
    """Shut down the sockets of connections that are used longer than allowed.

    libpq waits as long as TCP trusts the peer, and a proxy keeps TCP content while it drops bytes.
    One thread per process, started with the first use.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[object, tuple[float, int]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(self, descriptor: int, seconds: float) -> Iterator[None]:
        key = object()
        with self._lock:
            self._used[key] = time.monotonic() + seconds, descriptor
            if self._thread is None or not self._thread.is_alive():  # a fork has no threads
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._used.pop(key, None)

    def _run(self) -> None:
        while True:
            time.sleep(_DEADLINES_SECONDS)
            with self._lock:  # held, so that no descriptor is closed and used again in between
                late = [key for key, (at, _) in self._used.items() if at < time.monotonic()]
                for key in late:
                    log.warning("database: a connection gives no answer and is given up")
                    descriptor = self._used.pop(key)[1]
                    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as shared:
                        shared.shutdown(socket.SHUT_RDWR)


_DEADLINES = _Deadlines()


class _Connecting:
    """Connect with the settings of the session, or without where a pooler refuses them."""

    def __init__(self) -> None:
        self._refused = False

    def __call__(
        self, _dialect: object, _record: object, _positional: object, parameters: dict[str, Any]
    ) -> object:
        if not self._refused:
            try:
                return psycopg2.connect(**parameters)
            except psycopg2.OperationalError as error:
                if _NO_OPTIONS not in str(error):
                    raise
        connected = psycopg2.connect(
            **{name: value for name, value in parameters.items() if name != "options"}
        )
        self._refused = True
        return connected


@contextmanager
def _autocommit(borrowed: PoolProxiedConnection) -> Iterator[psycopg2.extensions.connection]:
    """Use the driver's own switch: SQLAlchemy's isolation level AUTOCOMMIT sends two more
    statements.
    """
    connection = cast("psycopg2.extensions.connection", borrowed.dbapi_connection)
    connection.autocommit = True
    try:
        yield connection
    finally:
        if not connection.closed:
            connection.autocommit = False


def _raise_refusal(error: BaseException | None) -> None:
    code = getattr(error, "pgcode", None) or ""
    if code.startswith(_REFUSALS):
        detail = error.diag.message_detail if isinstance(error, psycopg2.Error) else None
        raise Refusal(code, detail or "") from None


@cache
def statement(sql: str) -> TextClause:
    """Return SQL with `:name` parameters, parsed once: parsing costs more than many statements."""
    return text(sql)


def rows(connection: Connection, sql: str, **values: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any SQL parameter
    """Return all rows of a statement as dictionaries."""
    return [dict(row) for row in connection.execute(statement(sql), values).mappings()]
