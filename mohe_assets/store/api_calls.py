"""The statements of the shared budget: a call is reserved or given back, and what the server said
of one is noted. They block.

The rules are slow_down in sql/004_api_budget.sql and reserve_calls in sql/008_every_search.sql;
when a call is sent that was reserved: store/api_budget.py.
"""

import datetime as dt
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from mohe_assets.errors import ApiBlocked, QuotaExhausted
from mohe_assets.store.api_state import ApiAccount
from mohe_assets.store.database import Database, statement

# Slots are spaced for 98.5 % of the limit: the server's second and ours differ by the jitter of the
# network and of both hosts, and what is late by more than the 15 ms this leaves in a second is
# refused.
HEADROOM = 0.985
# A probe whose process died is given up after this long; longer than an HTTP call may take.
PROBE_SECONDS = 30.0
# A turn that comes later than this is a limit that is not far.
BINDING_WAIT_SECONDS = 0.01

RESERVED = ("verdict", "wait_seconds", "until", "why", "probe", "calls", "gap", "day")
RESERVE = f"""
SELECT {", ".join(RESERVED)}
  FROM reserve_calls(%(api)s, %(account)s, %(credentials)s, %(calls_per_second)s, %(daily_quota)s, %(monthly_quota)s,
                     %(probe_seconds)s, %(calls)s)
"""
RELEASE_RESERVED = """
UPDATE api_usage SET reserved = greatest(0, reserved - :unsent) WHERE api = :api AND account = :account AND day = :day
"""
PROVE = """
UPDATE api_budget SET proven = :credentials, probing_since = NULL, exhausted_until = NULL, exhausted_why = NULL
 WHERE api = :api AND account = :account
"""
DROP_PROBE = "UPDATE api_budget SET probing_since = NULL WHERE api = :api AND account = :account"
SLOW_DOWN = "SELECT slow_down(:api, :account)"
EXHAUST = """
WITH counted AS (
    UPDATE api_usage SET refused_quota = refused_quota + 1
     WHERE api = :api AND account = :account AND day = budget_day(budget_clock())
)
UPDATE api_budget
   SET exhausted_until = greatest(budget_clock() + interval '1 minute', exhausted_until,
                                  coalesce(CAST(:until AS timestamptz), budget_midnight(budget_day(budget_clock()) + 1))),
       exhausted_why = :why, probing_since = NULL
 WHERE api = :api AND account = :account
"""
BLOCK = """
UPDATE api_budget SET blocked = :credentials, blocked_at = budget_clock(), blocked_why = :why, probing_since = NULL, proven = NULL
 WHERE api = :api AND account = :account
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """A reserved call: when it may be sent, on the monotonic clock, and whose day it counts for.

    `gap` is how many seconds the rate has between two calls; `is_far` says that calls did not have
    to wait for their turn.
    """

    at: float
    day: dt.date
    probe: bool
    gap: float
    unthrottled: bool


@dataclass(frozen=True, kw_only=True)
class ApiCalls:
    """The calls of one account."""

    database: Database
    account: ApiAccount

    def reserve(self, calls: int) -> list[Slot]:
        """At most as many as asked for; none while somebody's probe is out. Raises QuotaExhausted
        and ApiBlocked.
        """
        row = self.reserve_row(calls)
        match row["verdict"]:
            case "GO":
                # From now on: the time spent in the queue for the row's lock lies before the
                # server's reading of the clock.
                first = time.monotonic() + row["wait_seconds"]
                gap, unthrottled = row["gap"], row["wait_seconds"] <= BINDING_WAIT_SECONDS
                slots = [first + number * gap for number in range(row["calls"])]
                return [
                    Slot(
                        at=slot,
                        day=row["day"],
                        probe=row["probe"],
                        gap=gap,
                        unthrottled=unthrottled,
                    )
                    for slot in slots
                ]
            case "EXHAUSTED":
                raise self.exhausted(row["until"], row["why"])
            case "BLOCKED":
                raise self.blocked(row["why"])
        return []

    def reserve_row(self, calls: int = 1) -> dict[str, Any]:
        """What reserve_calls says."""
        values = {
            **self.account.key,
            "calls_per_second": self.account.calls_per_second * HEADROOM,
            "daily_quota": self.account.daily_quota,
            "monthly_quota": self.account.monthly_quota,
            "probe_seconds": PROBE_SECONDS,
            "calls": calls,
        }
        (row,) = self.database.call(RESERVE, **values)
        return dict(zip(RESERVED, row, strict=True))

    def note(self, sql: str, **values: object) -> None:
        """One of the statements above."""

        def work(connection: Connection) -> None:
            connection.execute(statement(sql), {**self.account.key, **values})

        self.database.transaction(work, autocommit=True)

    def exhausted(self, until: dt.datetime | None, why: str) -> QuotaExhausted:
        """Nothing is sent until then; no call was."""
        return QuotaExhausted(why, api=self.account.api, reset_at=until, calls=0)

    def blocked(self, why: str) -> ApiBlocked:
        """Nothing is sent with these credentials; no call was."""
        return ApiBlocked(why, api=self.account.api, variables=(), calls=0)
