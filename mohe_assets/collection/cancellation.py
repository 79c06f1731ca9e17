"""A request to stop, made by any thread; threads and coroutines can wait for it."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mohe_assets.errors import StopRequested

# Less than the clock of timers knows is not slept: to do it thousands of times would take longer
# than what it waits for.
TIMERS_SECONDS = 0.001
DOUBT_SECONDS = 0.1


class Stop:
    """Set once, for good. All methods may be called from any thread.

    `sure_until`, on the monotonic clock: before that moment nobody can have ended the run without
    its having heard of it.
    """

    sure_until = math.inf

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._to_wake: set[Callable[[], object]] = set()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._lock:
            self._is_set = True
            for wake in self._to_wake:
                wake()

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Calls `wake` when a stop is requested, in the thread that does; at once if it was before."""
        with self._lock:
            if self._is_set:
                wake()
            self._to_wake.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._to_wake.discard(wake)

    async def pause(self, seconds: float, why: str) -> None:
        """Sleeps for so long. Raises StopRequested with `why` if a stop is requested meanwhile, or
        was before.
        """
        if self._is_set:
            raise StopRequested(why)
        if seconds <= TIMERS_SECONDS:
            return
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        with self.waking(lambda: loop.call_soon_threadsafe(stopped.set)):
            try:
                async with asyncio.timeout(seconds):
                    await stopped.wait()
            except TimeoutError:
                return
        raise StopRequested(why)

    async def be_sure(self, why: str) -> None:
        """Returns when nobody can have ended the run without its having heard of it. Raises as
        `pause`.
        """
        while time.monotonic() > self.sure_until:
            await self.pause(DOUBT_SECONDS, why)
