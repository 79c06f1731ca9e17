"""Statements of the shared rate limiter: reserve or release a call, and record the server's answer.
They block.

The rules are slow_down in sql/004_api_budget.sql and the functions of sql/010_api_health.sql;
collection/rate_limiter.py decides when a reserved call is sent.
"""

import datetime as dt
import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from mohe_assets.errors import ApiBlocked, ApiUnavailable, QuotaExhausted
from mohe_assets.store.api_state import ApiAccount, unavailable_sentence
from mohe_assets.store.database import Database, rows, statement

# Slots are spaced for 98.5 % of the limit: the server's second and ours differ by the jitter of the
# network and of both hosts, and what is late by more than the 15 ms this leaves in a second is
# refused.
HEADROOM = 0.985
# A probe whose process died is given up after this long; longer than an HTTP call may take.
PROBE_SECONDS = 30.0
# A longer wait means that the rate limit is binding.
BINDING_WAIT_SECONDS = 0.01

# Calls in a row without a usable answer, of two regions at least, that make an API unavailable.
OUTAGE_CALLS = 5
# Between two probes of an API that is unavailable: doubled with each, up to the last.
FIRST_PROBE_SECONDS, LAST_PROBE_SECONDS = 60.0, 3600.0
# Nothing but refusals of unknown shape for this time is taken for a quota; and its probing
# interval.
REFUSED_SECONDS, REFUSED_PROBE_SECONDS = 180.0, 3600.0

# Refused credentials, unless they are known to be others. reserve_api_calls gets them in the place
# of ours and answers BLOCKED; only then a slow digest decides whether they are ours.
BLOCKED = """
SELECT b.blocked FROM api_budget b
 WHERE b.api = %(api)s AND b.account = %(account)s AND b.blocked <> ALL(CAST(%(others)s AS text[]))
"""
RESERVED = (
    "verdict",
    "wait_seconds",
    "until",
    "why",
    "probe",
    "calls",
    "gap",
    "day",
    "since",
    "failing",
)
RESERVE = f"""
SELECT {", ".join(RESERVED)}
  FROM reserve_api_calls(%(api)s, %(account)s, coalesce(({BLOCKED}), %(credentials)s), %(service)s,
                         %(calls_per_second)s, %(daily_quota)s, %(monthly_quota)s,
                         %(probe_seconds)s, %(first_interval)s, %(last_interval)s,
                         %(probe_now)s, %(calls)s)
"""
NOTE_FAILED_CALL = """
SELECT since, reason, until
  FROM note_failed_call(:api, :account, :service, :region, :reason, :outage_calls, :at_fault,
                        :first_interval, :was_probe)
"""
NOTE_RATE_REFUSAL = """
SELECT until FROM note_rate_refusal(:api, :account, :is_unknown, :refused_seconds, :closed_seconds,
                                    :why)
"""
_AVAILABLE = """failed_calls = 0, failed_regions = '{}', refused_since = NULL,
                unavailable_since = NULL,
       unavailable_reason = NULL, unavailable_for = NULL, next_probe_at = NULL, probes = 0"""
