"""A request to stop, made by any thread; threads and coroutines can wait for it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mohe_assets.errors import StopRequested


class Stop:
    """Set once, for good. All methods may be called from any thread."""

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
        """Sleeps for so long. Raises StopRequested with `why` if a stop is requested meanwhile, or was before."""
        if self._is_set:
            raise StopRequested(why)
        if seconds <= 0:
            return
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        with self.waking(lambda: loop.call_soon_threadsafe(stopped.set)):
            try:
                async with asyncio.timeout(seconds):
                    await stopped.wait()
            except TimeoutError:
                return
        raise StopRequested(why)
