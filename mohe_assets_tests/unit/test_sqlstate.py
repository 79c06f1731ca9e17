"""The meaning of PostgreSQL's failures and the advice for them, alike in runs, commands and `mohe
doctor`.
"""

import psycopg2
import pytest
from psycopg2 import errorcodes, errors
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from mohe_assets.store.database import reconnecting
from mohe_assets.store.sqlstate import TROUBLES, Trouble, first_line, sqlstate, trouble


class Coded(psycopg2.DatabaseError):
    """An error with a code: the driver sets it itself, so that tests need a class of their own."""

    pgcode = ""


def coded(code: str) -> psycopg2.Error:
    error: psycopg2.Error = type("Coded", (Coded, errors.lookup(code)), {"pgcode": code})(
        "told by the server"
    )
    return error


def wrapped(original: Exception, *, invalidated: bool = False) -> DBAPIError:
    return DBAPIError("SELECT 1", None, original, connection_invalidated=invalidated)


PASSING = (
    "25006",
    "25P03",
    "40001",
    "40P01",
    "53100",
    "53200",
    "53300",
    "55P03",
    "57014",
    "57P01",
    "57P02",
    "57P03",
    "58030",
)
LASTING = ("28000", "28P01", "3D000", "42501")
OWN_FAULT = ("23505", "22021", "42P01", "54000")


@pytest.mark.parametrize("code", [*PASSING, *LASTING])
@pytest.mark.parametrize("wrap", [False, True])
def test_a_state_that_is_no_statements_fault_has_its_advice(code: str, *, wrap: bool) -> None:
    error = wrapped(coded(code)) if wrap else coded(code)
    found = trouble(error)
    assert found is not None
    assert found.passes == (code in PASSING)
    assert found.advice.endswith(".")
    assert first_line(error) == "told by the server"


def test_transaction_timeout_which_this_driver_does_not_know_passes_too() -> None:
    error = type("Unknown", (Coded, psycopg2.InternalError), {"pgcode": "25P04"})(
        "terminating connection"
    )
    assert trouble(error) is TROUBLES["25P04"]


@pytest.mark.parametrize("code", OWN_FAULT)
def test_a_statements_own_fault_is_none_of_the_servers(code: str) -> None:
    assert trouble(coded(code)) is None
    assert trouble(ValueError("nothing of a database")) is None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ('FATAL:  password authentication failed for user "me"', "28P01"),
        ("fe_sendauth: no password supplied", "28P01"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "28000"),
        ('FATAL:  role "me" does not exist', "28000"),
        ('FATAL:  database "mohe" does not exist', "3D000"),
        ("FATAL:  sorry, too many clients already", "53300"),
        (
            (
                "FATAL:  remaining connection slots are reserved for roles with the "
                "SUPERUSER attribute"
            ),
            "53300",
        ),
        ('FATAL:  too many connections for role "me"', "53300"),
        ("FATAL:  the database system is starting up", "57P03"),
        ("FATAL:  could not write init file: No space left on device", "53100"),
        ("session is read-only", "25006"),
        ("Connection refused", "08006"),
        ('could not translate host name "db" to address', "08006"),
    ],
)
def test_a_refused_connection_which_has_no_state_is_known_by_its_words(
    words: str, code: str
) -> None:
    error = psycopg2.OperationalError(
        f'connection to server at "10.0.0.1", port 5432 failed: {words}\n'
    )
    assert sqlstate(error) == code
    assert trouble(error) is (TROUBLES.get(code) or TROUBLES[code[:2]])


@pytest.mark.parametrize(
    "error",
    [
        psycopg2.InterfaceError("connection already closed"),
        psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message from the libpq"),
        wrapped(psycopg2.InternalError("lost"), invalidated=True),
        NoConnectionFree("QueuePool limit"),
    ],
)
def test_an_answer_that_was_cut_off_is_a_lost_connection(error: Exception) -> None:
    found = trouble(error)
    assert isinstance(found, Trouble)
    assert found.passes


def test_an_error_that_dagsters_storage_wraps_is_judged_by_its_cause() -> None:
    outer = RuntimeError("too many retries for DB connection")
    outer.__cause__ = wrapped(psycopg2.OperationalError("Connection refused"))
    assert trouble(outer) is TROUBLES["08"]
    assert first_line(outer) == "Connection refused"


def test_what_dagsters_storage_fails_with_is_tried_again_until_its_database_is_back() -> None:
    tries: list[float] = []

    def report() -> str:
        if len(tries) < 3:
            cause = wrapped(psycopg2.OperationalError("Connection refused"))
            raise RuntimeError("too many retries for DB connection") from cause
        return "reported"

    assert reconnecting(60, tries.append)(report) == "reported"
    assert len(tries) == 3


def test_an_error_that_no_waiting_cures_is_raised_at_once() -> None:
    with pytest.raises(ValueError, match="ours"):
        reconnecting(60)(lambda: (_ for _ in ()).throw(ValueError("ours")))


def test_every_state_is_one_that_postgresql_has() -> None:
    known = {value for name, value in vars(errorcodes).items() if name.isupper()} | {"25P04"}
    assert {state for state in TROUBLES if len(state) > 2} <= known
