"""The calls all processes and machines share: the rate, the KST day's quota, and whether the API
may be called at all.

This is the gate every search goes through before a call. A call is a slot in time plus a place in
the day, reserved by one statement (store/api_calls.py), and the search, a Task of its own, sleeps
until its slot. Statements run in threads, and to their end, even if the Task that wanted them is
cancelled.

pyrate-limiter's PostgreSQL bucket was looked at for the per-second part: it writes and counts one
row per call, asks again until there is room instead of handing out a slot (so waiting workers poll,
and the luckiest wins), goes by each client's own clock, and knows neither a day's quota nor the
server's refusals, which have to be the same transaction here.
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

# A process that was held up would send what it had reserved meanwhile all at once. It keeps the
# spacing of its slots instead, and catches up by this share of it.
CATCH_UP = 0.005
# A call that is later than this would not follow the one before it, but come between those that
# other processes send on time: it takes another slot. Not more than so many in a row and such a
# share of them, or a process that is always late would send none.
LATE_SECONDS = 0.01
MOST_LATE, LATE_SHARE = 20, 0.1
PROBE_AGAIN_SECONDS = 0.1
# Somebody else may have been refused while we waited for a slot further away than this, unless
# another search of ours was let through meanwhile. To look takes time, so it is done so long before
# the slot.
RECHECK_SECONDS = 0.25
RECHECK_BEFORE_SECONDS = 0.05
# A long wait is slept in pieces of this length: a clock error may have made it, and be put right.
LOOK_AGAIN_SECONDS = 5.0
# A statement and the thread that runs it take this long at most between two readings of the clocks.
QUEUE_TOLERANCE_SECONDS = 2.0

# While the limit is far, a process reserves what it will send in so many seconds at once; what it
# then did not send in time it gives back.
AHEAD_SECONDS = 0.1
# No more than this: what a process that is killed has reserved ahead is lost to its day, so at most
# what the rate allows in AHEAD_SECONDS, and never more than this.
MOST_AHEAD = 64
# Who needs fewer than this ahead waits for the next: to ask again for each one or two would be more
# work than it saves.
FEW_AHEAD = 8
# It asks again when this share of what it needs is left: a few milliseconds' worth at the highest
# rates, as long as it takes.
AGAIN_AT = 0.25

WHY_STOPPED = "Stopped while waiting for a call's turn."

# The region a Task makes its calls for: an API is unavailable when those of two regions fail.
calls_for: ContextVar[str] = ContextVar("calls_for", default="")
# The Task judges by itself whether an answer is usable.
_judges_itself: ContextVar[bool] = ContextVar("judges_itself", default=False)


@dataclass(kw_only=True, eq=False)
class SharedRateLimiter:
    """The gate of one run, whose searches are Tasks of one loop. Implements
    `mohe_assets.clients.http.CallGate`.

    What a Task reserves, the same Task says the end of: `reserve` must not be wrapped in another,
    as asyncio.wait_for does.
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
    # Whose call shows whether the API answers. A later probe takes its place: the earlier was given
    # up.
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
        """Gives back what was reserved ahead, if the database is there. To be called when all Tasks
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
        """One reserved ahead, or else a new one. Tasks that come meanwhile find theirs."""
        now = time.monotonic()
        if self._ahead and self._ahead[0].at >= now - AHEAD_SECONDS and not self._asking.locked():
            self._raise_if_closed()
            return self._take(now)
        async with self._asking:
            self._raise_if_closed()
            now = time.monotonic()
            await self._release_reserved(self._not_sent_in_time(now))
            while not self._ahead:
                await self._ask_for(self._needed_soon(now))
                if not self._ahead:
                    # Somebody's probe is out. Whoever comes meanwhile waits for the lock: one Task
                    # asks for all.
                    await self._verdict_or_a_while()
                self._raise_if_closed()
            return self._take(now)

    async def _verdict_or_a_while(self) -> None:
        """The probe may be one of our own calls, or another process's, which does not tell."""
        self._verdict.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_AGAIN_SECONDS):
                await self._verdict.wait()

    def _take(self, now: float) -> Slot:
        slot = self._ahead.popleft()
        self._taken.append(now)
        self._waited = slot.at > time.monotonic() + BINDING_WAIT_SECONDS
        self._ask_before_it_is_needed(now)
        return slot

    def _not_sent_in_time(self, now: float) -> list[Slot]:
        """Taken out of what is reserved ahead, which is in the order of time."""
        late = []
        while self._ahead and self._ahead[0].at < now - AHEAD_SECONDS:
            late.append(self._ahead.popleft())
        return late

    def _needed_soon(self, now: float) -> int:
        """As many as were taken lately, if none had to wait; where calls do wait for their turn it
        may be another process's.
        """
        while self._taken and self._taken[0] < now - AHEAD_SECONDS:
            self._taken.popleft()
        # No more than the rate allows in that time: a slot further away would keep others waiting
        # for it.
        in_time = max(1, int(AHEAD_SECONDS * self.account.calls_per_second))
        return 1 if self._waited else max(1, min(len(self._taken), in_time, MOST_AHEAD))

    def _ask_before_it_is_needed(self, now: float) -> None:
        if len(self._ahead) <= AGAIN_AT * MOST_AHEAD:
            needed = self._needed_soon(now)
            if needed >= FEW_AHEAD and len(self._ahead) <= AGAIN_AT * needed:
                self._refilling(needed - len(self._ahead))

    async def _ask_for(self, calls: int) -> None:
        """If the Task is cancelled meanwhile, the next one finds what was reserved, or `close`."""
        await asyncio.shield(self._refilling(calls))

    def _refilling(self, calls: int) -> "asyncio.Task[None]":
        """The one that is under way, or a new one. What it fails with is for those who wait for it;
        without any, for nobody.
        """
        if self._refill is None or self._refill.done():
            self._refill = self._start(self._reserve_ahead(calls))
        return self._refill

    async def _reserve_ahead(self, calls: int) -> None:
        asked = time.monotonic()
        reserve, self.probe_now = (
            partial(self.calls.reserve, calls, probe_now=self.probe_now),
            False,
        )
        reserved = await asyncio.to_thread(reserve)
        self._ahead.extend(reserved.slots)
        self._failing |= reserved.failing
        self._seen_open = asked if reserved.slots else self._seen_open

    async def answered(self) -> None:
        """A proper answer: a probing call opens the API for all; earlier failures do not count."""
        if not _judges_itself.get():
            await self.usable()

    async def usable(self) -> None:
        """As `answered`, by a Task that judges its answers itself."""
        self._has_answers = True
        if self._prober is not None and self._takes_its_verdict():
            self._failing = False
            await self._surely(self._note(PROVE))
            self._verdict.set()
        elif self._failing:
            self._failing = False  # before the statement: the answers that come meanwhile need none
            await self._surely(self._note(RECOVER))

    @contextmanager
    def judged_by_caller(self) -> Iterator[None]:
        """Answers to this Task's calls are no verdict: it calls `usable` or `declare_unavailable`."""
        token = _judges_itself.set(True)
        try:
            yield
        finally:
            _judges_itself.reset(token)

    async def failed(self, error: ApiError) -> None:
        """A call without a usable answer. If the API is unavailable now, the next call raises it."""
        await self._note_failure(str(error), at_fault=False)

    async def declare_unavailable(
        self, reason: str, *, answers_changed: bool = False
    ) -> ApiUnavailable:
        """The API is at fault, however few calls have shown it; returns the error to raise."""
        found = await self._note_failure(reason, at_fault=True)
        if found is None:
            raise AssertionError("an API that is declared unavailable is unavailable")
        found.answers_changed = answers_changed
        return found

    async def is_unavailable(self) -> bool:
        """Whether it is, as all processes know it."""
        state = await asyncio.to_thread(read_state, self.calls.database, self.account)
        return state.unavailable_since is not None

    @property
    def unavailable(self) -> ApiUnavailable | None:
        """Why no call is made any more, if this run knows that the API is unavailable."""
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

        await self._surely(work())
        if was_probe:
            self._verdict.set()
        return found

    async def refused(self, error: ApiError) -> None:
        """The server's word overrides our own count, for every process at once."""
        match error:
            case RateLimited():
                await self._drop_probe()
                await self._surely(self._note_rate_refusal(error))
            case QuotaExhausted():
                self._shut = error
                log.warning("%s: the quota is used up: %s", self.account.api, error)
                never = (
                    f"{error}; {error.if_never_answered}" if error.if_never_answered else str(error)
                )
                until, why = error.reset_at, str(error)
                await self._surely(
                    self._note(EXHAUST, until=until, why=why, why_if_never_answered=never)
                )
            case RequestRefused():
                # After an answer it may be this one request; the search that made it finds out.
                await self._note_failure(str(error), at_fault=not self._has_answers)
            case ApiBlocked():
                self._shut = error
                await self._surely(asyncio.to_thread(self.calls.block, str(error)))
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
        """False: it is too late for this slot."""
        try:
            while slot.at - time.monotonic() > LOOK_AGAIN_SECONDS:
                await self.cancellation.pause(LOOK_AGAIN_SECONDS, WHY_STOPPED)
                self._raise_if_shut()
                if await self._was_put_right(slot):
                    return False
            if slot.at - time.monotonic() > RECHECK_SECONDS:
                await self.cancellation.pause(
                    slot.at - RECHECK_BEFORE_SECONDS - time.monotonic(), WHY_STOPPED
                )
                self._raise_if_shut()
                if self._seen_open < time.monotonic() - RECHECK_SECONDS:
                    await self._recheck()
            await self.cancellation.pause(slot.at - time.monotonic(), WHY_STOPPED)
            await self.lease_clock.wait_until_confirmed(self.cancellation, WHY_STOPPED)
            send = self._send_at(slot)
            if in_time := not self._is_too_late(slot, send):
                self._last_slot, self._last_send = max(slot.at, self._last_slot), send
                await self.cancellation.pause(send - time.monotonic(), WHY_STOPPED)
            self._raise_if_shut()
        except (StopRequested, QuotaExhausted, ApiBlocked, ApiUnavailable, asyncio.CancelledError):
            self._prober = None if slot.probe else self._prober
            await self._release_reserved([slot])
            raise
        return in_time

    async def _was_put_right(self, slot: Slot) -> bool:
        """Whether a clock error made this slot, and the queue of calls is shorter now than it."""
        left = slot.at - time.monotonic()
        queue = await asyncio.to_thread(self.calls.seconds_to_next_slot)
        return queue < left - QUEUE_TOLERANCE_SECONDS

    async def _release_reserved(
        self, slots: Collection[Slot], calls: ApiCalls | None = None
    ) -> None:
        """Calls that were not sent. Whoever gives back has a reason to end, or something to do: no
        failure stands in its way.
        """
        if slots:
            await self._surely(self._giving_back(slots, calls))

    async def _giving_back(self, slots: Collection[Slot], calls: ApiCalls | None) -> None:
        try:
            if any(slot.probe for slot in slots):
                await self._note(DROP_PROBE, calls)
            for day, unsent in Counter(slot.day for slot in slots).items():
                await self._note(RELEASE_RESERVED, calls, day=day, unsent=unsent)
        except (DatabaseUnavailable, StopRequested) as error:
            log.warning(
                "%d calls of the day are lost to it: they were reserved and are not given back. %s",
                len(slots),
                error,
            )

    def _send_at(self, slot: Slot) -> float:
        """Now, or later because the call before this one went out later than its own slot.

        While the limit is far, whatever lies between two slots was nobody's: the rate alone says
        how soon the next may follow.
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
        asked = time.monotonic()
        state = await asyncio.to_thread(read_state, self.calls.database, self.account)
        if state.blocked_why is not None:
            raise self.calls.blocked(state.blocked_why)
        # Our own count is no reason here: this call has its place in it already.
        if state.closed_until is not None and not state.used_up:
            raise self.calls.exhausted(state.closed_until, state.closed_why or "")
        if state.unavailable_since is not None and self._prober is not asyncio.current_task():
            since, reason = state.unavailable_since, state.unavailable_reason or ""
            raise self.calls.unavailable(since, reason, state.next_probe_at)
        self._seen_open = asked

    async def _drop_probe(self) -> None:
        if self._takes_its_verdict():
            await self._surely(self._note(DROP_PROBE))
            self._verdict.set()

    def _takes_its_verdict(self) -> bool:
        """Whether it is this Task that probes; it does not any more, then."""
        if self._prober is not asyncio.current_task():
            return False
        self._prober = None
        return True

    def _raise_if_closed(self) -> None:
        if self.cancellation.is_cancelled():
            raise StopRequested(WHY_STOPPED)
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

    async def _surely(self, work: Coroutine[Any, Any, None]) -> None:
        """To its end, even if the Task that waits for it is cancelled meanwhile."""
        await asyncio.shield(self._start(work))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A Task of its own, which `close` waits for."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would complain where nobody waits for it any more

    def _sleep_in_thread(self, seconds: float) -> None:
        """Between two tries to reach the database. A stop, or `close`, ends them: neither waits for
        a database that is gone.
        """
        with self.cancellation.waking(self._hurry.set):
            if self._hurry.wait(seconds):
                raise StopRequested(WHY_STOPPED)
