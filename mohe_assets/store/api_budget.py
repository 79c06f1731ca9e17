"""The calls all processes and machines share: the rate, the KST day's quota, and whether the API may be called at all.

The rules are slow_down in sql/004_api_budget.sql and reserve_calls in sql/008_every_search.sql; this is the gate every worker
thread goes through before a call. A call is a slot in time plus a place in the day, reserved by one statement, and the thread
sleeps until its slot.

pyrate-limiter's PostgreSQL bucket was looked at for the per-second part: it writes and counts one row per call, asks
again until there is room instead of handing out a slot (so waiting workers poll, and the luckiest wins), goes by each
client's own clock, and knows neither a day's quota nor the server's refusals, which have to be the same transaction here.
"""

import datetime as dt
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from mohe_assets.errors import ApiBlocked, ApiError, DatabaseUnavailable, QuotaExhausted, RateLimited, StopRequested
from mohe_assets.store.api_state import ApiAccount, read_state
from mohe_assets.store.database import Database, statement

log = logging.getLogger(__name__)

# Slots are spaced for 98.5 % of the limit: the server's second and ours differ by the jitter of the network and of both
# hosts, and what is late by more than the 15 ms this leaves in a second is refused.
HEADROOM = 0.985
# A process that was held up would send what it had reserved meanwhile all at once. It keeps the spacing of its slots
# instead, and catches up by this share of it.
CATCH_UP = 0.005
# A probe whose process died is given up after this long; longer than an HTTP call may take.
PROBE_SECONDS = 30.0
PROBE_AGAIN_SECONDS = 0.1
# Somebody else may have been refused while we waited for a slot further away than this.
RECHECK_SECONDS = 0.25

# While the limit is far, a process reserves what it will send in so many seconds at once; what it then did not send in time
# it gives back.
AHEAD_SECONDS = 0.1
# A turn that comes later than this is a limit that is not far.
FAR_SECONDS = 0.01
# No more than this: what a process that is killed has reserved ahead is lost to its day.
MOST_AHEAD = 8

