"""Work on one held region: the searches that its plan lacks, or refinement of a completed region.

Knows neither HTTP nor SQL nor Dagster. Several searches of a region may be in flight; each counts
as made once its commit has returned, so an interruption leaves nothing half-done.
"""

import asyncio
import datetime as dt
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Protocol, TypeVar

from mohe_assets.collection.cancellation import CancellationToken
from mohe_assets.collection.group_commit import GroupCommit
from mohe_assets.collection.place_source import PlaceSource, RefinementPlan
from mohe_assets.collection.rate_limiter import calls_for
from mohe_assets.domain.search_plan import Answered, Search, SearchResult, Tallies, remaining
from mohe_assets.errors import (
    AnswerChanged,
    ApiBlocked,
    ApiError,
    ApiUnavailable,
    BadQuery,
    FailureKind,
    QuotaExhausted,
    RequestRefused,
    TransientApiError,
    UnusableAnswer,
)
from mohe_assets.store.checkpoints import Checkpoints, Completion, Lease, PlanDone
from mohe_assets.store.database import Transaction
from mohe_assets.store.executions import Executions
from mohe_assets.store.ledger import (
    FailedSearch,
    Ledger,
    ListChanged,
    StoredSearch,
    Write,
    attributed,
)
from mohe_assets.store.refinement import Refinement
from mohe_assets.store.region_lifecycle import CachedIndex

log = logging.getLogger(__name__)

Cached_co = TypeVar("Cached_co", covariant=True)

# Searches of one slice of refinement; then the region with the highest expected gain is chosen
# again.
SLICE_SEARCHES = 20
# A slice ends early when its next search is expected to gain less than this share of the best other
# region.
SLICE_ENDS_BELOW = 0.5
# Delay before regions are completed, so that one statement completes several.
GATHER_REGIONS_SECONDS = 0.05
# Delay before searches are stored if the last group had MANY or more: a group costs less.
GATHER_SECONDS, MANY = 0.01, 9
# Failed searches of a region in one attempt while none is answered; the next attempt begins with
# others.
MOST_FAILED = 3
# Nationwide tallies change slowly: they are read again after this time, or after this many searches
# of the run.
TALLIES_SECONDS, TALLIES_SEARCHES = 30.0, 300


class Outcome(StrEnum):
    """How a run left one region."""

    COMPLETED = "completed"
    FAILED = "failed"
    REFINED = "refined"
    RELEASED = "released"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionOutcome:
    """The end of a region in this run; `completion` is set when COMPLETED or REFINED, `reason`
    otherwise.
    """

    outcome: Outcome
    lease: Lease
    completion: Completion | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLimits:
    """`in_flight`: concurrent searches, also the most that a kill makes repeat."""

    in_flight: int
    calls_per_region: int


class ApiHealth(Protocol):
    """Health of the API, shared by all processes."""

    @property
    def unavailable(self) -> ApiUnavailable | None:
        """Set when this run must make no more calls."""
        ...

    async def is_unavailable(self) -> bool:
        """Return whether the API is unavailable, as all processes know it."""
        ...

    def judged_by_caller(self) -> AbstractContextManager[None]:
        """Inside, an answer is no verdict; the caller gives it."""
        ...

    async def usable(self) -> None:
        """Note a usable answer: earlier failures count no more."""
        ...

    async def declare_unavailable(
        self, reason: str, *, answers_changed: bool = False
    ) -> ApiUnavailable:
        """Record that the API is at fault, and return the error to raise."""
        ...


@dataclass(kw_only=True, slots=True)
class RegionTask:
    """The searches a region still needs. `calls` were spent on it, `most_calls` may be; `failed`
    are the searches that failed in this attempt, `error` ends it.
    """

    lease: Lease
    plan: Sequence[Search]
    dongs: Sequence[str]
    history: list[Answered]
    searches: deque[Search]
    calls: int
    most_calls: int
    error: Exception | None = None
    answered: bool = False
    under_way: int = 0
    failed: list[FailedSearch] = field(default_factory=list)
    began_at: float = field(default_factory=time.monotonic)

    @property
    def has_more(self) -> bool:
        """Return whether another search may be made now.

        Until the first answer only one search is in flight: a region whose every search fails would
        cost many calls.
        """
        return (
            self.error is None
            and bool(self.searches)
            and (self.answered or (not self.under_way and len(self.failed) < MOST_FAILED))
            and self.calls + self.under_way < self.most_calls
        )

    @property
    def over(self) -> bool:
        """Return whether nothing is in flight and nothing more may be made."""
        return not self.under_way and not self.has_more


