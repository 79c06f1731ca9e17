"""A run makes itself known before it does anything, and says every few seconds that it lives. Knows
neither SQL nor Dagster.
"""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.store.executions import Ending, Executions

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Pulse:
    """Calls `beat` every so many seconds, in a thread of its own, until it is stopped or `beat`
    fails.
    """

    seconds: float
    beat: Callable[[], object]
    failed: Callable[[Exception], None]
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run,), name="heartbeat", daemon=True
        )
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
    """Makes a run known, and its death noticed, before it collects; ends its row if what it does
    then fails or is stopped.
    """

    def beat_failed(error: Exception) -> None:
        log.warning("The heartbeat stopped: %s", error)

    pulse = Pulse(seconds=seconds, beat=lambda: executions.heartbeat(run_id), failed=beat_failed)
    with ended(executions, run_id):
        try:
            # A signal may come before anything else is done, and the row is there.
            executions.start(run_id)
            pulse.start()
            yield
        finally:
            pulse.stop()


@contextmanager
def ended(executions: Executions, run_id: str) -> Iterator[None]:
    """Ends a run's row if something fails or is stopped that leaves it RUNNING, wherever that is."""
    try:
        yield
    except DatabaseUnavailable:
        raise  # the row cannot be ended, and to try that takes minutes; the next look finds its run dead
    except BaseException as error:
        executions.finish(
            run_id,
            Ending.FAILED if isinstance(error, Exception) else Ending.INTERRUPTED,
            str(error) or None,
        )
        raise
