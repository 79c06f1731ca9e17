"""A region's searches, shared by the thread that holds it with those that find no region left to hold. Threads only.

Without it the last regions of a run would be collected by a thread each, one search after the other, while the rest had ended.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mohe_assets.search_plan import Search
from mohe_assets.store.checkpoints import Lease


@dataclass(kw_only=True)
class Todo:
    """What one region has left. `calls` were spent on it, `most_calls` may be; `error` is the first that was met."""

    lease: Lease
    searches: deque[Search]
    calls: int
    most_calls: int
    error: Exception | None = None
    _under_way: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, *, wait: bool = False) -> Search | None:
        """The next search, or None; with `wait` only when none is under way any more."""
        with self._changed:
            while not self._has_more():
                if not (wait and self._under_way):
                    return None
                self._changed.wait()
            self._under_way += 1
            return self.searches.popleft()

    def done(self, calls: int, error: Exception | None = None) -> None:
        """What became of a search that was taken."""
        with self._changed:
            self._under_way -= 1
            self.calls += calls
            self.error = self.error or error
            self._changed.notify_all()

    @property
    def left(self) -> int:
        """Searches that may be taken now."""
        with self._changed:
            return len(self.searches) if self._has_more() else 0

    def _has_more(self) -> bool:
        return self.error is None and bool(self.searches) and self.calls + self._under_way < self.most_calls


@dataclass(kw_only=True)
class Offers:
    """The regions that a run's threads hold and that may be helped with."""

    _open: list[Todo] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def open(self, todo: Todo) -> Iterator[None]:
        """Offers it for as long."""
        with self._changed:
            self._open.append(todo)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._open.remove(todo)

    def best(self, over: Callable[[], bool]) -> Todo | None:
        """The one with the most left to do; waits for one, until it is `over`, which `wake` has looked at again."""
        with self._changed:
            while not over():
                if (found := max(self._open, key=lambda todo: todo.left, default=None)) is not None and found.left:
                    return found
                self._changed.wait()
            return None

    def wake(self) -> None:
        """Something that may make it over has happened."""
        with self._changed:
            self._changed.notify_all()
