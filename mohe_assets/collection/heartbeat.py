"""The lifecycle of a run: its row is started, kept alive by a heartbeat, and finished.

Knows neither SQL nor Dagster.
"""

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from mohe_assets.collection.cancellation import CancellationToken, LeaseClock, undisturbed
from mohe_assets.errors import DatabaseUnavailable, StopRequested
from mohe_assets.store.executions import Ending, Executions

log = logging.getLogger(__name__)

DECLARED_DEAD = (
    "The heartbeat of this run was missing for longer than its lease; it was declared dead. "
    "Other runs collect its regions."
)


@dataclass(kw_only=True)
class Heartbeat:
    """Call `beat` every `seconds` in a thread, until it is stopped or `beat` fails."""

    seconds: float
    beat: Callable[[], object]
    failed: Callable[[Exception], None]
    name: str = "heartbeat"
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name=self.name, daemon=True)
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


@dataclass(kw_only=True)
class RunSession:
    """A run, entered once by `open`: start the row, heartbeat, work, finish the row.

    The work calls `conclude` when it is done; without that, or if it raises, the row gets
    INTERRUPTED or FAILED. `with_each_beat` is called with each heartbeat, in a thread of its own: a
    statement that waits for a locked table must not stop the heartbeat. `error` is the reason the
    run has to end early, `declared_dead` means that it lost its row.
    """

    executions: Executions
    run_id: str
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    lease_clock: LeaseClock = field(default_factory=LeaseClock)
    with_each_beat: list[Callable[[], object]] = field(default_factory=list)
    declared_dead: bool = False
    error: Exception | None = None
    _ending: Ending = Ending.INTERRUPTED
    _note: str | None = "stopped"

    @classmethod
    @contextmanager
    def open(
        cls, executions: Executions, run_id: str, *, heartbeat_seconds: float
    ) -> Iterator[Self]:
        session = cls(executions=executions, run_id=run_id)
        threads = (
            Heartbeat(seconds=heartbeat_seconds, beat=session._beat, failed=session.abandon),
            Heartbeat(
                seconds=heartbeat_seconds,
                beat=session._upkeep,
                failed=session.abandon,
                name="upkeep",
            ),
        )
        try:
            # A signal may come at any moment from here on, and the row is there.
            began = time.monotonic()
            executions.start(run_id)
            session._confirm(began)
            for thread in threads:
                thread.start()
            yield session
            with undisturbed():
                for thread in threads:
                    thread.stop()
                finished = executions.finish(run_id, session._ending, session._note)
            session.declared_dead |= not finished
        except DatabaseUnavailable:
            # The row cannot be finished, and retries take minutes; the next reaper finds the run
            # dead.
            raise
        except BaseException as error:
            ending = Ending.FAILED if isinstance(error, Exception) else Ending.INTERRUPTED
            with undisturbed():
                executions.finish(run_id, ending, str(error) or session._note)
            raise
        finally:
            for thread in threads:
                thread.stop()

    def conclude(self, ending: Ending, note: str | None) -> None:
        """How the run ends, unless something interrupts it before its row is finished."""
        self._ending, self._note = ending, note

    def abandon(self, error: Exception) -> None:
        """End the run early: its work is cancelled, `error` is the reason."""
        if self.error is None:
            log.warning("The run ends early: %s", str(error) or type(error).__name__)
        self.error = self.error or error
        self.cancellation.cancel()

    def _beat(self) -> None:
        began, alive = time.monotonic(), self.executions.heartbeat(self.run_id)
        if not alive:
            self.declared_dead = True
            self.abandon(StopRequested(DECLARED_DEAD))
            return
        self._confirm(began)

    def _upkeep(self) -> None:
        for work in tuple(self.with_each_beat):
            work()

    def _confirm(self, at: float) -> None:
        """Note that the row was written after `at`: the run is alive for one lease from then."""
        self.lease_clock.confirmed_until = at + self.executions.lease_seconds
