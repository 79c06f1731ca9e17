"""The second use case: collect regions. Knows neither HTTP nor SQL nor Dagster.

A collection is a few worker threads, each holding one region at a time, under one shared rate. The caller receives each
region's outcome as it is reached and may stop at any moment: whatever a restart needs is in the database before.
"""

import datetime as dt
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from mohe_assets.attribution import RegionIndex
from mohe_assets.errors import (
    AnswerChanged,
    ApiBlocked,
    ApiError,
    BadQuery,
    DatabaseUnavailable,
    FailureKind,
    LeaseLost,
    QuotaExhausted,
    StopRequested,
)
from mohe_assets.search_plan import Search, remaining
from mohe_assets.sources import PlaceSource
from mohe_assets.store.checkpoints import Checkpoints, Completion, Lease, Standing
from mohe_assets.store.executions import Burial, Ending, Executions
from mohe_assets.store.ledger import AttributedPlace, Ledger, StoredSearch

log = logging.getLogger(__name__)

# A graceful stop waits this long for searches in flight; `docker stop` kills after ten seconds.
STOP_SECONDS = 6.0
# Users of the batch system this replaces look for this line in the log.
INTERRUPTED_FOUND = "중단된 배치 발견 - 자동 재시작합니다"
DECLARED_DEAD = "This run was silent for longer than its lease and was declared dead; others go on with its regions."


