"""The rate limiter that all processes and machines share: rate, the KST day's quota, health of the
API.

Every search waits here before a call. A call is a slot in time plus a place in the day, reserved by
one statement (store/api_calls.py); the search, a task of its own, sleeps until its slot. Statements
run in threads to their end, even if the task is cancelled.

pyrate-limiter's PostgreSQL bucket was tried for the per-second part: it writes and counts one row
per call, polls for room instead of handing out a slot, uses each client's own clock, and has
neither a daily quota nor the server's refusals, which must be in the same transaction here.
"""

import asyncio
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mohe_assets.collection.cancellation import CancellationToken, LeaseClock
from mohe_assets.errors import (
    ApiBlocked,
    ApiError,
    ApiUnavailable,
    DatabaseUnavailable,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    StopRequested,
)
from mohe_assets.store.api_calls import (
    BINDING_WAIT_SECONDS,
    DROP_PROBE,
    EXHAUST,
    PROVE,
    RECOVER,
    RELEASE_RESERVED,
    ApiCalls,
    Slot,
)
from mohe_assets.store.api_state import ApiAccount, read_state
from mohe_assets.store.database import Database

log = logging.getLogger(__name__)

# After a pause a process would send all that it had reserved at once. It keeps the spacing of its
# slots instead, and catches up by this share of the spacing.
CATCH_UP = 0.005
# A call later than this would fall between calls that other processes send on time, so it takes
# another slot. At most MOST_LATE in a row and LATE_SHARE of all, or a process that is always late
# would send none.
LATE_SECONDS = 0.01
MOST_LATE, LATE_SHARE = 20, 0.1
PROBE_AGAIN_SECONDS = 0.1
# While a call waits longer than this for its slot, another process may have been refused, so the
# state is checked, unless another search of this run passed in that time. The check takes time and
# is made this long before the slot.
RECHECK_SECONDS = 0.25
RECHECK_BEFORE_SECONDS = 0.05
# A long wait is slept in pieces of this length: a clock error may have caused it, and be corrected.
LOOK_AGAIN_SECONDS = 5.0
# Most time of a statement and its thread between two readings of the clocks.
QUEUE_TOLERANCE_SECONDS = 2.0

# While unthrottled, a process reserves ahead what it will send in this time, and releases what it
# did not send.
AHEAD_SECONDS = 0.1
# Most calls reserved ahead: a killed process loses them from its day.
MOST_AHEAD = 64
# Below this number a process reserves call by call: a refill for one or two costs more than it
# saves.
FEW_AHEAD = 8
# Refill when this share of the need is left: a few milliseconds' worth at the highest rates, as
# long as a refill takes.
AGAIN_AT = 0.25

STOPPED = "Stopped while waiting for a call's turn."

# Region of a task's calls: an API is unavailable when calls for two regions fail.
calls_for: ContextVar[str] = ContextVar("calls_for", default="")
# Whether the task judges by itself that an answer is usable.
_judges_itself: ContextVar[bool] = ContextVar("judges_itself", default=False)