@dataclass(kw_only=True)
class RegionWorker:
    """The work of one run, in one event loop; blocking calls run in threads. `dongs` returns the
    names of the dongs by region code; `close` ends the resources that the run opened.
    """

    run_id: str
    limits: RunLimits
    source: PlaceSource
    index: CachedIndex
    dongs: Callable[[Collection[str]], Mapping[str, Sequence[str]]]
    checkpoints: Checkpoints
    refinement: Refinement
    executions: Executions
    ledger: Ledger
    health: ApiHealth
    tallies: "CachedTallies"
    cancellation: CancellationToken
    close: Callable[[], Awaitable[object]]
    # Whether a search was made, failed or not: the first of a run is made alone.
    has_searched: bool = False
    first_search_made: Callable[[], object] | None = None
    _answered_at: float = -math.inf
    _usable_at: float = -math.inf
    _failed_in_a_row: int = 0
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _write: GroupCommit[Write, tuple[int, ...]] = field(init=False)
    _complete: GroupCommit[PlanDone, Completion] = field(init=False)

    def __post_init__(self) -> None:
        self._write = GroupCommit(
            work=self.ledger.write_all, gather_seconds=GATHER_SECONDS, gather_from=MANY
        )
        self._complete = GroupCommit(
            work=lambda done: self.checkpoints.complete(done, also=self._tally),
            gather_seconds=GATHER_REGIONS_SECONDS,
        )

    async def begin(self, leases: Sequence[Lease]) -> list[RegionTask]:
        """Return what these regions lack of their base plans."""
        return await asyncio.to_thread(self._begin, leases)

    def _begin(self, leases: Sequence[Lease]) -> list[RegionTask]:
        begun, dongs = (
            self.ledger.begun(leases),
            self.dongs([lease.region_code for lease in leases]),
        )
        found = []
        for lease in leases:
            history, calls, failed = begun[lease.region_code]
            task = RegionTask(
                lease=lease,
                plan=(),
                dongs=dongs[lease.region_code],
                history=history,
                searches=deque(),
                calls=calls,
                most_calls=self.limits.calls_per_region,
            )
            try:
                task.plan = self.source.plan(lease.region_name)
                left = remaining(task.plan, {(one.query, one.sort) for one in history})
                # Searches that failed before come last, so that the others are stored first.
                task.searches.extend(sorted(left, key=lambda search: search.identity in failed))
            except Exception as error:  # noqa: BLE001 - raised when the region is finished
                task.error = error
            found.append(task)
        return found

    async def search(self, task: RegionTask, search: Search) -> None:
        """Make a search that was counted as under way.

        An error that ends the attempt is raised when the region is finished.
        """
        try:
            found = await self._search(task.lease, search)
            if isinstance(found, FailedSearch):
                task.calls += found.calls
                task.failed.append(found)
            else:
                calls, answered = found
                task.calls += calls
                task.history.append(answered)
                task.answered = True
        except Exception as error:  # noqa: BLE001 - raised when the region is finished
            task.error = task.error or error
        finally:
            task.under_way -= 1
            self._note_search()

    async def finish(self, task: RegionTask) -> RegionOutcome:
        """Complete or fail a region that is over.

        Raises what ended its searches: ApiError, LeaseLost, StopRequested.
        """
        if task.error is not None:
            raise task.error
        lease, skipped, missing = task.lease, 0, task.failed
        if task.failed:
            skipped, missing = await self._count_failures(lease, task.failed)
        if task.calls >= task.most_calls and (task.searches or missing):
            reason = (
                f"{task.calls} calls were spent on it without completing it; "
                "MOHE_MAX_CALLS_PER_REGION allows no more."
            )
            return await self.fail(lease, FailureKind.CALL_BUDGET, reason, final=True)
        if task.searches or missing:
            return await self._fail_for_searches(task, missing)
        if not any(one.place_ids for one in task.history):
            if self._usable_at < task.began_at:
                await self._check_api(lease.region_code)
            is_empty = not skipped and all(not one.result_count for one in task.history)
            if not is_empty or lease.failures + 1 < self.checkpoints.max_attempts:
                return await self._fail_without_places(task, skipped)
            log.warning(
                "%s is completed without a place: each of its searches came back empty again",
                lease.region_name,
            )
        refinement_plan = await self._refinement_plan(lease, task.dongs, task.history)
        completion = await self._complete(
            PlanDone(lease=lease, plan=task.plan, expected_gain=refinement_plan.expected_gain())
        )
        return RegionOutcome(outcome=Outcome.COMPLETED, lease=lease, completion=completion)

    async def _count_failures(
        self, lease: Lease, failed: Sequence[FailedSearch]
    ) -> tuple[int, list[FailedSearch]]:
        """Charge these searches with an attempt, once it is known that the API is not at fault.

        Return the number of skipped searches of the plan, and those of these searches to be made
        again.
        """
        if self._answered_at < failed[-1].failed_at:
            await self._check_api(lease.region_code)
        skipped = await asyncio.to_thread(self.ledger.count_failures, lease, failed)
        begun = await asyncio.to_thread(self.ledger.begun, [lease])
        still = begun[lease.region_code].failed
        for one in failed:
            if one.search.identity not in still:
                log.warning(
                    "%s: the search %r is skipped: %s",
                    lease.region_name,
                    one.search.query,
                    one.reason,
                )
        return skipped, [one for one in failed if one.search.identity in still]

    async def _fail_for_searches(
        self, task: RegionTask, missing: Sequence[FailedSearch]
    ) -> RegionOutcome:
        first = (missing or task.failed)[0]
        reason = first.reason
        if task.history:
            count = len(task.searches) + len(missing)
            reason = (
                f"{count} of {len(task.plan)} searches failed, the others are stored; "
                f"{first.search.query!r}: {reason}"
            )
        kind = FailureKind.ANSWER_CHANGED if first.answer_changed else FailureKind.TRANSIENT
        return await self.fail(task.lease, kind, reason, bounded_elsewhere=bool(task.history))

    async def _fail_without_places(self, task: RegionTask, skipped: int) -> RegionOutcome:
        """Fail a region without any place, and have its searches made again: no region is empty."""
        rejected = sum(one.result_count for one in task.history)
        empty = sum(not one.result_count for one in task.history) - skipped
        reason = (
            f"None of its {len(task.plan)} searches brought a place: "
            f"{max(0, empty)} came back empty, "
            f"{skipped} were skipped, {rejected} items were rejected."
        )
        if task.failed:
            reason += f" {task.failed[0].search.query!r}: {task.failed[0].reason}"
        await asyncio.to_thread(self.ledger.ask_again, task.lease, reason)
        return await self.fail(task.lease, FailureKind.NO_PLACES, reason)

    async def refine(self, lease: Lease) -> RegionOutcome:
        """Make a few searches beyond the base plan, while they promise more than other regions do.
        Raises as `finish`.
        """
        (task,) = await self.begin([lease])
        if task.error is not None:
            raise task.error
        refinement_plan, calls = (
            await self._refinement_plan(lease, task.dongs, task.history),
            task.calls,
        )
        enough = await asyncio.to_thread(self.refinement.next_expected_gain) * SLICE_ENDS_BELOW
        for _ in range(SLICE_SEARCHES):
            best = refinement_plan.best()
            if best is None or best[1] < enough or calls >= self.limits.calls_per_region:
                break
            found = await self._search(lease, best[0])
            self._note_search()
            self.tallies.searches += 1
            if isinstance(found, FailedSearch):
                calls += found.calls
                task.failed.append(found)
                refinement_plan.learn(_answered(best[0]))  # the slice takes another search
                if not task.answered and len(task.failed) >= MOST_FAILED:
                    break
                continue
            spent, answered = found
            calls += spent
            task.answered = True
            refinement_plan.learn(answered)
        if task.failed:
            await self._count_failures(lease, task.failed)
            if not task.answered:
                failed = await self.fail(lease, FailureKind.TRANSIENT, task.failed[0].reason)
                return replace(failed, outcome=Outcome.RELEASED)  # it stays COMPLETED
        completion = await asyncio.to_thread(self._settle, lease, refinement_plan.expected_gain())
        return RegionOutcome(outcome=Outcome.REFINED, lease=lease, completion=completion)

    def _settle(self, lease: Lease, expected_gain: float) -> Completion:
        self.refinement.settle(lease, expected_gain=expected_gain, also=self._tally)
        return self.checkpoints.completions([lease.region_code], reported_too=True)[0]

    async def _refinement_plan(
        self, lease: Lease, dongs: Sequence[str], history: Sequence[Answered]
    ) -> RefinementPlan:
        return self.source.refinement_plan(
            lease.region_name, dongs, history, await _current(self.tallies)
        )

    def _tally(self, transaction: Transaction) -> None:
        self.executions.tally(transaction, self.run_id)

    async def _search(self, lease: Lease, search: Search) -> tuple[int, Answered] | FailedSearch:
        """Make and store a search; return its calls and answer, or its failure.

        Raises an error that concerns more than this search: an API that is closed or unavailable,
        LeaseLost.
        """
        began = time.monotonic()
        token = calls_for.set(lease.region_code)
        try:
            answer = await self.source.perform(search)
        except ApiError as error:
            if error.calls:
                await self._write(Write.failed(lease, search, calls=error.calls, reason=str(error)))
            if self.health.unavailable is not None:
                raise self.health.unavailable from error
            if isinstance(error, QuotaExhausted | ApiBlocked | ApiUnavailable):
                raise
            log.warning("%s: the search %r failed: %s", lease.region_name, search.query, error)
            failed_at = time.monotonic()
            self._failed_in_a_row += 1
            # A failure after answers is the search's own, until the next search fails, too.
            is_doubtful = self._failed_in_a_row > 1 or not self.has_answers
            if isinstance(error, RequestRefused) or (self._answered_at < began and is_doubtful):
                await self._check_api(lease.region_code)
            return FailedSearch(
                search=search,
                failed_at=failed_at,
                reason=str(error),
                calls=error.calls,
                refused=isinstance(error, BadQuery),
                answer_changed=isinstance(error, AnswerChanged | UnusableAnswer),
            )
        finally:
            calls_for.reset(token)
        self._note_answer(usable=bool(answer.places))
        return answer.calls, _answered(search, answer, await self._store(lease, search, answer))

    async def probe_if_unavailable(self) -> None:
        """Find out with one call whether an unavailable API answers again; claims no region.

        Raises ApiUnavailable if it does not, or if the next probe is not due.
        """
        if await self.health.is_unavailable():
            await self._check_api("")

    async def _check_api(self, region_code: str) -> None:
        """Find out who is at fault: repeat a search of another region that had places.

        Raises ApiUnavailable if it has none now.
        """
        checked_at = time.monotonic()
        async with self._checking:
            if self._usable_at > checked_at:
                return
            if self.health.unavailable is not None:
                raise self.health.unavailable
            known = await asyncio.to_thread(self.ledger.known_search, without=region_code)
            token = calls_for.set("")
            try:
                with self.health.judged_by_caller():
                    answer = await self.source.perform(
                        known or self.source.probe_search(without=region_code)
                    )
            except (BadQuery, RequestRefused, TransientApiError, AnswerChanged) as error:
                raise self.health.unavailable or await self.health.declare_unavailable(
                    _every_query_is_refused(error) if isinstance(error, BadQuery) else str(error)
                ) from error
            except ApiError as error:
                raise self.health.unavailable or error from error
            finally:
                calls_for.reset(token)
            if not answer.places:
                reasons = Counter(one.reason.value for one in answer.set_aside)
                found = ", ".join(
                    f"{count} items with {reason}" for reason, count in reasons.items()
                )
                raise await self.health.declare_unavailable(
                    "answers changed: a search that had places has none now "
                    f"({found or 'no items'})",
                    answers_changed=True,
                )
            await self.health.usable()
            self._note_answer(usable=True)

    def _note_search(self) -> None:
        if not self.has_searched:
            self.has_searched = True
            if self.first_search_made is not None:
                self.first_search_made()

    @property
    def has_answers(self) -> bool:
        """Return whether the run has received an answer."""
        return self._answered_at > -math.inf

    def _note_answer(self, *, usable: bool) -> None:
        self._failed_in_a_row, self._answered_at = 0, time.monotonic()
        if usable:
            self._usable_at = self._answered_at

    async def _store(self, lease: Lease, search: Search, answer: SearchResult) -> tuple[int, ...]:
        answered_at = dt.datetime.now(dt.UTC)
        while True:
            version, index = await _current(self.index)
            stored = StoredSearch(
                search=search,
                answer=answer.raw,
                result_count=answer.result_count,
                calls=answer.calls,
                places=attributed(answer.places, index),
                set_aside=answer.set_aside,
                answered_at=answered_at,
            )
            try:
                return await self._write(Write.done(lease, stored, list_version=version))
            except ListChanged:  # the new list has names this run does not know
                self.index.outdated(version)

    async def fail(
        self,
        lease: Lease,
        kind: FailureKind,
        reason: str,
        *,
        final: bool = False,
        bounded_elsewhere: bool = False,
    ) -> RegionOutcome:
        """Mark the region FAILED with the reason (COMPLETED as before, if it was refined)."""
        log.error("%s: %s", lease.region_name, reason)
        fail = partial(
            self.checkpoints.fail, lease, kind=kind, message=reason, final=final, also=self._tally
        )
        await asyncio.to_thread(fail, bounded_elsewhere=bounded_elsewhere)
        return RegionOutcome(outcome=Outcome.FAILED, lease=lease, reason=reason)


