"""The connection to PostgreSQL: one engine per process, transactions that outlive a restart of the
server.

Knows no table; the modules beside it do.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Self, TypeVar, cast

import psycopg2
from sqlalchemy import Connection, Engine, PoolProxiedConnection, TextClause, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
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

log = logging.getLogger(__name__)

# How long a run waits for a database that restarts before it gives up. A PostgreSQL restart takes
# seconds.
RECONNECT_SECONDS = 120.0
CONNECT_TIMEOUT_SECONDS = 5
_INSUFFICIENT_PRIVILEGE = "42501"
# A peer that vanished without a word is noticed in about half a minute. Keep-alives do that for a
# connection at rest; one with a statement on its way, or an answer, has to be told separately, or
# its kernel sends again for a quarter of an hour.
LOSS_NOTICED = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# The same from the server's side: what a vanished client held is given back, its connection
# included.
_SESSION = {
    "timezone": "Asia/Seoul",
    "lock_timeout": "30s",
    # No transaction of ours pauses: one that does belongs to a frozen or vanished process, and must
    # not keep its locks.
    "idle_in_transaction_session_timeout": "5s",
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}

_T = TypeVar("_T")


class Refusal(Exception):
    """A function of ours, under `sql/`, refused: `code` is the SQLSTATE it raised, `detail` what it
    said is concerned.

    Nothing was written.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


_REFUSALS = "MH"  # how the SQLSTATEs of our own functions begin


def _is_passing(error: BaseException) -> bool:
    """Connection lost, server starting or stopping, deadlock: the same transaction may succeed on
    another try.
    """
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _passes(error.orig)
    return _passes(error)


def _passes(error: BaseException | None) -> bool:
    return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError | NoConnectionFree)


def reconnecting(
    seconds: float = RECONNECT_SECONDS, sleep: Callable[[float], None] = time.sleep
) -> Retrying:
    """Calls again what fails for want of a connection, for so long; then its last error is raised."""
    return Retrying(
        retry=retry_if_exception(_is_passing),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.2, max=5) + wait_random(0, 0.5),
        sleep=sleep,
        before_sleep=_say,
        reraise=True,
    )


