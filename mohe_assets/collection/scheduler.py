"""Schedule the searches of one run, and claim the regions they need. One event loop.

Regions are searched in the order of their claims: first all searches of the oldest. New regions are
claimed when the open ones soon have no search left, so that few regions are unfinished at any
moment.
"""

import asyncio
import datetime as dt
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace

from mohe_assets.collection.region_worker import Outcome, RegionOutcome, RegionTask, RegionWorker
from mohe_assets.domain.search_plan import Search
from mohe_assets.errors import (
    AnswerChanged,
    ApiBlocked,
    ApiError,
    ApiUnavailable,
    DatabaseUnavailable,
    FailureKind,
    LeaseLost,
    QuotaExhausted,
    StopRequested,
)
from mohe_assets.logs import about
from mohe_assets.store.checkpoints import Completion, Lease
from mohe_assets.store.executions import ReapResult
from mohe_assets.text.cleaning import one_line

log = logging.getLogger(__name__)

# Typical number of searches of a region: regions claimed ahead have about as many searches as may
# be in flight.
AHEAD = 15
# Regions refined at a time: a held region cannot be chosen, so with hundreds held none of the best
# would be left.
MOST_REFINED = 48
# Delay before claiming again after a claim found nothing.
NONE_LEFT_SECONDS = 1.0
# Claims of due regions whose rows are locked, and the seconds before each.
LOCKED_CLAIMS, LOCKED_SECONDS = 20, 0.25
# Users of the batch system this replaces look for this line in the log.
INTERRUPTED_FOUND = "중단된 배치 발견 - 자동 재시작합니다"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimFilter:
    """Which regions a run may claim: those in `codes`, or any without it.

    `probe_now`: probe an unavailable API without waiting for the next probe. `force_retry` also
    claims FAILED regions before their time, `recollect_completed_before` those COMPLETED before
    that moment, with a new round. `refine` claims COMPLETED regions only, for searches beyond their
    base plan.
    """

    codes: frozenset[str] | None = None
    force_retry: bool = False
    recollect_completed_before: dt.datetime | None = None
    refine: bool = False
    probe_now: bool = False


def region_facts(region: Lease | Completion) -> dict[str, object]:
    """Return the fields of a log line about this region."""
    return {
        "region_code": region.region_code,
        "region_name": region.region_name,
        "round": region.round,
        "attempt": region.attempt,
    }


def log_reclaimed(reaped: ReapResult) -> None:
    """Log the regions reclaimed from dead runs."""
    if reaped.dead_runs:
        log_resumed(reaped.dead_runs, len(reaped.regions))
    elif reaped.regions:
        log.warning("%d regions whose lease expired are taken back.", len(reaped.regions))


def log_resumed(run_ids: Sequence[str], regions: int) -> None:
    """The log line for interrupted runs, once for each, with how many regions are left."""
    log.warning("%s (실행 %s, 지역 %d개)", INTERRUPTED_FOUND, ", ".join(run_ids), regions)