@dataclass(kw_only=True)
class CachedTallies:
    """Nationwide counts, read once for all regions and again when they are old; `searches` were
    made since.
    """

    ledger: Ledger
    searches: int = 0
    _read: Tallies = field(default_factory=dict)
    _read_at: float = -math.inf
    _reading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def known(self) -> Tallies | None:
        """Return `current` if that needs no statement, otherwise None."""
        is_old = (
            time.monotonic() - self._read_at > TALLIES_SECONDS or self.searches >= TALLIES_SEARCHES
        )
        return None if is_old else self._read

    def current(self) -> Tallies:
        with self._reading:
            if self.known is None:
                self.searches = 0
                self._read, self._read_at = self.ledger.tallies(), time.monotonic()
            return self._read


class _Cache(Protocol[Cached_co]):
    @property
    def known(self) -> Cached_co | None: ...

    def current(self) -> Cached_co: ...


async def _current(cache: _Cache[Cached_co]) -> Cached_co:
    """Return the cached value; use a thread only where a statement is needed, because a thread per
    search would cost more than the rest of the search.
    """
    known = cache.known
    return known if known is not None else await asyncio.to_thread(cache.current)


def _every_query_is_refused(error: BadQuery) -> str:
    return (
        f"every query is refused, also one that was answered before: {error}. "
        "Our request is at fault; "
        "look at MOHE_SEARCH_KEYWORDS and the base URL, or update mohe-assets"
    )


def _answered(
    search: Search, answer: SearchResult | None = None, place_ids: Sequence[int] = ()
) -> Answered:
    """Return a search as refinement learns from it; a search that the API refuses has no answer."""
    return Answered(
        query=search.query,
        sort=search.sort,
        keyword=search.keyword,
        stage=search.stage,
        dong_name=search.dong_name,
        result_count=answer.result_count if answer else 0,
        place_ids=tuple(place_ids),
        categories=tuple(place.category for place in answer.places) if answer else (),
    )
