"""What a worker does with one region it holds: the searches its plan has left, or a few more of a finished one.

Knows neither HTTP nor SQL nor Dagster. A thread stores each search before it sends its next; whatever interrupts leaves nothing
half-done.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sqlalchemy import Connection

from mohe_assets.errors import ApiError, BadQuery, FailureKind, StopRequested
from mohe_assets.promise import Tallies
from mohe_assets.refinement import Answered, RegionPlan
from mohe_assets.search_plan import Search, remaining
from mohe_assets.shared_work import Offers, Todo
from mohe_assets.sources import Answer, PlaceSource
from mohe_assets.store.checkpoints import Checkpoints, Completion, Lease
from mohe_assets.store.executions import Executions
from mohe_assets.store.ledger import Ledger, ListChanged, StoredSearch, attributed
from mohe_assets.store.lifecycle import CachedIndex
from mohe_assets.store.refinement import Refinement

log = logging.getLogger(__name__)

# A region is refined for so many searches at a time, then the most promising region of the country is looked for again.
SLICE_SEARCHES = 20
# A slice ends early when its next search promises less than this share of what the best other region does.
SLICE_ENDS_BELOW = 0.5
# What pays nationwide changes slowly: read again after so long.
TALLIES_SECONDS = 30.0


class Outcome(StrEnum):
    """How a run left one region."""

    COMPLETED = "completed"
    FAILED = "failed"
    REFINED = "refined"
    RELEASED = "released"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionOutcome:
    """One region's end in this run; `completion` is set when COMPLETED or REFINED, `reason` otherwise."""

    outcome: Outcome
    lease: Lease
    completion: Completion | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """`threads` is also the most searches that a kill can make repeat."""

    threads: int
    calls_per_region: int
    heartbeat_seconds: float


@dataclass(frozen=True, kw_only=True)
class RegionWork:
    """The work of one run; all its threads share it. `dongs` gives the names of a region's dongs by its code."""

    run_id: str
    limits: Limits
    source: PlaceSource
    index: CachedIndex
    dongs: Callable[[str], Sequence[str]]
    checkpoints: Checkpoints
    refinement: Refinement
    executions: Executions
    ledger: Ledger
    tallies: "CachedTallies"
    stop: threading.Event
    offers: Offers = field(default_factory=Offers)

    def collect(self, lease: Lease) -> RegionOutcome:
        """The searches its base plan has left. Raises ApiError, LeaseLost, StopRequested."""
        plan = self.source.plan(lease.region_name)
        done, calls = self.ledger.done(lease)
        todo = Todo(lease=lease, searches=deque(remaining(plan, done)), calls=calls, most_calls=self.limits.calls_per_region)
        with self.offers.open(todo):
            while (search := todo.take(wait=True)) is not None:
                self._do(todo, search)
        if todo.error is not None:
            raise todo.error
        if todo.searches:
            reason = f"{todo.calls} calls were spent on it without completing it; MOHE_MAX_CALLS_PER_REGION allows no more."
            return self.fail(lease, FailureKind.CALL_BUDGET, reason, final=True)
        self.checkpoints.complete(lease, plan, promise=_promise(self._depth(lease)), also=self._tally)
        return self._outcome(Outcome.COMPLETED, lease)

    def help(self, over: Callable[[], bool]) -> None:
        """Makes searches of the regions that other threads hold, until it is `over`. What goes wrong is the holder's to raise."""
        while (todo := self.offers.best(over)) is not None:
            if (search := todo.take()) is not None:
                self._do(todo, search)

    def _do(self, todo: Todo, search: Search) -> None:
        try:
            self._go_on_unless_stopped()
            todo.done(self._search(todo.lease, search)[0])
        except Exception as error:  # noqa: BLE001 - handed to the thread that holds the region, which raises it
            todo.done(0, error)

    def refine(self, lease: Lease) -> RegionOutcome:
        """A few searches beyond the base plan, as long as they promise more than other regions do. Raises as `collect`."""
        depth, (_, calls) = self._depth(lease), self.ledger.done(lease)
        enough = self.refinement.next_promise() * SLICE_ENDS_BELOW
        for _ in range(SLICE_SEARCHES):
            best = depth.best()
            if best is None or best[1] < enough or calls >= self.limits.calls_per_region:
                break
            self._go_on_unless_stopped()
            spent, answered = self._search(lease, best[0])
            calls += spent
            depth.learn(answered)
        self.refinement.settle(lease, promise=_promise(depth), also=self._tally)
        return self._outcome(Outcome.REFINED, lease)

    def _depth(self, lease: Lease) -> RegionPlan:
        history = self.ledger.history(lease)
        return self.source.depth(lease.region_name, self.dongs(lease.region_code), history, self.tallies.current())

    def _outcome(self, outcome: Outcome, lease: Lease) -> RegionOutcome:
        completion = self.checkpoints.completions([lease.region_code], reported_too=True)[0]
        return RegionOutcome(outcome=outcome, lease=lease, completion=completion)

    def _tally(self, connection: Connection) -> None:
        self.executions.tally(connection, self.run_id)

    def _go_on_unless_stopped(self) -> None:
        if self.stop.is_set():
            raise StopRequested("The run is stopping.")

    def _search(self, lease: Lease, search: Search) -> tuple[int, Answered]:
        """One search, asked and stored; returns the calls it took, and what it brought."""
        try:
            answer = self.source.perform(search)
        except BadQuery as error:
            log.warning("%s: the API refuses the query %r: %s", lease.region_name, search.query, error)
            self.ledger.skip(lease, search, calls=error.calls, reason=str(error))
            return error.calls, _answered(search)
        except ApiError as error:
            if error.calls:
                self.ledger.failed(lease, search, calls=error.calls, reason=str(error))
            raise
        return answer.calls, _answered(search, answer, self._store(lease, search, answer))

    def _store(self, lease: Lease, search: Search, answer: Answer) -> tuple[int, ...]:
        stored = StoredSearch(
            search=search, answer=answer.raw, result_count=answer.result_count, calls=answer.calls, places=(),
            set_aside=answer.set_aside,
        )  # fmt: skip
        while True:
            version, index = self.index.current()
            places = attributed(answer.places, index)
            try:
                return self.ledger.store(lease, replace(stored, places=places), list_version=version)
            except ListChanged:  # it has names this run does not know
                self.index.outdated(version)

    def fail(self, lease: Lease, kind: FailureKind, reason: str, *, final: bool = False) -> RegionOutcome:
        """The region's own error: FAILED with the reason, or COMPLETED as before if it was being refined."""
        log.error("%s: %s", lease.region_name, reason)
        self.checkpoints.fail(lease, kind=kind, message=reason, final=final, also=self._tally)
        return RegionOutcome(outcome=Outcome.FAILED, lease=lease, reason=reason)


@dataclass(kw_only=True)
class CachedTallies:
    """The nationwide counts, read once for all threads and again when they are old."""

    ledger: Ledger
    _read: Tallies = field(default_factory=dict)
    _read_at: float = -math.inf
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> Tallies:
        with self._reading:
            if time.monotonic() - self._read_at > TALLIES_SECONDS:
                self._read, self._read_at = self.ledger.tallies(), time.monotonic()
            return self._read


def _answered(search: Search, answer: Answer | None = None, place_ids: Sequence[int] = ()) -> Answered:
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


def _promise(depth: RegionPlan) -> float:
    """Places expected of the region's next search; 0 when it has none left."""
    best = depth.best()
    return best[1] if best else 0.0