RECOVER = f"""
UPDATE api_budget SET {_AVAILABLE}
 WHERE api = :api AND account = :account
   AND (failed_calls > 0 OR refused_since IS NOT NULL OR unavailable_since IS NOT NULL)
"""
# Every slot that was handed out lies before it, unless the row was put right since.
NEXT_SLOT = """
SELECT extract(epoch FROM greatest(next_slot_at, budget_clock()) - budget_clock())::float AS seconds
  FROM api_budget WHERE api = :api AND account = :account
"""
RELEASE_RESERVED = """
UPDATE api_usage SET reserved = greatest(0, reserved - :unsent) WHERE api = :api
    AND account = :account AND day = :day
"""
PROVE = f"""
UPDATE api_budget SET proven = :credentials, probing_since = NULL, exhausted_until = NULL,
       exhausted_why = NULL, {_AVAILABLE}
 WHERE api = :api AND account = :account
"""
DROP_PROBE = "UPDATE api_budget SET probing_since = NULL WHERE api = :api AND account = :account"
EXHAUST = """
WITH counted AS (
    UPDATE api_usage SET refused_quota = refused_quota + 1
     WHERE api = :api AND account = :account AND day = budget_day(budget_clock())
)
UPDATE api_budget
   SET exhausted_until = greatest(budget_clock() + interval '1 minute', exhausted_until,
                                  coalesce(CAST(:until AS timestamptz),
                                           budget_midnight(budget_day(budget_clock()) + 1))),
       exhausted_why = CASE WHEN proven = :credentials THEN :why ELSE :why_if_never_answered END,
       probing_since = NULL
 WHERE api = :api AND account = :account
"""
BLOCK = """
UPDATE api_budget SET blocked = :refused, blocked_at = budget_clock(), blocked_why = :why,
                      probing_since = NULL, proven = NULL
 WHERE api = :api AND account = :account
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """A reserved call: when it may be sent, on the monotonic clock, and the day it counts for.

    `gap` is the rate's time between two calls in seconds; `unthrottled`: calls did not have to
    wait.
    """

    at: float
    day: dt.date
    probe: bool
    gap: float
    unthrottled: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Reserved:
    """Reserved calls; `failing` says that failures were noted since the last usable answer."""

    slots: list[Slot]
    failing: bool


@dataclass(frozen=True, kw_only=True)
class ApiCalls:
    """The calls of one account."""

    database: Database
    account: ApiAccount
    # Digests of refused credentials that were compared with ours, which takes long.
    others: set[str] = field(default_factory=set)

    def reserve(self, calls: int, *, probe_now: bool = False) -> "Reserved":
        """Reserve at most `calls` slots; none while a probe is under way.

        `probe_now` does not wait for the next probe of an unavailable API. Raises QuotaExhausted,
        ApiBlocked and ApiUnavailable.
        """
        row = self.reserve_row(calls, probe_now=probe_now)
        return Reserved(slots=self._slots(row), failing=row["failing"])

    def _slots(self, row: dict[str, Any]) -> list[Slot]:
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
            case "UNAVAILABLE":
                raise self.unavailable(row["since"], row["why"], row["until"])
        return []

    def reserve_row(self, calls: int = 1, *, probe_now: bool = False) -> dict[str, Any]:
        """The answer of reserve_api_calls; BLOCKED for our own credentials only."""
        while (row := self._reserve_unless_blocked(calls, probe_now))["verdict"] == "BLOCKED":
            found = self.database.call(BLOCKED, **self.account.key, others=sorted(self.others))
            if found and self.account.are_refused(found[0][0]):
                break
            self.others.update(blocked for (blocked,) in found)
        return row

    def _reserve_unless_blocked(self, calls: int, probe_now: bool) -> dict[str, Any]:
        values = {
            **self.account.key,
            "calls_per_second": self.account.calls_per_second * HEADROOM,
            "daily_quota": self.account.daily_quota,
            "monthly_quota": self.account.monthly_quota,
            "probe_seconds": PROBE_SECONDS,
            "first_interval": FIRST_PROBE_SECONDS,
            "last_interval": LAST_PROBE_SECONDS,
            "probe_now": probe_now,
            "calls": calls,
            "others": sorted(self.others),
        }
        (row,) = self.database.call(RESERVE, **values)
        return dict(zip(RESERVED, row, strict=True))

    def seconds_to_next_slot(self) -> float:
        """Return the wait of a call that is reserved now."""
        return float(self._row(NEXT_SLOT)["seconds"])

    def note(self, sql: str, **values: object) -> None:
        """Run a statement of this module."""

        def work(connection: Connection) -> None:
            connection.execute(statement(sql), {**self.account.key, **values})

        self.database.transaction(work, autocommit=True)

    def block(self, reason: str) -> None:
        """Record that the server refused these credentials."""
        self.note(BLOCK, refused=self.account.refused_digest(), why=reason)

    def note_failure(
        self, reason: str, *, region: str, at_fault: bool, was_probe: bool
    ) -> ApiUnavailable | None:
        """Record a call without a usable answer; return the error to raise if the API is
        unavailable.
        """
        row = self._row(
            NOTE_FAILED_CALL,
            region=region,
            reason=reason,
            outage_calls=OUTAGE_CALLS,
            at_fault=at_fault,
            first_interval=FIRST_PROBE_SECONDS,
            was_probe=was_probe,
        )
        return self.unavailable(**row) if row["since"] is not None else None

    def note_rate_refusal(self, reason: str, *, is_unknown: bool) -> QuotaExhausted | None:
        """Record a refusal for the rate; return the error to raise if it counts as a quota."""
        sentence = (
            f"{reason}; only such refusals for {REFUSED_SECONDS / 60:g} minutes, "
            "so it is taken for a quota"
        )
        row = self._row(
            NOTE_RATE_REFUSAL,
            is_unknown=is_unknown,
            refused_seconds=REFUSED_SECONDS,
            closed_seconds=REFUSED_PROBE_SECONDS,
            why=sentence,
        )
        return self.exhausted(row["until"], sentence) if row["until"] is not None else None

    def _row(self, sql: str, **values: object) -> dict[str, Any]:
        def work(connection: Connection) -> dict[str, Any]:
            return rows(connection, sql, **self.account.key, **values)[0]

        return self.database.transaction(work, autocommit=True)

    def unavailable(
        self, since: dt.datetime, reason: str, until: dt.datetime | None
    ) -> ApiUnavailable:
        """No call gets a usable answer; none was sent."""
        return ApiUnavailable(
            unavailable_sentence(self.account.api, since, reason, until),
            api=self.account.api,
            since=since,
            next_probe_at=until,
        )

    def exhausted(self, until: dt.datetime | None, reason: str) -> QuotaExhausted:
        """Nothing is sent until then; no call was."""
        return QuotaExhausted(reason, api=self.account.api, reset_at=until, calls=0)

    def blocked(self, reason: str) -> ApiBlocked:
        """Nothing is sent with these credentials; no call was."""
        return ApiBlocked(reason, api=self.account.api, variables=(), calls=0)
