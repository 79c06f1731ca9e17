"""The collection of a run. Knows neither HTTP nor SQL nor Dagster.

A collection is an event loop, in a thread of its own, with a few searches in flight (scheduler.py).
The caller receives each region's outcome and may stop at any moment: everything that a restart
needs is in the database before.
"""

import asyncio
import contextvars
import logging
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

from mohe_assets.collection.cancellation import undisturbed
from mohe_assets.collection.heartbeat import RunSession
from mohe_assets.collection.region_worker import Outcome, RegionOutcome, RegionWorker
from mohe_assets.collection.scheduler import ClaimFilter, SearchScheduler, log_reclaimed
from mohe_assets.collection.stop_timeouts import RUN_STOP_SECONDS
from mohe_assets.errors import ApiBlocked, ApiError, StopRequested
from mohe_assets.store.checkpoints import RegionStatus
from mohe_assets.store.executions import Ending

log = logging.getLogger(__name__)

# Most outcomes in a batch, and least time between two batches: a report takes two connections and
# four statements, regardless of its size.
BATCH_OUTCOMES = 50
REPORT_SECONDS = 0.25
# Regions completed by one statement arrive within this time and are reported together.
REACHED_TOGETHER_SECONDS = 0.02
# Concurrent statements, each on its own connection; more would wait for each other's commits.
DATABASE_THREADS = 6


@dataclass(kw_only=True)
class CollectionRun:
    """The collection of one run, inside its session.

    After the last outcome, `halted` is the reason it ended before its regions did, or None.
    """

    claim_filter: ClaimFilter
    work: RegionWorker
    session: RunSession
    total: int = 0
    halted: ApiError | None = None
    failed: list[RegionOutcome] = field(default_factory=list)
    _outcomes: "queue.SimpleQueue[RegionOutcome | BaseException | None]" = field(
        default_factory=queue.SimpleQueue
    )

    @cached_property
    def _scheduler(self) -> SearchScheduler:
        return SearchScheduler(
            claim_filter=self.claim_filter, work=self.work, reached=self._outcomes.put
        )

    def outcomes(self) -> Generator[RegionOutcome]:
        """Yield the outcomes of `batches` one by one."""
        with closing(self.batches()) as batches:
            for batch in batches:
                yield from batch

    def batches(self) -> Generator[list[RegionOutcome]]:
        """Run the collection; close the iterator to stop it.

        Each batch has the outcomes since the batch before, REPORT_SECONDS ago or more. A request
        for the next batch means that the last is reported.
        """
        # Create it now: later several threads would each create one.
        if self._scheduler.taken:
            raise RuntimeError("A collection runs once.")
        self.work.executions.expect(self.work.run_id, self.total)
        # Keep the run's log context.
        work = contextvars.copy_context().run
        loop = threading.Thread(target=work, args=(self._run_loop,), name="collect", daemon=True)
        self.session.with_each_beat.append(self._beat)
        try:
            with self.session.cancellation.waking(self._end_early):
                loop.start()
                yield from self._reported()
            self.session.conclude(*self._ending())
        except StopRequested as error:
            self.session.conclude(Ending.INTERRUPTED, str(error))
        finally:
            with undisturbed():
                self._shut_down(loop)

    def not_taken(self) -> list[RegionStatus]:
        """Return the status of the requested regions that this run did not hold."""
        return self.work.checkpoints.statuses(
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
                self.work.checkpoints.mark_reported(done)
            if error is not None:
                raise error

    def _reached(self, *, not_before: float) -> list[RegionOutcome | BaseException | None]:
        """Return the outcomes until `not_before`; wait for the first, and stop at an error or the
        end.
        """
        found = [self._outcomes.get()]
        not_before = max(not_before, time.monotonic() + REACHED_TOGETHER_SECONDS)
        with suppress(queue.Empty):
            while len(found) < BATCH_OUTCOMES and isinstance(found[-1], RegionOutcome):
                found.append(self._outcomes.get(timeout=max(0.0, not_before - time.monotonic())))
        return found

    def _ending(self) -> tuple[Ending, str | None]:
        self.halted = self._scheduler.halted
        if isinstance(self.halted, ApiBlocked):
            return Ending.FAILED, str(self.halted)
        if self.failed:
            return (
                Ending.FAILED,
                f"{len(self.failed)} region{'s' if len(self.failed) > 1 else ''} failed",
            )
        note = str(self.halted) if self.halted else None
        takes_all = self.claim_filter.codes is None and not self.claim_filter.refine
        if takes_all and (left := self.work.checkpoints.due()):
            reason = note or "Their rows were locked, or became due at the end."
            regions = f"{left} region{'s are' if left > 1 else ' is'}"
            note = f"{reason} {regions} left; the next run continues."
        return Ending.COMPLETED, note

    def _shut_down(self, loop: threading.Thread) -> None:
        """Wait for searches in flight, then release the leases still held; a late answer is fenced
        off.
        """
        self.session.with_each_beat.remove(self._beat)
        self.session.cancellation.cancel()
        if loop.is_alive():
            loop.join(timeout=RUN_STOP_SECONDS)
        for lease in list(self._scheduler.held.values()):
            self.work.checkpoints.release(lease)

    def _beat(self) -> None:
        self.work.checkpoints.renew(list(self._scheduler.held.values()))
        if self.claim_filter.codes is None:
            # A run without a list of regions also reaps dead runs while it works, not only at its
            # end.
            log_reclaimed(
                self.work.executions.reap_dead_runs(self.work.checkpoints, own_run=self.work.run_id)
            )

    def _end_early(self) -> None:
        if self.session.error is not None:
            self._outcomes.put(self.session.error)

    def _run_loop(self) -> None:
        async def collect() -> None:
            try:
                await self._scheduler.run(give_up_seconds=RUN_STOP_SECONDS - 0.5)
            finally:
                await self.work.close()

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.get_loop().set_default_executor(
                    ThreadPoolExecutor(DATABASE_THREADS, thread_name_prefix="database")
                )
                runner.run(collect())
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self.session.abandon(error)
        self._outcomes.put(None)
