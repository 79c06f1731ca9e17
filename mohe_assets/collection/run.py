"""The second use case: collect regions. Knows neither HTTP nor SQL nor Dagster.

A collection is an event loop, in a thread of its own, with a few searches in flight (flight.py).
The caller receives each region's outcome as it is reached and may stop at any moment: whatever a
restart needs is in the database before.
"""

import asyncio
import contextvars
import math
import queue
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property

import uvloop

from mohe_assets.collection.cancellation import Stop
from mohe_assets.collection.heartbeat import Pulse
from mohe_assets.collection.region_worker import Outcome, RegionOutcome, RegionWorker
from mohe_assets.collection.scheduler import ClaimFilter, SearchScheduler, log_reclaimed
from mohe_assets.errors import ApiBlocked, ApiError, StopRequested
from mohe_assets.store.checkpoints import Checkpoints, RegionStatus
from mohe_assets.store.executions import Ending, Executions

# A graceful stop waits this long for searches in flight; `docker stop` kills after ten seconds.
STOP_SECONDS = 6.0
# What a caller is given at once, and not more often than that: to report takes two connections and
# four statements, however much.
BATCH_OUTCOMES = 50
REPORT_SECONDS = 0.25
# Regions that are completed by one statement are reached one after the other, within this time:
# they are given together.
REACHED_TOGETHER_SECONDS = 0.02
# Statements at a time, each on a connection of its own. More would wait for each other's commits.
DATABASE_THREADS = 6
DECLARED_DEAD = "This run was silent for longer than its lease and was declared dead; others go on with its regions."


@dataclass(kw_only=True)
class CollectionRun:
    """One run. After the last outcome, `halted` says why it ended before its regions did, or is
    None; `declared_dead` that it was frozen for longer than its lease.
    """

    claim_filter: ClaimFilter
    work: RegionWorker
    total: int = 0
    declared_dead: bool = False
    failed: list[RegionOutcome] = field(default_factory=list)
    _outcomes: "queue.SimpleQueue[RegionOutcome | BaseException | None]" = field(
        default_factory=queue.SimpleQueue
    )

    @cached_property
    def _scheduler(self) -> SearchScheduler:
        return SearchScheduler(
            claim_filter=self.claim_filter, work=self.work, reached=self._outcomes.put
        )

    @property
    def halted(self) -> ApiError | None:
        return self._scheduler.halted

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
    def stop(self) -> Stop:
        return self.work.stop

    def outcomes(self) -> Generator[RegionOutcome]:
        """The same as `batches`, one by one."""
        with closing(self.batches()) as batches:
            for batch in batches:
                yield from batch

    def batches(self) -> Generator[list[RegionOutcome]]:
        """Runs the collection; close the iterator to stop it. Each batch is what was reached since
        the last one was given, which is REPORT_SECONDS ago or more. Asking for the next batch says
        that the last is reported.
        """
        # Looked at now, and thereby made: later there are several threads that would each make one.
        if self._scheduler.taken:
            raise RuntimeError("A collection runs once.")
        began = time.monotonic()
        self.executions.start(self.run_id, total=self.total)
        self._heard_of(began)
        # Its log lines are about the run that starts it.
        work = contextvars.copy_context().run
        loop = threading.Thread(target=work, args=(self._run_loop,), name="collect", daemon=True)
        pulse = Pulse(
            seconds=self.work.limits.heartbeat_seconds, beat=self._beat, failed=self._abandon
        )
        ending: Ending = Ending.INTERRUPTED
        note: str | None = "stopped"
        try:
            pulse.start()
            loop.start()
            yield from self._reported()
            ending, note = self._ending()
        except StopRequested as error:
            self.declared_dead, note = True, str(error)
        finally:
            self._shut_down(loop)
            pulse.stop()
            if not self.executions.finish(self.run_id, ending, note):
                self.declared_dead = True

    def not_taken(self) -> list[RegionStatus]:
        """The regions asked for by code that this run did not hold, and how they stand."""
        return self.checkpoints.statuses(
            (self.claim_filter.codes or frozenset()) - self._scheduler.taken
        )

    def _reported(self) -> Generator[list[RegionOutcome]]:
        over, given_at = False, -math.inf
        while not over:
            batch, error = list[RegionOutcome](), None
            for reached in self._reached(not_before=given_at + REPORT_SECONDS):
                if reached is None:
                    over = True
                elif isinstance(reached, BaseException):
                    error = error or reached
                else:
                    batch.append(reached)
            self.failed += [one for one in batch if one.outcome is Outcome.FAILED]
            if batch:
                given_at = time.monotonic()
                yield batch
                done = [
                    one.completion
                    for one in batch
                    if one.outcome is Outcome.COMPLETED and one.completion is not None
                ]
                self.checkpoints.mark_reported(done)
            if error is not None:
                raise error

    def _reached(self, *, not_before: float) -> list[RegionOutcome | BaseException | None]:
        """What the loop has to say by then; waits for the first of it, and no longer when it is the
        last.
        """
        found = [self._outcomes.get()]
        not_before = max(not_before, time.monotonic() + REACHED_TOGETHER_SECONDS)
        with suppress(queue.Empty):
            while len(found) < BATCH_OUTCOMES and isinstance(found[-1], RegionOutcome):
                found.append(self._outcomes.get(timeout=max(0.0, not_before - time.monotonic())))
        return found

    def _ending(self) -> tuple[Ending, str | None]:
        if isinstance(self.halted, ApiBlocked):
            return Ending.FAILED, str(self.halted)
        if self.failed:
            return (
                Ending.FAILED,
                f"{len(self.failed)} region{'s' if len(self.failed) > 1 else ''} failed",
            )
        return Ending.COMPLETED, str(self.halted) if self.halted else None

    def _shut_down(self, loop: threading.Thread) -> None:
        """Waits for searches in flight, then gives back what is still held: a late answer finds its
        lease lost.
        """
        self.stop.set()
        if loop.is_alive():
            loop.join(timeout=STOP_SECONDS)
        for lease in list(self._scheduler.held.values()):
            self.checkpoints.release(lease)

    def _heard_of(self, at: float) -> None:
        """Nobody declares the run dead before its lease is over, counted from this moment on the
        monotonic clock.
        """
        self.stop.sure_until = at + self.executions.lease_seconds

    def _beat(self) -> None:
        began = time.monotonic()
        self.checkpoints.renew(list(self._scheduler.held.values()))
        if not self.executions.heartbeat(self.run_id):
            self._abandon(StopRequested(DECLARED_DEAD))
            return
        self._heard_of(began)
        if self.claim_filter.codes is None:
            # Whoever takes any region also takes those of runs that die meanwhile, without waiting
            # for its own end.
            log_reclaimed(self.executions.reap_dead_runs(self.checkpoints))

    def _abandon(self, error: Exception) -> None:
        self.stop.set()
        self._outcomes.put(error)

    def _run_loop(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.get_loop().set_default_executor(
                    ThreadPoolExecutor(DATABASE_THREADS, thread_name_prefix="database")
                )
                runner.run(self._collect())
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self._abandon(error)
        self._outcomes.put(None)

    async def _collect(self) -> None:
        try:
            await self._scheduler.run(give_up_seconds=STOP_SECONDS - 0.5)
        finally:
            await self.work.close()
