"""The simulator's clock: real time plus an offset, which tests set with the control endpoint."""

import time
from datetime import UTC, datetime, timedelta, timezone

KST = timezone(timedelta(hours=9), "KST")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class SimulatorClock:
    def __init__(self) -> None:
        self._offset = 0.0
        self._rendered_second = -1
        self._rendered = ""

    def timestamp(self) -> float:
        return time.time() + self._offset

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp(), tz=UTC).astimezone(KST)

    def advance(self, seconds: float) -> None:
        self._offset += seconds

    def set(self, moment: datetime) -> None:
        if moment.tzinfo is None:
            raise ValueError("the moment must carry its offset, as in 2026-11-02T23:59:50+09:00")
        self._offset = moment.timestamp() - time.time()

    def day(self, *, delay_seconds: float = 0) -> str:
        """Return the KST day of quotas as YYYY-MM-DD; `delay_seconds` of a late reset."""
        return (self.now() - timedelta(seconds=delay_seconds)).strftime("%Y-%m-%d")

    def build_date(self) -> str:
        """Return the time in the format of lastBuildDate; rendered once per second."""
        second = int(self.timestamp())
        if second != self._rendered_second:
            now = self.now()
            self._rendered = (
                f"{_DAYS[now.weekday()]}, {now:%d} {_MONTHS[now.month - 1]} {now:%Y %H:%M:%S} +0900"
            )
            self._rendered_second = second
        return self._rendered
