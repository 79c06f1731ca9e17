"""The meaning of a failure of PostgreSQL: whether a retry may succeed, and what a person can do.

One table for runs, commands and `mohe doctor`. A failure that is not in it is the statement's own
fault.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

CONNECTION_LOST = "08006"
TOO_MANY_CONNECTIONS = "53300"
READ_ONLY = "25006"
NO_SUCH_DATABASE = "3D000"
INSUFFICIENT_PRIVILEGE = "42501"
# `mohe up` with four runs and all of their connections in use at once, see docs/cluster.md.
UP_CONNECTIONS = 76


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """A failure that is no statement's fault. `passes`: waiting may be enough."""

    advice: str
    passes: bool = True


_FULL = "The server's disk is full: make room. PostgreSQL needs no restart unless it has stopped."
# By SQLSTATE, or by its first two characters for the rest of a class.
TROUBLES = {
    "08": Trouble(
        advice="Check that the server runs, its log, and the host and port in MOHE_DATABASE_URL."
    ),
    READ_ONLY: Trouble(
        advice="The server is read-only: a replica, or a failover under way. Name the primary in "
        "MOHE_DATABASE_URL, or all hosts and target_session_attrs=read-write."
    ),
    "25P03": Trouble(
        advice="The server ended a transaction that paused: the network or this machine is slow."
    ),
    "25P04": Trouble(
        advice="transaction_timeout is too short for this: "
        "set it to 0 for this role with ALTER ROLE."
    ),
    "28": Trouble(
        advice="The server refuses this user: check the user in MOHE_DATABASE_URL and the server's "
        "pg_hba.conf.",
        passes=False,
    ),
    "28P01": Trouble(advice="Check the user and the password in MOHE_DATABASE_URL.", passes=False),
    NO_SUCH_DATABASE: Trouble(
        advice="Create the database, or correct its name in MOHE_DATABASE_URL.", passes=False
    ),
    "40": Trouble(
        advice="Transactions keep colliding: end other programs that write to the same tables."
    ),
    INSUFFICIENT_PRIVILEGE: Trouble(
        advice="Grant the rights: `mohe db migrate --roles` as the owner of the tables, "
        "see sql/roles.sql.",
        passes=False,
    ),
    "53": Trouble(advice="The server lacks memory or another resource: its log names it."),
    "53100": Trouble(advice=_FULL),
    TOO_MANY_CONNECTIONS: Trouble(
        advice="All connections of the server are in use: end some, or raise max_connections. "
        "`mohe up` "
        f"uses about 10 and at most {UP_CONNECTIONS}."
    ),
    "55006": Trouble(advice="Another program uses the object: pg_stat_activity shows it."),
    "55P03": Trouble(
        advice="Another program holds a lock on our tables: "
        "pg_stat_activity shows it; end it there."
    ),
    "57": Trouble(advice="The server ended the connection: its log names the reason."),
    "57014": Trouble(
        advice="A statement was cancelled: raise statement_timeout for this role with ALTER ROLE."
    ),
    "57P01": Trouble(advice="The server is being stopped or restarted: start it, or wait."),
    "57P02": Trouble(advice="The server crashed and recovers by itself: its log names the reason."),
    "57P03": Trouble(advice="The server is starting or stopping: wait, or read its log."),
    "58": Trouble(advice="The server cannot read or write its files: check its disk and its log."),
    "58030": Trouble(advice=_FULL),
}
_NO_POOLED_CONNECTION = Trouble(
    advice="All connections of this process wait for the server: check its load."
)
# A refused connection comes without its SQLSTATE. The words are those of servers that speak
# English.
_REFUSALS = (
    ("too many clients", TOO_MANY_CONNECTIONS),
    ("too many connections", TOO_MANY_CONNECTIONS),
    ("remaining connection slots", TOO_MANY_CONNECTIONS),
    ("no more connections allowed", TOO_MANY_CONNECTIONS),
    ("the database system is", "57P03"),
    ("No space left on device", "53100"),
    ("session is read-only", READ_ONLY),
    ("session is not read-only", READ_ONLY),
    ("server is in hot standby mode", READ_ONLY),
    ("permission denied for database", INSUFFICIENT_PRIVILEGE),
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("authentication failed", "28000"),
    ("no such user", "28000"),
    ('role "', "28000"),
    ("no such database", NO_SUCH_DATABASE),
)


def sqlstate(error: BaseException | None) -> str:
    """The SQLSTATE of a driver's error; CONNECTION_LOST for a lost connection, empty for none."""
    if isinstance(error, DBAPIError):
        return sqlstate(error.orig) or (CONNECTION_LOST if error.connection_invalidated else "")
    if not isinstance(error, psycopg2.Error) or error.pgcode:
        return getattr(error, "pgcode", None) or ""
    text = str(error)
    if 'database "' in text and "does not exist" in text:
        return NO_SUCH_DATABASE
    # An answer that was cut off in the middle has neither a class of its own nor a state.
    lost = (
        isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
        or type(error) is psycopg2.DatabaseError
    )
    return next(
        (state for words, state in _REFUSALS if words in text), CONNECTION_LOST if lost else ""
    )


def trouble(error: BaseException) -> Trouble | None:
    """Return the meaning of the failure; None where the statement is at fault or no database is
    concerned.
    """
    for one in _causes(error):
        if isinstance(one, NoConnectionFree):
            return _NO_POOLED_CONNECTION
        state = sqlstate(one)
        if state:
            return TROUBLES.get(state) or TROUBLES.get(state[:2])
    return None


def first_line(error: BaseException) -> str:
    """Return the server's message without a closing full stop."""
    coded = next((one for one in _causes(error) if sqlstate(one)), error)
    lines = str(getattr(coded, "orig", None) or coded).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no answer"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes: Dagster's storage wraps the driver's error after a few
    tries.
    """
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
