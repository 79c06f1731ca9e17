"""Statistics of the simulator: counts by API and outcome, answers by search, times of answers."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

OUTCOMES = ("answered", "refused_rate", "refused_quota", "refused_auth", "bad_request", "faulted")


@dataclass(slots=True)
class ApiStats:
    received: int = 0
    received_by_generation: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    searches: Counter[str] = field(default_factory=Counter)
    answered_at: list[float] = field(default_factory=list)
    first_wall: float | None = None
    last_wall: float | None = None

    def arrived(self, generation: str) -> int:
        """Count a call and return its number among the calls of this API, from 1."""
        self.received += 1
        self.received_by_generation[generation] += 1
        return self.received

    def ended(self, outcome: str, search: str) -> None:
        self.outcomes[outcome] += 1
        if outcome != "answered":
            return
        self.searches[search] += 1
        self.answered_at.append(time.monotonic())
        self.last_wall = time.time()
        if self.first_wall is None:
            self.first_wall = self.last_wall

    def as_json(self, *, brief: bool, with_moments: bool) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "received": self.received,
            **{name: self.outcomes[name] for name in OUTCOMES},
        }
        counts["received_by_generation"] = dict(self.received_by_generation)
        counts["first_answered"] = self._moment(0, self.first_wall)
        counts["last_answered"] = self._moment(-1, self.last_wall)
        if not brief:
            counts["answers_per_search"] = dict(self.searches)
        if with_moments:
            counts["answered_at"] = list(self.answered_at)
        return counts

    def _moment(self, at: int, wall: float | None) -> dict[str, float | None]:
        return {"monotonic": self.answered_at[at] if self.answered_at else None, "wall": wall}
