"""What is done for one region that is held: the searches its plan has left, or a few more of a
finished one.

Knows neither HTTP nor SQL nor Dagster. A region's next search may be asked while others of it are
under way; each is stored, by a commit it waits for, before it counts as made. Whatever interrupts
leaves nothing half-done.
"""

import asyncio
import datetime as dt
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from mohe_assets.collection.cancellation import CancellationToken
from mohe_assets.collection.group_commit import GroupCommit
from mohe_assets.collection.place_source import PlaceSource, SearchResult
from mohe_assets.errors import ApiError, BadQuery, FailureKind
from mohe_assets.sources.naver_local.expected_gain import Tallies
from mohe_assets.sources.naver_local.refinement import Answered, RegionPlan
from mohe_assets.sources.naver_local.search_plan import Search, remaining
from mohe_assets.store.checkpoints import Checkpoints, Completion, Lease, PlanDone
from mohe_assets.store.executions import Executions
from mohe_assets.store.ledger import Ledger, ListChanged, StoredSearch, Write, attributed
from mohe_assets.store.refinement import Refinement
from mohe_assets.store.region_lifecycle import CachedIndex

log = logging.getLogger(__name__)

Cached_co = TypeVar("Cached_co", covariant=True)

# A region is refined for so many searches at a time, then the most promising region of the country
# is looked for again.
SLICE_SEARCHES = 20
# A slice ends early when its next search promises less than this share of what the best other
# region does.
SLICE_ENDS_BELOW = 0.5
# Nobody waits for a region that is complete: others that are at the same time are completed by the
# same four statements.
GATHER_REGIONS_SECONDS = 0.05
# Of searches that are as many as this at a time, nobody misses one for so long: what is stored
# together costs less.
GATHER_SECONDS, MANY = 0.01, 9
# What pays nationwide changes slowly: read again after so long, or when a run has made so many
# searches itself.
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
    """One region's end in this run; `completion` is set when COMPLETED or REFINED, `reason`
    otherwise.
    """

    outcome: Outcome
    lease: Lease
    completion: Completion | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLimits:
    """`in_flight`: searches at a time, which is also the most that a kill can make repeat."""

    in_flight: int
    calls_per_region: int


