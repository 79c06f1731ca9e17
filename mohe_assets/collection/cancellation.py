"""Early end of a run: a cancellation token, and a clock of the run's lease."""

import asyncio
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mohe_assets.errors import StopRequested

log = logging.getLogger(__name__)

# Shorter than the resolution of timers: thousands of such sleeps would take longer than their sum.
TIMERS_SECONDS = 0.001
# Between two looks at a lease clock that is not confirmed.
UNCONFIRMED_SECONDS = 0.1


class CancellationToken:
    """Cancelled once, for good. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._is_cancelled = False
        self._lock = threading.Lock()
        self._to_wake: set[Callable[[], object]] = set()

    def is_cancelled(self) -> bool:
        return self._is_cancelled

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            for wake in self._to_wake:
                wake()

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake` upon each `cancel`, in its thread; at once if that has happened already."""
        with self._lock:
            if self._is_cancelled:
                wake()
            self._to_wake.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._to_wake.discard(wake)

    async def pause(self, seconds: float, reason: str) -> None:
        """Sleep. Raise StopRequested with `reason` if the token is or becomes cancelled."""
        if self._is_cancelled:
            raise StopRequested(reason)
        if seconds <= TIMERS_SECONDS:
            return
        loop, cancelled = asyncio.get_running_loop(), asyncio.Event()
        with self.waking(lambda: loop.call_soon_threadsafe(cancelled.set)):
            try:
                async with asyncio.timeout(seconds):
                    await cancelled.wait()
            except TimeoutError:
                return
        raise StopRequested(reason)


@dataclass(kw_only=True)
class LeaseClock:
    """No process can declare the run dead before `confirmed_until` (monotonic clock)."""

    confirmed_until: float = math.inf

    async def wait_until_confirmed(self, cancellation: CancellationToken, reason: str) -> None:
        """Return once the run is known to live. Raises as `CancellationToken.pause`."""
        while time.monotonic() > self.confirmed_until:
            await cancellation.pause(UNCONFIRMED_SECONDS, reason)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep further signals from interrupting the end that the first one began: regions would stay
    held for a lease. Only the main thread receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, _: object) -> None:
        log.warning(
            "%s: the run is stopping already; it releases its regions.", signal.Signals(number).name
        )

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