@dataclass(frozen=True)
class Database:
    """An engine, and the one way to run a transaction on it."""

    engine: Engine
    reconnect_seconds: float = RECONNECT_SECONDS
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def connect(cls, url: str, *, pool_size: int = 5, application_name: str = "mohe") -> Self:
        """Nothing is opened yet; the first transaction does."""
        address = make_url(url).set(drivername="postgresql+psycopg2")
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
                **LOSS_NOTICED,
                # The URL's own options come last and win; a search_path is among them where the
                # tables are not in public.
                "options": " ".join(
                    [
                        *(f"-c {name}={value}" for name, value in _SESSION.items()),
                        str(address.query.get("options", "")),
                    ]
                ),
            },
        )
        return cls(engine=engine)

    def transaction(self, work: Callable[[Connection], _T], *, autocommit: bool = False) -> _T:
        """Runs `work` in one transaction, again from its start when the connection is lost.

        `autocommit` saves two round trips where `work` is a single statement.

        `work` must be safe to repeat: a connection lost while committing leaves unknown whether it
        was. Raises DatabaseUnavailable after `reconnect_seconds`, NotPermitted at once.
        """
        return self._with_retry(lambda: self._once(work, autocommit=autocommit))

    def _with_retry(self, attempt: Callable[[], _T]) -> _T:
        try:
            return reconnecting(self.reconnect_seconds, self.sleep)(attempt)
        except (OperationalError, psycopg2.OperationalError, NoConnectionFree) as error:
            reason = str(getattr(error, "orig", error) or "no connection").strip().splitlines()[0]
            unusable = DatabaseUnavailable(
                f"The database {self.where} cannot be used: {reason.rstrip('.')}."
            )
        except (ProgrammingError, psycopg2.ProgrammingError) as error:
            cause = getattr(error, "orig", error)
            if getattr(cause, "pgcode", None) != _INSUFFICIENT_PRIVILEGE:
                raise
            reason = str(cause).strip().splitlines()[0]
            unusable = NotPermitted(
                f"The database {self.where} does not let this role do that: {reason}."
            )
        raise unusable

    def _once(self, work: Callable[[Connection], _T], *, autocommit: bool) -> _T:
        if not autocommit:
            with self.engine.begin() as connection:
                return work(connection)
        with self.engine.connect() as connection, _autocommit(connection.connection):
            return work(connection)

    def call(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        """Runs one statement with `%(name)s` parameters in a transaction of its own; returns its
        rows.

        For what is done thousands of times: past SQLAlchemy, which takes three times as long as the
        driver. It has to be safe to repeat, as the work of `transact`. Raises Refusal where the
        statement is a function of ours that refuses.
        """
        try:
            return self._straight(sql, values)
        except (psycopg2.Error, NoConnectionFree) as error:
            met = [error]

        def again() -> list[tuple[Any, ...]]:
            if met:
                raise met.pop()
            # By SQLAlchemy, whose pool finds out here that its other connections are gone as well.
            return self._once(
                lambda connection: _by_driver(connection, sql, values), autocommit=True
            )

        return self._with_retry(again)

    def _straight(self, sql: str, values: dict[str, object]) -> list[tuple[Any, ...]]:
        try:
            borrowed = self.engine.raw_connection()
        except OperationalError as error:
            raise cast("psycopg2.Error", error.orig) from None
        with closing(borrowed), _autocommit(borrowed) as connection:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(sql, values)
                    return cursor.fetchall()
            except psycopg2.Error as error:
                if connection.closed:
                    borrowed.invalidate()
                _raise_refusal(error)
                raise

    def check(self) -> None:
        """Raises DatabaseUnavailable at once if the server cannot be reached."""
        Database(engine=self.engine, reconnect_seconds=0).transaction(
            lambda connection: connection.execute(text("SELECT 1"))
        )

    @property
    def where(self) -> str:
        """The URL for a person, without the password, which may be among its options, too."""
        url = self.engine.url
        place = {name: value for name, value in url.query.items() if name in ("host", "port")}
        return url.set(drivername="postgresql", query=place).render_as_string(hide_password=True)

    def close(self) -> None:
        self.engine.dispose()


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
    log.warning("database: %s; trying again", reason)


@contextmanager
def _autocommit(borrowed: PoolProxiedConnection) -> Iterator[psycopg2.extensions.connection]:
    """The driver's own switch: SQLAlchemy's isolation level AUTOCOMMIT sends two statements more
    with each use.
    """
    connection = cast("psycopg2.extensions.connection", borrowed.dbapi_connection)
    connection.autocommit = True
    try:
        yield connection
    finally:
        if not connection.closed:
            connection.autocommit = False


def _by_driver(
    connection: Connection, sql: str, values: dict[str, object]
) -> list[tuple[Any, ...]]:
    try:
        return [tuple(row) for row in connection.exec_driver_sql(sql, values)]
    except DBAPIError as error:
        _raise_refusal(error.orig)
        raise


def _raise_refusal(error: BaseException | None) -> None:
    code = getattr(error, "pgcode", None) or ""
    if code.startswith(_REFUSALS):
        detail = error.diag.message_detail if isinstance(error, psycopg2.Error) else None
        raise Refusal(code, detail or "") from None


@cache
def statement(sql: str) -> TextClause:
    """The SQL with `:name` parameters, parsed once: to do that costs more than many a statement
    takes to run.
    """
    return text(sql)


def rows(connection: Connection, sql: str, **values: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - whatever SQL takes
    """All rows of one statement as dictionaries."""
    return [dict(row) for row in connection.execute(statement(sql), values).mappings()]