@dataclass(kw_only=True, slots=True)
class RegionTask:
    """What one region has left. `calls` were spent on it, `most_calls` may be; `error` is the first
    that was met.
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

    @property
    def has_more(self) -> bool:
        """Another search may be made now.

        Only one before the first is answered, or a region whose every search fails would cost the
        calls of as many as fit.
        """
        return (
            self.error is None
            and bool(self.searches)
            and (self.answered or not self.under_way)
            and self.calls + self.under_way < self.most_calls
        )

    @property
    def over(self) -> bool:
        """Nothing is under way, and nothing more may be made."""
        return not self.under_way and not self.has_more


@dataclass(kw_only=True)
class RegionWorker:
    """The work of one run, in one event loop; what blocks is done in threads. `dongs` gives the
    names of regions' dongs by code; `close` ends what the run has opened.
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
    tallies: "CachedTallies"
    cancellation: CancellationToken
    close: Callable[[], Awaitable[object]]
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
        """What these regions have left of their base plans."""
        return await asyncio.to_thread(self._begin, leases)

    def _begin(self, leases: Sequence[Lease]) -> list[RegionTask]:
        begun, dongs = (
            self.ledger.begun(leases),
            self.dongs([lease.region_code for lease in leases]),
        )
        found = []
        for lease in leases:
            history, calls = begun[lease.region_code]
            task = RegionTask(
                lease=lease, plan=(), dongs=dongs[lease.region_code], history=history, searches=deque(),
                calls=calls, most_calls=self.limits.calls_per_region,
            )  # fmt: skip
            try:
                task.plan = self.source.plan(lease.region_name)
                task.searches.extend(
                    remaining(task.plan, {(one.query, one.sort) for one in history})
                )
            except Exception as error:  # noqa: BLE001 - raised when the region is finished, as what its searches meet
                task.error = error
            found.append(task)
        return found

    async def search(self, task: RegionTask, search: Search) -> None:
        """One search of a region, which was counted as under way. What goes wrong is raised when
        the region is finished.
        """
        try:
            calls, answered = await self._search(task.lease, search)
            task.calls += calls
            task.history.append(answered)
            task.answered = True
        except Exception as error:  # noqa: BLE001 - as said
            task.error = task.error or error
        finally:
            task.under_way -= 1

    async def finish(self, task: RegionTask) -> RegionOutcome:
        """A region that is over. Raises what its searches met: ApiError, LeaseLost, StopRequested."""
        if task.error is not None:
            raise task.error
        if task.searches:
            reason = f"{task.calls} calls were spent on it without completing it; MOHE_MAX_CALLS_PER_REGION allows no more."
            return await self.fail(task.lease, FailureKind.CALL_BUDGET, reason, final=True)
        refinement_plan = await self._refinement_plan(task.lease, task.dongs, task.history)
        completion = await self._complete(
            PlanDone(
                lease=task.lease, plan=task.plan, expected_gain=refinement_plan.expected_gain()
            )
        )
        return RegionOutcome(outcome=Outcome.COMPLETED, lease=task.lease, completion=completion)

    async def refine(self, lease: Lease) -> RegionOutcome:
        """A few searches beyond the base plan, as long as they promise more than other regions do.
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
            spent, answered = await self._search(lease, best[0])
            self.tallies.searches += 1
            calls += spent
            refinement_plan.learn(answered)
        completion = await asyncio.to_thread(self._settle, lease, refinement_plan.expected_gain())
        return RegionOutcome(outcome=Outcome.REFINED, lease=lease, completion=completion)

    def _settle(self, lease: Lease, expected_gain: float) -> Completion:
        self.refinement.settle(lease, expected_gain=expected_gain, also=self._tally)
        return self.checkpoints.completions([lease.region_code], reported_too=True)[0]

    async def _refinement_plan(
        self, lease: Lease, dongs: Sequence[str], history: Sequence[Answered]
    ) -> RegionPlan:
        return self.source.refinement_plan(
            lease.region_name, dongs, history, await _current(self.tallies)
        )

    def _tally(self, connection: Connection) -> None:
        self.executions.tally(connection, self.run_id)

    async def _search(self, lease: Lease, search: Search) -> tuple[int, Answered]:
        """One search, asked and stored; returns the calls it took, and what it brought."""
        try:
            answer = await self.source.perform(search)
        except BadQuery as error:
            log.warning(
                "%s: the API refuses the query %r: %s", lease.region_name, search.query, error
            )
            await self._write(Write.skipped(lease, search, calls=error.calls, reason=str(error)))
            return error.calls, _answered(search)
        except ApiError as error:
            if error.calls:
                await self._write(Write.failed(lease, search, calls=error.calls, reason=str(error)))
            raise
        return answer.calls, _answered(search, answer, await self._store(lease, search, answer))

    async def _store(self, lease: Lease, search: Search, answer: SearchResult) -> tuple[int, ...]:
        answered_at = dt.datetime.now(dt.UTC)
        while True:
            version, index = await _current(self.index)
            stored = StoredSearch(
                search=search, answer=answer.raw, result_count=answer.result_count, calls=answer.calls,
                places=attributed(answer.places, index), set_aside=answer.set_aside, answered_at=answered_at,
            )  # fmt: skip
            try:
                return await self._write(Write.done(lease, stored, list_version=version))
            except ListChanged:  # it has names this run does not know
                self.index.outdated(version)

    async def fail(
        self, lease: Lease, kind: FailureKind, reason: str, *, final: bool = False
    ) -> RegionOutcome:
        """The region's own error: FAILED with the reason, or COMPLETED as before if it was being
        refined.
        """
        log.error("%s: %s", lease.region_name, reason)
        await asyncio.to_thread(
            self.checkpoints.fail, lease, kind=kind, message=reason, final=final, also=self._tally
        )
        return RegionOutcome(outcome=Outcome.FAILED, lease=lease, reason=reason)


@dataclass(kw_only=True)
class CachedTallies:
    """The nationwide counts, read once for all regions and again when they are old; `searches` were
    made since.
    """

    ledger: Ledger
    searches: int = 0
    _read: Tallies = field(default_factory=dict)
    _read_at: float = -math.inf
    _reading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def known(self) -> Tallies | None:
        """As `current`, without a look at the database: None when that takes one."""
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
    """What is cached, in a thread where that takes a statement: a thread for each search would cost
    more than the rest of it.
    """
    known = cache.known
    return known if known is not None else await asyncio.to_thread(cache.current)


def _answered(
    search: Search, answer: SearchResult | None = None, place_ids: Sequence[int] = ()
) -> Answered:
    """A search as its region's refinement learns from it; one the API refuses has no answer."""
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
