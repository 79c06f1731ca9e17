"""Limits of calls per second and per day, counted at arrival, as a strict server does."""

import time
from collections import deque


class RateWindow:
    """A sliding window over the last second: the strictest reading of "calls per second"."""

    def __init__(self) -> None:
        self._admitted: deque[float] = deque()

    def admits(self, limit: int | None) -> bool:
        if limit is None:
            return True
        now = time.monotonic()
        while self._admitted and self._admitted[0] <= now - 1.0:
            self._admitted.popleft()
        if len(self._admitted) >= limit:
            return False
        self._admitted.append(now)
        return True


class Quota:
    """Counts of calls by caller and period."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}

    def admits(self, caller: str, period: str, limit: int | None, *, count_refused: bool) -> bool:
        key = f"{caller} {period}"
        used = self.used.get(key, 0)
        is_admitted = limit is None or used < limit
        if is_admitted or count_refused:
            self.used[key] = used + 1
        return is_admitted