@dataclass(kw_only=True)
class SearchScheduler:
    """`reached` receives each region's outcome. `held` has the leases by region code, `taken` all
    regions held at any time; `halted` is the reason the API cannot be used, or None.
    """

    claim_filter: ClaimFilter
    work: RegionWorker
    reached: Callable[[RegionOutcome], object]
    held: dict[str, Lease] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    halted: ApiError | None = None
    _open: list[RegionTask] = field(default_factory=list)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _in_flight: int = 0
    _claiming: bool = False
    _tried: set[str] = field(default_factory=set)
    _claim_again_at: float = 0.0
    _error: Exception | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, *, give_up_seconds: float) -> None:
        """Return when no region is left to claim, the API cannot be used, or a stop is requested;
        then searches in flight get `give_up_seconds`.

        Raises an error that concerns more than a region: DatabaseUnavailable, or a bug of ours.
        """
        loop = asyncio.get_running_loop()
        self.work.first_search_made = self._changed.set
        try:
            await self.work.probe_if_unavailable()
        except (QuotaExhausted, ApiBlocked, ApiUnavailable) as error:
            self.halted = error
        except StopRequested:
            return
        with self.work.cancellation.waking(lambda: loop.call_soon_threadsafe(self._changed.set)):
            while not self.work.cancellation.is_cancelled() and self._start_ready():
                await self._changed.wait()
                self._changed.clear()
        await self._drain(give_up_seconds)
        if self._error is not None:
            raise self._error

    async def _drain(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        # Loop, because the last search of a region starts its completion.
        while self._running and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(self._running, timeout=left)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _start_ready(self) -> bool:
        """Start everything that may be started now; return False when nothing is in flight."""
        while (
            self._free
            and (task := next((one for one in self._open if one.has_more), None)) is not None
        ):
            task.under_way += 1
            self._start(self._search(task, task.searches.popleft()), in_flight=1)
        if (
            not self._claiming
            and self.halted is None
            and (wanted := self._wanted)
            and time.monotonic() >= self._claim_again_at
        ):
            self._claiming = True
            self._start(self._claim_some(wanted))
        return bool(self._running)

    @property
    def _wanted(self) -> int:
        """Return the number of regions to claim: one per free slot, or a few before the slots are
        free.
        """
        if self._free or self.claim_filter.refine:
            return self._free
        in_flight = self.work.limits.in_flight
        left = sum(len(task.searches) for task in self._open)
        return math.ceil(in_flight / AHEAD) if left < in_flight else 0

    @property
    def _free(self) -> int:
        # The first search runs alone: a fault of the whole API is found with one call.
        most = self.work.limits.in_flight if self.work.has_searched else 1
        return (min(most, MOST_REFINED) if self.claim_filter.refine else most) - self._in_flight

    def _halt(self, reason: ApiError) -> None:
        """Stop using the API: regions that still need it are released."""
        self.halted = self.halted or reason
        for task in list(self._open):
            if task.searches:
                task.error = task.error or self.halted
                self._end_if_over(task)

    def _end_if_over(self, task: RegionTask) -> None:
        if task.over and task in self._open:
            self._open.remove(task)
            self._start(self._end(task.lease, self.work.finish(task)))

    def _start(self, work: Coroutine[object, object, None], *, in_flight: int = 0) -> None:
        self._in_flight += in_flight
        task = asyncio.create_task(work)
        self._running.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._in_flight -= in_flight
            self._running.discard(task)
            self._changed.set()
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                self._error = self._error or error
                self.work.cancellation.cancel()

        task.add_done_callback(ended)

    async def _search(self, task: RegionTask, search: Search) -> None:
        with about(**region_facts(task.lease)):
            await self.work.search(task, search)
        self._end_if_over(task)
        if isinstance(task.error, QuotaExhausted | ApiBlocked | ApiUnavailable):
            self._halt(task.error)

    async def _end(self, lease: Lease, end: Awaitable[RegionOutcome]) -> None:
        """Record how a region ended, unless the run is stopping."""
        try:
            with about(**region_facts(lease)):
                outcome = await self._explained(lease, end)
        except StopRequested:
            return  # released with the other leases
        # A region that this run completed is newer than the request, but only if both clocks agree.
        # A region that was lost (to a person or an expired lease) is due again like any other.
        if outcome.outcome not in (Outcome.REFINED, Outcome.LOST) and (
            outcome.outcome is not Outcome.COMPLETED
            or self.claim_filter.recollect_completed_before is not None
        ):
            self._tried.add(lease.region_code)
        self.held.pop(lease.region_code, None)
        if outcome.outcome is Outcome.REFINED:
            self._claim_again_at = 0.0  # it may have the highest gain again
        self.reached(outcome)

    async def _explained(self, lease: Lease, end: Awaitable[RegionOutcome]) -> RegionOutcome:
        try:
            return await end
        except (QuotaExhausted, ApiBlocked, ApiUnavailable) as error:
            self._halt(error)
            if isinstance(error, ApiUnavailable) and error.answers_changed:
                await asyncio.to_thread(self.work.ledger.ask_again, lease, str(error))
            await asyncio.to_thread(self.work.checkpoints.release, lease)
            return RegionOutcome(outcome=Outcome.RELEASED, lease=lease, reason=str(error))
        except LeaseLost as error:
            log.warning("%s", error)
            return RegionOutcome(outcome=Outcome.LOST, lease=lease, reason=str(error))
        except ApiError as error:
            changed = isinstance(error, AnswerChanged)
            kind = FailureKind.ANSWER_CHANGED if changed else FailureKind.TRANSIENT
            failed = await self.work.fail(lease, kind, str(error))
            # A refinement that failed left its region COMPLETED.
            return replace(failed, outcome=Outcome.RELEASED) if self.claim_filter.refine else failed
        except (DatabaseUnavailable, StopRequested):
            raise
        except Exception as error:
            # A bug of ours in this region: fail the region, so that the next run continues, and
            # raise.
            await self.work.fail(
                lease, FailureKind.INTERNAL, one_line(f"{type(error).__name__}: {error}")
            )
            raise

    async def _claim_some(self, most: int) -> None:
        try:
            found = await asyncio.to_thread(self._claim, most)
            if not found and self.claim_filter.codes is None:
                # Before giving up, reclaim the regions of runs that died.
                reaped = await asyncio.to_thread(
                    self.work.executions.reap_dead_runs,
                    self.work.checkpoints,
                    own_run=self.work.run_id,
                )
                log_reclaimed(reaped)
                found = await asyncio.to_thread(self._claim, most) if reaped.regions else []
                if not found and not self.claim_filter.refine and not self._in_flight:
                    found = await self._claim_what_was_locked(most)
            if not found:
                self._claim_again_at = time.monotonic() + NONE_LEFT_SECONDS
            elif self.claim_filter.refine:
                for lease in found:
                    self._start(self._end(lease, self.work.refine(lease)), in_flight=1)
            else:
                tasks = await self.work.begin(found)
                self._open += tasks
                for task in tasks:
                    self._end_if_over(task)
                if self.halted is not None:  # halted during the claim
                    self._halt(self.halted)
        finally:
            self._claiming = False

    async def _claim_what_was_locked(self, most: int) -> list[Lease]:
        """Claim due regions whose rows were locked, which a claim skips."""
        for _ in range(LOCKED_CLAIMS):
            without = self._tried.union(self.held)
            if self.work.cancellation.is_cancelled() or not await asyncio.to_thread(
                self.work.checkpoints.due, without=without
            ):
                break
            await asyncio.sleep(LOCKED_SECONDS)
            if found := await asyncio.to_thread(self._claim, most):
                return found
        return []

    def _claim(self, most: int) -> list[Lease]:
        """Claim regions. A region is tried once in a run; its next attempt is a later run's."""
        claim_filter = self.claim_filter
        # A lease is released in the database before it leaves `held`: do not claim it in between.
        without = self._tried.union(self.held)
        if claim_filter.refine:
            found = self.work.refinement.claim(self.work.run_id, most, without=without)
        else:
            found = self.work.checkpoints.claim(
                self.work.run_id,
                limit=most,
                codes=claim_filter.codes,
                without=without,
                force_retry=claim_filter.force_retry,
                recollect_completed_before=claim_filter.recollect_completed_before,
            )
        # Record them first: everything in `held` is released at the end.
        self.held.update({lease.region_code: lease for lease in found})
        self.taken.update(self.held)
        return found