class Outcome(StrEnum):
    """How a run left one region."""

    COMPLETED = "completed"
    FAILED = "failed"
    RELEASED = "released"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionOutcome:
    """One region's end in this run; `completion` is set when COMPLETED, `reason` otherwise."""

    outcome: Outcome
    lease: Lease
    completion: Completion | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Which regions a run may take: `codes`, or any without them.

    `by_person` takes FAILED ones before their time, `afresh_before` also those COMPLETED before that moment, with a new round
    of searches.
    """

    codes: frozenset[str] | None = None
    by_person: bool = False
    afresh_before: dt.datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """`threads` is also the most searches that a kill can make repeat."""

    threads: int
    calls_per_region: int
    heartbeat_seconds: float


def announce(burial: Burial) -> None:
    """The log line for regions taken back from runs that died."""
    if burial.dead_runs or burial.regions:
        log.warning("%s (실행 %s, 지역 %d개)", INTERRUPTED_FOUND, ", ".join(burial.dead_runs) or "-", len(burial.regions))


@dataclass(kw_only=True)
class Pulse:
    """Calls `beat` every so many seconds, in a thread of its own, until it is stopped or `beat` fails."""

    seconds: float
    beat: Callable[[], object]
    failed: Callable[[Exception], None]
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def _run(self) -> None:
        try:
            while not self._over.wait(self.seconds):
                self.beat()
        except Exception as error:  # noqa: BLE001 - handed on, not swallowed
            self.failed(error)


@contextmanager
def alive(executions: Executions, run_id: str, *, seconds: float) -> Iterator[None]:
    """Makes a run known, and its death noticed, before it collects; ends its row if what it does then fails."""

    def beat_failed(error: Exception) -> None:
        log.warning("The heartbeat stopped: %s", error)

    executions.start(run_id)
    pulse = Pulse(seconds=seconds, beat=lambda: executions.heartbeat(run_id), failed=beat_failed)
    pulse.start()
    try:
        yield
    except BaseException as error:
        executions.finish(run_id, Ending.FAILED if isinstance(error, Exception) else Ending.INTERRUPTED, str(error) or None)
        raise
    finally:
        pulse.stop()


@dataclass(kw_only=True)
class CollectionRun:
    """One run. After the last outcome, `halted` says why it ended before its regions did, or is None; `declared_dead` that
    it was frozen for longer than its lease.
    """

    run_id: str
    request: Request
    limits: Limits
    source: PlaceSource
    index: Callable[[], RegionIndex]
    checkpoints: Checkpoints
    executions: Executions
    ledger: Ledger
    stop: threading.Event
    total: int = 0
    halted: ApiError | None = None
    declared_dead: bool = False
    failed: list[RegionOutcome] = field(default_factory=list)
    _held: dict[str, Lease] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _not_again: set[str] = field(default_factory=set)
    _outcomes: "queue.SimpleQueue[RegionOutcome | BaseException | None]" = field(default_factory=queue.SimpleQueue)
    _claiming: threading.Lock = field(default_factory=threading.Lock)

    def outcomes(self) -> Generator[RegionOutcome]:
        """Runs the collection; close the iterator to stop it. Asking for the next outcome says that the last is reported."""
        self.executions.start(self.run_id, total=self.total)
        workers = [threading.Thread(target=self._work, name=f"collect-{n}", daemon=True) for n in range(self.limits.threads)]
        pulse = Pulse(seconds=self.limits.heartbeat_seconds, beat=self._beat, failed=self._abandon)
        ending: Ending = Ending.INTERRUPTED
        note: str | None = "stopped"
        try:
            pulse.start()
            for thread in workers:
                thread.start()
            yield from self._reported(len(workers))
            ending, note = self._ending()
        except StopRequested as error:
            self.declared_dead, note = True, str(error)
        finally:
            self._shut_down(workers)
            pulse.stop()
            if not self.executions.finish(self.run_id, ending, note):
                self.declared_dead = True

    def not_taken(self) -> list[Standing]:
        """The regions asked for by code that this run did not hold, and how they stand."""
        return self.checkpoints.standing((self.request.codes or frozenset()) - self._taken)

    def _reported(self, workers: int) -> Generator[RegionOutcome]:
        while workers:
            outcome = self._outcomes.get()
            if outcome is None:
                workers -= 1
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                if outcome.outcome is Outcome.FAILED:
                    self.failed.append(outcome)
                yield outcome
                if outcome.completion is not None:
                    self.checkpoints.mark_reported([outcome.completion])

    def _ending(self) -> tuple[Ending, str | None]:
        if isinstance(self.halted, ApiBlocked):
            return Ending.FAILED, str(self.halted)
        if self.failed:
            return Ending.FAILED, f"{len(self.failed)} region{'s' if len(self.failed) > 1 else ''} failed"
        return Ending.COMPLETED, str(self.halted) if self.halted else None

    def _shut_down(self, workers: list[threading.Thread]) -> None:
        """Waits for searches in flight, then gives back what is still held: a late answer finds its lease lost."""
        self.stop.set()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in workers:
            if worker.is_alive():
                worker.join(timeout=max(0.0, deadline - time.monotonic()))
        for lease in list(self._held.values()):
            self.checkpoints.release(lease)

    def _beat(self) -> None:
        self.checkpoints.renew(list(self._held.values()))
        if not self.executions.heartbeat(self.run_id):
            self._abandon(StopRequested(DECLARED_DEAD))
        elif self.request.codes is None:
            # Whoever takes any region also takes those of runs that die meanwhile, without waiting for its own end.
            announce(self.executions.bury_dead(self.checkpoints))

    def _abandon(self, error: Exception) -> None:
        self.stop.set()
        self._outcomes.put(error)

    def _work(self) -> None:
        try:
            while (lease := self._next()) is not None:
                outcome = self._collect_or_explain(lease)
                # What this run completed is younger than its request, but only if the clocks of both agree.
                if outcome.outcome is not Outcome.COMPLETED or self.request.afresh_before is not None:
                    self._not_again.add(lease.region_code)
                self._held.pop(lease.region_code, None)
                self._outcomes.put(outcome)
        except StopRequested:
            pass  # _shut_down releases what is held
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self._abandon(error)
        self._outcomes.put(None)

    def _next(self) -> Lease | None:
        with self._claiming:
            if self.stop.is_set() or self.halted is not None:
                return None
            found = self._claim()
            if not found and self.request.codes is None:
                # Before giving up: what a run that died meanwhile has left behind.
                burial = self.executions.bury_dead(self.checkpoints)
                announce(burial)
                found = self._claim() if burial.regions else []
            for lease in found:
                self._taken.add(lease.region_code)
                self._held[lease.region_code] = lease
            return found[0] if found else None

    def _claim(self) -> list[Lease]:
        """A region is tried once in a run: its next attempt belongs to a later one, after its back-off."""
        request = self.request
        return self.checkpoints.claim(
            self.run_id, codes=request.codes, without=self._not_again, by_person=request.by_person,
            afresh_before=request.afresh_before,
        )  # fmt: skip

    def _collect_or_explain(self, lease: Lease) -> RegionOutcome:
        try:
            return self._collect(lease)
        except (QuotaExhausted, ApiBlocked) as error:
            self.halted = self.halted or error
            self.checkpoints.release(lease)
            return RegionOutcome(outcome=Outcome.RELEASED, lease=lease, reason=str(error))
        except LeaseLost as error:
            log.warning("%s", error)
            return RegionOutcome(outcome=Outcome.LOST, lease=lease, reason=str(error))
        except ApiError as error:
            changed = isinstance(error, AnswerChanged)
            return self._fail(lease, FailureKind.ANSWER_CHANGED if changed else FailureKind.TRANSIENT, str(error))
        except (DatabaseUnavailable, StopRequested):
            raise
        except Exception as error:
            # Our own bug, met in this region: set it apart, so that the next run gets past it, and end loudly.
            self._fail(lease, FailureKind.INTERNAL, f"{type(error).__name__}: {error}")
            raise

    def _collect(self, lease: Lease) -> RegionOutcome:
        plan = self.source.plan(lease.region_name)
        done, calls = self.ledger.done(lease)
        for search in remaining(plan, done):
            if self.stop.is_set():
                raise StopRequested("The run is stopping.")
            if calls >= self.limits.calls_per_region:
                reason = f"{calls} calls were spent on it without completing it; MOHE_MAX_CALLS_PER_REGION allows no more."
                return self._fail(lease, FailureKind.CALL_BUDGET, reason, final=True)
            calls += self._search(lease, search)
        self.checkpoints.complete(lease, plan, also=lambda connection: self.executions.tally(connection, self.run_id))
        completion = self.checkpoints.completions([lease.region_code], reported_too=True)[0]
        return RegionOutcome(outcome=Outcome.COMPLETED, lease=lease, completion=completion)

    def _search(self, lease: Lease, search: Search) -> int:
        """One search, asked and stored; returns the calls it took."""
        try:
            answer = self.source.perform(search)
        except BadQuery as error:
            log.warning("%s: the API refuses the query %r: %s", lease.region_name, search.query, error)
            self.ledger.skip(lease, search, calls=error.calls, reason=str(error))
            return error.calls
        except ApiError as error:
            if error.calls:
                self.ledger.failed(lease, search, calls=error.calls, reason=str(error))
            raise
        # Asked for each answer: a list taken over meanwhile brings names this run did not know.
        regions = self.index()
        places = [AttributedPlace(place=place, region_code=regions.region_of(place.address)) for place in answer.places]
        stored = StoredSearch(
            search=search, answer=answer.raw, result_count=answer.result_count, calls=answer.calls, places=places,
            set_aside=answer.set_aside,
        )  # fmt: skip
        self.ledger.store(lease, stored)
        return answer.calls

    def _fail(self, lease: Lease, kind: FailureKind, reason: str, *, final: bool = False) -> RegionOutcome:
        log.error("%s: %s", lease.region_name, reason)
        self.checkpoints.fail(
            lease, kind=kind, message=reason, final=final,
            also=lambda connection: self.executions.tally(connection, self.run_id),
        )  # fmt: skip
        return RegionOutcome(outcome=Outcome.FAILED, lease=lease, reason=reason)
