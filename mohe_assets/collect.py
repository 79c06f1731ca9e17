"""The second use case: collect regions. Knows neither HTTP nor SQL nor Dagster.

A collection is a few worker threads, each holding one region at a time, under one shared rate; one that finds no region left
helps with those of the others. The caller receives each region's outcome as it is reached and may stop at any moment: whatever
a restart needs is in the database before.
"""

import contextvars
import datetime as dt
import logging
import queue
import threading
import time
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace

from mohe_assets.errors import (
    AnswerChanged,
    ApiBlocked,
    ApiError,
    DatabaseUnavailable,
    FailureKind,
    LeaseLost,
    QuotaExhausted,
    StopRequested,
)
from mohe_assets.heartbeat import Pulse
from mohe_assets.logs import about
from mohe_assets.region_work import Outcome, RegionOutcome, RegionWork
from mohe_assets.store.checkpoints import Checkpoints, Lease, Standing
from mohe_assets.store.executions import Burial, Ending, Executions

log = logging.getLogger(__name__)

# A graceful stop waits this long for searches in flight; `docker stop` kills after ten seconds.
STOP_SECONDS = 6.0
# What a caller is given at once, when it takes longer to report an outcome than the workers to reach the next.
BATCH_OUTCOMES = 50
# When a thread found no region to claim, the others believe it for so long.
NONE_LEFT_SECONDS = 1.0
# Users of the batch system this replaces look for this line in the log.
INTERRUPTED_FOUND = "중단된 배치 발견 - 자동 재시작합니다"
DECLARED_DEAD = "This run was silent for longer than its lease and was declared dead; others go on with its regions."


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Which regions a run may take: `codes`, or any without them.

    `by_person` takes FAILED ones before their time, `afresh_before` also those COMPLETED before that moment, with a new round
    of searches. `refine` takes COMPLETED regions and nothing else, for searches beyond their base plan.
    """

    codes: frozenset[str] | None = None
    by_person: bool = False
    afresh_before: dt.datetime | None = None
    refine: bool = False


def lease_facts(lease: Lease) -> dict[str, object]:
    """What a log line about this region says besides its message."""
    return {
        "region_code": lease.region_code,
        "region_name": lease.region_name,
        "round": lease.round,
        "attempt": lease.attempt,
    }


def announce(burial: Burial) -> None:
    """The log line for regions taken back from runs that died."""
    if burial.dead_runs or burial.regions:
        log.warning("%s (실행 %s, 지역 %d개)", INTERRUPTED_FOUND, ", ".join(burial.dead_runs) or "-", len(burial.regions))


@dataclass(kw_only=True)
class CollectionRun:
    """One run. After the last outcome, `halted` says why it ended before its regions did, or is None; `declared_dead` that
    it was frozen for longer than its lease.
    """

    request: Request
    work: RegionWork
    total: int = 0
    halted: ApiError | None = None
    declared_dead: bool = False
    failed: list[RegionOutcome] = field(default_factory=list)
    _held: dict[str, Lease] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _not_again: set[str] = field(default_factory=set)
    _outcomes: "queue.SimpleQueue[RegionOutcome | BaseException | None]" = field(default_factory=queue.SimpleQueue)
    _claiming: threading.Lock = field(default_factory=threading.Lock)
    _ask_again_at: float = 0.0

    @property
    def run_id(self) -> str:
        return self.work.run_id

    @property
    def checkpoints(self) -> Checkpoints:
        return self.work.checkpoints

    @property
    def executions(self) -> Executions:
        return self.work.executions

    @property
    def stop(self) -> threading.Event:
        return self.work.stop

    def outcomes(self) -> Generator[RegionOutcome]:
        """The same as `batches`, one by one."""
        with closing(self.batches()) as batches:
            for batch in batches:
                yield from batch

    def batches(self) -> Generator[list[RegionOutcome]]:
        """Runs the collection; close the iterator to stop it. Each batch is what was reached since the last one was asked for:
        a single outcome while the caller keeps up. Asking for the next batch says that the last is reported.
        """
        self.executions.start(self.run_id, total=self.total)
        workers = [self._worker(n) for n in range(self.work.limits.threads)]
        pulse = Pulse(seconds=self.work.limits.heartbeat_seconds, beat=self._beat, failed=self._abandon)
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

    def _reported(self, workers: int) -> Generator[list[RegionOutcome]]:
        while workers:
            batch, error = list[RegionOutcome](), None
            for reached in self._reached():
                if reached is None:
                    workers -= 1
                elif isinstance(reached, BaseException):
                    error = error or reached
                else:
                    batch.append(reached)
            self.failed += [one for one in batch if one.outcome is Outcome.FAILED]
            if batch:
                yield batch
                done = [one.completion for one in batch if one.outcome is Outcome.COMPLETED and one.completion is not None]
                self.checkpoints.mark_reported(done)
            if error is not None:
                raise error

    def _reached(self) -> list[RegionOutcome | BaseException | None]:
        """What the workers have to say by now; waits for the first of it."""
        found = [self._outcomes.get()]
        with suppress(queue.Empty):
            while len(found) < BATCH_OUTCOMES:
                found.append(self._outcomes.get_nowait())
        return found

    def _ending(self) -> tuple[Ending, str | None]:
        if isinstance(self.halted, ApiBlocked):
            return Ending.FAILED, str(self.halted)
        if self.failed:
            return Ending.FAILED, f"{len(self.failed)} region{'s' if len(self.failed) > 1 else ''} failed"
        return Ending.COMPLETED, str(self.halted) if self.halted else None

    def _shut_down(self, workers: list[threading.Thread]) -> None:
        """Waits for searches in flight, then gives back what is still held: a late answer finds its lease lost."""
        self.stop.set()
        self.work.offers.wake()
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
        self.work.offers.wake()
        self._outcomes.put(error)

    def _worker(self, number: int) -> threading.Thread:
        """Its log lines are about the run that starts it."""
        context = contextvars.copy_context()
        return threading.Thread(target=context.run, args=(self._work,), name=f"collect-{number}", daemon=True)

    def _work(self) -> None:
        try:
            while (lease := self._next()) is not None:
                with about(**lease_facts(lease)):
                    outcome = self._collect_or_explain(lease)
                # What this run completed is younger than its request, but only if the clocks of both agree.
                if outcome.outcome is not Outcome.REFINED and (
                    outcome.outcome is not Outcome.COMPLETED or self.request.afresh_before is not None
                ):
                    self._not_again.add(lease.region_code)
                self._held.pop(lease.region_code, None)
                self._outcomes.put(outcome)
                self.work.offers.wake()
            self.work.help(over=lambda: self.stop.is_set() or self.halted is not None or not self._held)
        except StopRequested:
            pass  # _shut_down releases what is held
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self._abandon(error)
        self._outcomes.put(None)

    def _next(self) -> Lease | None:
        with self._claiming:
            if self.stop.is_set() or self.halted is not None or time.monotonic() < self._ask_again_at:
                return None
            found = self._claim()
            if not found and self.request.codes is None:
                # Before giving up: what a run that died meanwhile has left behind.
                burial = self.executions.bury_dead(self.checkpoints)
                announce(burial)
                found = self._claim() if burial.regions else []
            if not found:
                self._ask_again_at = time.monotonic() + NONE_LEFT_SECONDS
            for lease in found:
                self._taken.add(lease.region_code)
                self._held[lease.region_code] = lease
            return found[0] if found else None

    def _claim(self) -> list[Lease]:
        """A region is tried once in a run: its next attempt belongs to a later one, after its back-off."""
        request = self.request
        # What a thread has just finished is given back in the database before it is here: not to be taken in between.
        without = self._not_again.union(list(self._held))
        if request.refine:
            lease = self.work.refinement.claim(self.run_id, without=without)
            return [lease] if lease else []
        return self.checkpoints.claim(
            self.run_id, codes=request.codes, without=without, by_person=request.by_person,
            afresh_before=request.afresh_before,
        )  # fmt: skip

    def _collect_or_explain(self, lease: Lease) -> RegionOutcome:
        try:
            return self.work.refine(lease) if self.request.refine else self.work.collect(lease)
        except (QuotaExhausted, ApiBlocked) as error:
            self.halted = self.halted or error
            self.checkpoints.release(lease)
            return RegionOutcome(outcome=Outcome.RELEASED, lease=lease, reason=str(error))
        except LeaseLost as error:
            log.warning("%s", error)
            return RegionOutcome(outcome=Outcome.LOST, lease=lease, reason=str(error))
        except ApiError as error:
            changed = isinstance(error, AnswerChanged)
            kind = FailureKind.ANSWER_CHANGED if changed else FailureKind.TRANSIENT
            failed = self.work.fail(lease, kind, str(error))
            # A refinement that failed left its region COMPLETED.
            return replace(failed, outcome=Outcome.RELEASED) if self.request.refine else failed
        except (DatabaseUnavailable, StopRequested):
            raise
        except Exception as error:
            # Our own bug, met in this region: set it apart, so that the next run gets past it, and end loudly.
            self.work.fail(lease, FailureKind.INTERNAL, f"{type(error).__name__}: {error}")
            raise