@dataclass(kw_only=True, eq=False)
class SharedRateLimiter:
    """The rate limiter of one run, whose searches are tasks of one loop. Implements
    `mohe_assets.clients.http.RateLimiter`.

    The task that reserves also reports the end of its call: `reserve` must not be wrapped in
    another task, as asyncio.wait_for does.
    """

    database: Database
    account: ApiAccount
    cancellation: CancellationToken
    lease_clock: LeaseClock = field(default_factory=LeaseClock)
    # The first call does not wait for the next probe of an API that is unavailable.
    probe_now: bool = False
    _shut: ApiError | None = None
    _failing: bool = False
    _has_answers: bool = False
    # The task whose call is the probe. A later probe replaces it: the earlier was given up.
    _prober: "asyncio.Task[Any] | None" = None
    _verdict: asyncio.Event = field(default_factory=asyncio.Event)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _refill: "asyncio.Task[None] | None" = None
    _under_way: "set[asyncio.Task[None]]" = field(default_factory=set)
    _ahead: deque[Slot] = field(default_factory=deque)
    _taken: deque[float] = field(default_factory=deque)
    _waited: bool = True
    _last_slot: float = 0.0
    _last_send: float = 0.0
    _may_be_late: float = MOST_LATE
    _seen_open: float = -math.inf
    _hurry: threading.Event = field(default_factory=threading.Event)
    calls: ApiCalls = field(init=False)

    def __post_init__(self) -> None:
        self.calls = ApiCalls(
            database=replace(self.database, sleep=self._sleep_in_thread), account=self.account
        )

    async def reserve(self) -> None:
        """Return when a call may be sent.

        Raises QuotaExhausted, ApiBlocked, ApiUnavailable or StopRequested.
        """
        while True:
            slot = await self._next_slot()
            self._prober = asyncio.current_task() if slot.probe else self._prober
            if await self._wait_for(slot):
                return
            await self._release_reserved([slot])

    async def close(self) -> None:
        """Release the calls reserved ahead, if the database can be reached. Call it when all tasks
        have ended.
        """
        self._hurry.set()
        while self._under_way:
            await asyncio.wait(self._under_way)
        left = list(self._ahead)
        self._ahead.clear()
        await self._release_reserved(
            left, replace(self.calls, database=replace(self.database, reconnect_seconds=0))
        )

    async def _next_slot(self) -> Slot:
        """Return a slot that was reserved ahead, or reserve slots; tasks that wait find theirs."""
        now = time.monotonic()
        if self._ahead and self._ahead[0].at >= now - AHEAD_SECONDS and not self._asking.locked():
            self._raise_if_closed()
            return self._take(now)
        async with self._asking:
            self._raise_if_closed()
            now = time.monotonic()
            late = []  # `_ahead` is ordered by time
            while self._ahead and self._ahead[0].at < now - AHEAD_SECONDS:
                late.append(self._ahead.popleft())
            await self._release_reserved(late)
            while not self._ahead:
                # After a cancellation the next task finds the reserved calls, or `close` does.
                await asyncio.shield(self._refilling(self._needed_soon(now)))
                if not self._ahead:
                    # A probe is under way. Tasks that arrive wait for the lock: one task reserves
                    # for all.
                    # A probe of another process gives no verdict here.
                    self._verdict.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(PROBE_AGAIN_SECONDS):
                            await self._verdict.wait()
                self._raise_if_closed()
            return self._take(now)

    def _take(self, now: float) -> Slot:
        slot = self._ahead.popleft()
        self._taken.append(now)
        self._waited = slot.at > time.monotonic() + BINDING_WAIT_SECONDS
        if len(self._ahead) <= AGAIN_AT * MOST_AHEAD:
            needed = self._needed_soon(now)
            if needed >= FEW_AHEAD and len(self._ahead) <= AGAIN_AT * needed:
                self._refilling(needed - len(self._ahead))
        return slot

    def _needed_soon(self, now: float) -> int:
        """Return the number of slots taken lately, or 1 if calls wait: then the next slot may
        belong to another process.
        """
        while self._taken and self._taken[0] < now - AHEAD_SECONDS:
            self._taken.popleft()
        # No more than the rate allows in that time: a slot further away would delay others.
        in_time = max(1, int(AHEAD_SECONDS * self.account.calls_per_second))
        return 1 if self._waited else max(1, min(len(self._taken), in_time, MOST_AHEAD))

    def _refilling(self, calls: int) -> "asyncio.Task[None]":
        """Return the running refill, or start it. Its error is raised for the tasks that wait."""
        if self._refill is None or self._refill.done():
            self._refill = self._start(self._reserve_ahead(calls))
        return self._refill

    async def _reserve_ahead(self, calls: int) -> None:
        asked_at = time.monotonic()
        reserve, self.probe_now = (
            partial(self.calls.reserve, calls, probe_now=self.probe_now),
            False,
        )
        reserved = await asyncio.to_thread(reserve)
        self._ahead.extend(reserved.slots)
        self._failing |= reserved.failing
        self._seen_open = asked_at if reserved.slots else self._seen_open

    async def answered(self) -> None:
        """Note a proper answer: a probe opens the API for all; earlier failures do not count."""
        if not _judges_itself.get():
            await self.usable()

    async def usable(self) -> None:
        """As `answered`, for a task that judges its answers itself."""
        self._has_answers = True
        if self._prober is not None and self._takes_its_verdict():
            self._failing = False
            await self._run_to_end(self._note(PROVE))
            self._verdict.set()
        elif self._failing:
            self._failing = False  # first: answers during the statement need no other
            await self._run_to_end(self._note(RECOVER))

    @contextmanager
    def judged_by_caller(self) -> Iterator[None]:
        """Answers to this task are no verdict: it calls `usable` or `declare_unavailable`."""
        token = _judges_itself.set(True)
        try:
            yield
        finally:
            _judges_itself.reset(token)

    async def failed(self, error: ApiError) -> None:
        """Note a call without a usable answer. Later calls raise if the API is unavailable."""
        await self._note_failure(str(error), at_fault=False)

    async def declare_unavailable(
        self, reason: str, *, answers_changed: bool = False
    ) -> ApiUnavailable:
        """Record that the API is at fault, however few calls have shown it; return the error to
        raise.
        """
        found = await self._note_failure(reason, at_fault=True)
        if found is None:
            raise AssertionError("an API that is declared unavailable is unavailable")
        found.answers_changed = answers_changed
        return found

    async def is_unavailable(self) -> bool:
        """Return whether the API is unavailable, as all processes know it."""
        state = await asyncio.to_thread(read_state, self.calls.database, self.account)
        return state.unavailable_since is not None

    @property
    def unavailable(self) -> ApiUnavailable | None:
        """The error to raise if this run knows that the API is unavailable."""
        return self._shut if isinstance(self._shut, ApiUnavailable) else None

    async def _note_failure(self, reason: str, *, at_fault: bool) -> ApiUnavailable | None:
        self._failing = True
        was_probe = self._takes_its_verdict()
        note = partial(
            self.calls.note_failure,
            reason,
            region=calls_for.get(),
            at_fault=at_fault,
            was_probe=was_probe,
        )
        found: ApiUnavailable | None = None

        async def work() -> None:
            nonlocal found
            found = await asyncio.to_thread(note)
            if found is not None and self._shut is None:
                log.warning("%s", found)
                self._shut = found

        await self._run_to_end(work())
        if was_probe:
            self._verdict.set()
        return found

    async def refused(self, error: ApiError) -> None:
        """Record a refusal: the server's answer overrides our count, for all processes at once."""
        match error:
            case RateLimited():
                await self._drop_probe()
                await self._run_to_end(self._note_rate_refusal(error))
            case QuotaExhausted():
                self._shut = error
                log.warning("%s: the quota is used up: %s", self.account.api, error)
                never = (
                    f"{error}; {error.if_never_answered}" if error.if_never_answered else str(error)
                )
                until, reason = error.reset_at, str(error)
                await self._run_to_end(
                    self._note(EXHAUST, until=until, why=reason, why_if_never_answered=never)
                )
            case RequestRefused():
                # After an answer it may be this request only; its search finds out.
                await self._note_failure(str(error), at_fault=not self._has_answers)
            case ApiBlocked():
                self._shut = error
                await self._run_to_end(asyncio.to_thread(self.calls.block, str(error)))
            case _:
                await self._drop_probe()

    async def _note_rate_refusal(self, error: RateLimited) -> None:
        self._failing |= error.unknown_shape
        found = await asyncio.to_thread(
            self.calls.note_rate_refusal, str(error), is_unknown=error.unknown_shape
        )
        if found is not None:
            self._shut = self._shut or found
            log.warning("%s: %s", self.account.api, found)

    async def _wait_for(self, slot: Slot) -> bool:
        """Wait until the slot. Return False if it is too late for it."""
        try:
            while slot.at - time.monotonic() > LOOK_AGAIN_SECONDS:
                await self.cancellation.pause(LOOK_AGAIN_SECONDS, STOPPED)
                self._raise_if_shut()
                if await self._was_put_right(slot):
                    return False
            if slot.at - time.monotonic() > RECHECK_SECONDS:
                await self.cancellation.pause(
                    slot.at - RECHECK_BEFORE_SECONDS - time.monotonic(), STOPPED
                )
                self._raise_if_shut()
                if self._seen_open < time.monotonic() - RECHECK_SECONDS:
                    await self._recheck()
            await self.cancellation.pause(slot.at - time.monotonic(), STOPPED)
            await self.lease_clock.wait_until_confirmed(self.cancellation, STOPPED)
            send = self._send_at(slot)
            if in_time := not self._is_too_late(slot, send):
                self._last_slot, self._last_send = max(slot.at, self._last_slot), send
                await self.cancellation.pause(send - time.monotonic(), STOPPED)
            self._raise_if_shut()
        except (StopRequested, QuotaExhausted, ApiBlocked, ApiUnavailable, asyncio.CancelledError):
            self._prober = None if slot.probe else self._prober
            await self._release_reserved([slot])
            raise
        return in_time

    async def _was_put_right(self, slot: Slot) -> bool:
        """Return whether a clock error made this slot, and the queue is shorter now."""
        left = slot.at - time.monotonic()
        queue = await asyncio.to_thread(self.calls.seconds_to_next_slot)
        return queue < left - QUEUE_TOLERANCE_SECONDS

    async def _release_reserved(
        self, slots: Collection[Slot], calls: ApiCalls | None = None
    ) -> None:
        """Release calls that were not sent. The caller ends or continues: no failure is raised."""
        if slots:
            await self._run_to_end(self._giving_back(slots, calls))

    async def _giving_back(self, slots: Collection[Slot], calls: ApiCalls | None) -> None:
        try:
            if any(slot.probe for slot in slots):
                await self._note(DROP_PROBE, calls)
            for day, unsent in Counter(slot.day for slot in slots).items():
                await self._note(RELEASE_RESERVED, calls, day=day, unsent=unsent)
        except (DatabaseUnavailable, StopRequested) as error:
            log.warning(
                "%d reserved calls of the day were not sent and could not be released. %s",
                len(slots),
                error,
            )

    def _send_at(self, slot: Slot) -> float:
        """Return now, or later if the call before this one went out later than its own slot.

        While unthrottled, no process uses the time between two slots: the rate alone limits the
        next.
        """
        gap = slot.gap if slot.unthrottled else max(0.0, slot.at - self._last_slot)
        return (
            max(time.monotonic(), self._last_send + gap * (1 - CATCH_UP))
            if self._last_slot
            else time.monotonic()
        )

    def _is_too_late(self, slot: Slot, send: float) -> bool:
        if (
            slot.unthrottled
            or slot.probe
            or send - slot.at <= LATE_SECONDS
            or self._may_be_late < 1
        ):
            self._may_be_late = min(MOST_LATE, self._may_be_late + LATE_SHARE)
            return False
        self._may_be_late -= 1
        return True

    async def _recheck(self) -> None:
        asked_at = time.monotonic()
        state = await asyncio.to_thread(read_state, self.calls.database, self.account)
        if state.blocked_why is not None:
            raise self.calls.blocked(state.blocked_why)
        # Our own count is no reason: it includes this call.
        if state.closed_until is not None and not state.used_up:
            raise self.calls.exhausted(state.closed_until, state.closed_why or "")
        if state.unavailable_since is not None and self._prober is not asyncio.current_task():
            since, reason = state.unavailable_since, state.unavailable_reason or ""
            raise self.calls.unavailable(since, reason, state.next_probe_at)
        self._seen_open = asked_at

    async def _drop_probe(self) -> None:
        if self._takes_its_verdict():
            await self._run_to_end(self._note(DROP_PROBE))
            self._verdict.set()

    def _takes_its_verdict(self) -> bool:
        """Return whether this task probes; its probe ends with that."""
        if self._prober is not asyncio.current_task():
            return False
        self._prober = None
        return True

    def _raise_if_closed(self) -> None:
        if self.cancellation.is_cancelled():
            raise StopRequested(STOPPED)
        self._raise_if_shut()

    def _raise_if_shut(self) -> None:
        if isinstance(self._shut, QuotaExhausted):
            raise self.calls.exhausted(self._shut.reset_at, str(self._shut))
        if isinstance(self._shut, ApiBlocked):
            raise self.calls.blocked(str(self._shut))
        if isinstance(self._shut, ApiUnavailable):
            raise self._shut

    async def _note(self, sql: str, calls: ApiCalls | None = None, **values: object) -> None:
        await asyncio.to_thread((calls or self.calls).note, sql, **values)

    async def _run_to_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, even if the task that waits for it is cancelled."""
        await asyncio.shield(self._start(work))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start a task, which `close` waits for."""

        def ended(task: "asyncio.Task[None]") -> None:
            self._under_way.discard(task)
            if not task.cancelled():
                task.exception()  # retrieved, or asyncio complains if no task waits for it

        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(ended)
        return task

    def _sleep_in_thread(self, seconds: float) -> None:
        """Sleep between two tries to reach the database. A stop, or `close`, ends the sleep."""
        with self.cancellation.waking(self._hurry.set):
            if self._hurry.wait(seconds):
                raise StopRequested(STOPPED)