RESERVED = ("verdict", "wait_seconds", "until", "why", "probe", "calls", "gap", "day")
RESERVE = f"""
SELECT {", ".join(RESERVED)}
  FROM reserve_calls(%(api)s, %(account)s, %(credentials)s, %(calls_per_second)s, %(daily_quota)s, %(monthly_quota)s,
                     %(probe_seconds)s, %(calls)s)
"""
GIVE_BACK = """
UPDATE api_usage SET reserved = greatest(0, reserved - :calls) WHERE api = :api AND account = :account AND day = :day
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
class _Slot:
    """A reserved call: when it may be sent, on the monotonic clock, and whose day it counts for."""

    at: float
    day: dt.date
    probe: bool


@dataclass(kw_only=True)
class SharedBudget:
    """The gate of one run; its threads share it. Implements `mohe_assets.clients.http.CallGate`."""

    database: Database
    account: ApiAccount
    stop: threading.Event
    _shut: ApiError | None = None
    _thread: threading.local = field(default_factory=threading.local)
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _ahead: "deque[_Slot]" = field(default_factory=deque)
    _taken: deque[float] = field(default_factory=deque)
    _waited: bool = True
    _pacing: threading.Lock = field(default_factory=threading.Lock)
    _last_slot: float = 0.0
    _last_send: float = 0.0

    def reserve(self) -> None:
        """Returns when a call may be sent. Raises QuotaExhausted, ApiBlocked or StopRequested."""
        while (slot := self._next_slot()) is None:
            self._pause(PROBE_AGAIN_SECONDS)
        self._wait_for(slot)

    def close(self) -> None:
        """Gives back what was reserved ahead, if the database is there."""
        with self._asking:
            left = list(self._ahead)
            self._ahead.clear()
            try:
                self._give_back(left, replace(self.database, reconnect_seconds=0))
            except DatabaseUnavailable as error:
                log.warning("%d calls of the day are lost to it: they were reserved and are not given back. %s", len(left), error)

    def _next_slot(self) -> "_Slot | None":
        """One reserved ahead, or else a new one; None while somebody's probe is out. Threads that come meanwhile find theirs."""
        with self._asking:
            if self.stop.is_set():
                raise StopRequested("Stopped while waiting for a call's turn.")
            self._raise_if_shut()
            now = time.monotonic()
            late = [slot for slot in self._ahead if slot.at < now - AHEAD_SECONDS]
            if late:
                self._give_back([self._ahead.popleft() for _ in late])
            self._taken.append(now)
            if not self._ahead:
                self._ahead.extend(self._ask(self._needed_soon(now)))
            slot = self._ahead.popleft() if self._ahead else None
            self._thread.probing = slot is not None and slot.probe
            return slot

    def _needed_soon(self, now: float) -> int:
        """As many as were taken lately, if none had to wait; where calls do wait for their turn it may be another process's."""
        while self._taken[0] < now - AHEAD_SECONDS:
            self._taken.popleft()
        # No more than the rate allows in that time: a slot further away would keep others waiting for it.
        in_time = max(1, int(AHEAD_SECONDS * self.account.calls_per_second))
        return 1 if self._waited else min(len(self._taken), in_time, MOST_AHEAD)

    def _ask(self, calls: int) -> "list[_Slot]":
        row = self._reserve_row(calls)
        match row["verdict"]:
            case "GO":
                # From now on: the time spent in the queue for the row's lock lies before the server's reading of the clock.
                first = time.monotonic() + row["wait_seconds"]
                self._waited = row["wait_seconds"] > FAR_SECONDS
                slots = [first + number * row["gap"] for number in range(row["calls"])]
                return [_Slot(at=slot, day=row["day"], probe=row["probe"]) for slot in slots]
            case "EXHAUSTED":
                raise self._exhausted(row["until"], row["why"])
            case "BLOCKED":
                raise self._blocked(row["why"])
        return []

    def answered(self) -> None:
        """A proper answer: a probing call opens the API for everybody."""
        if getattr(self._thread, "probing", False):
            self._thread.probing = False
            self._do(PROVE)

    def failed(self, error: ApiError) -> None:
        """No verdict: somebody else may probe."""
        del error
        self._drop_probe()

    def refused(self, error: ApiError) -> None:
        """The server's word overrides our own count, for every process at once."""
        match error:
            case RateLimited():
                self._drop_probe()
                self._do(SLOW_DOWN)
            case QuotaExhausted():
                self._shut = error
                log.warning("%s: the quota is used up: %s", self.account.api, error)
                self._do(EXHAUST, until=error.reset_at, why=str(error))
            case ApiBlocked():
                self._shut = error
                self._do(BLOCK, why=str(error))
            case _:
                self._drop_probe()

    def _reserve_row(self, calls: int = 1) -> dict[str, Any]:
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

    def _wait_for(self, slot: "_Slot") -> None:
        is_far = slot.at - time.monotonic() > RECHECK_SECONDS
        try:
            self._pause(slot.at - time.monotonic())
            self._pause(self._still_to_wait(slot.at))
            self._raise_if_shut()
            if is_far:
                self._recheck()
        except (StopRequested, QuotaExhausted, ApiBlocked):
            self._drop_probe()
            self._give_back([slot])
            raise

    def _give_back(self, slots: "Collection[_Slot]", database: Database | None = None) -> None:
        for day, calls in Counter(slot.day for slot in slots).items():
            self._do(GIVE_BACK, database, day=day, calls=calls)

    def _still_to_wait(self, slot: float) -> float:
        """Seconds to wait beyond the slot, because the call before this one went out later than its own slot."""
        with self._pacing:
            now = time.monotonic()
            gap = max(0.0, slot - self._last_slot)
            send = max(now, self._last_send + gap * (1 - CATCH_UP)) if self._last_slot else now
            self._last_slot, self._last_send = max(slot, self._last_slot), send
        return send - now

    def _recheck(self) -> None:
        state = read_state(self.database, self.account)
        if state.blocked_why is not None:
            raise self._blocked(state.blocked_why)
        # Our own count is no reason here: this call has its place in it already.
        if state.closed_until is not None and not state.used_up:
            raise self._exhausted(state.closed_until, state.closed_why or "")

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(max(0.0, seconds)):
            raise StopRequested("Stopped while waiting for a call's turn.")

    def _drop_probe(self) -> None:
        if getattr(self._thread, "probing", False):
            self._thread.probing = False
            self._do(DROP_PROBE)

    def _raise_if_shut(self) -> None:
        if isinstance(self._shut, QuotaExhausted):
            raise self._exhausted(self._shut.reset_at, str(self._shut))
        if isinstance(self._shut, ApiBlocked):
            raise self._blocked(str(self._shut))

    def _exhausted(self, until: dt.datetime | None, why: str) -> QuotaExhausted:
        return QuotaExhausted(why, api=self.account.api, reset_at=until, calls=0)

    def _blocked(self, why: str) -> ApiBlocked:
        return ApiBlocked(why, api=self.account.api, variables=(), calls=0)

    def _do(self, sql: str, database: Database | None = None, **values: object) -> None:
        def work(connection: Connection) -> None:
            connection.execute(statement(sql), {**self.account.key, **values})

        (database or self.database).transact(work, autocommit=True)
