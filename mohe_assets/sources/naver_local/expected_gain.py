"""Estimate how many new places a search will find, from the searches answered so far. Pure.

Expected gain = base rate of stage and keyword × novelty of the refined answer × keyword and
category in this region × dong × region. Each factor is the observed gain divided by the gain that
the other factors predict, with a few prior calls at 1, so that a single call changes it little and
ten calls much. The base rate comes from nationwide counts; without them it is half of MAX_RESULTS.
Keyword and dong are assumed independent, which is wrong for a dong with many places of a single
keyword.
"""

from array import array
from typing import TYPE_CHECKING

from mohe_assets.domain.places import MAX_RESULTS
from mohe_assets.domain.search_plan import Tallies
from mohe_assets.sources.naver_local.plan import Stage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_STAGES = {stage: at for at, stage in enumerate(Stage)}
_UNKNOWN_GAIN = MAX_RESULTS / 2  # prior without any counts
# Prior calls: weight of the general figure (all stages, stage) against the specific count.
_STAGE_CALLS, _KEYWORD_CALLS = 5, 10
# Prior expected places of each kind of factor.
_DONG_WEIGHT, _CATEGORY_WEIGHT, _REGION_WEIGHT, _NOVELTY_WEIGHT = 2.0, 4.0, 10.0, 10.0


class Factors:
    """Multipliers by index; each starts at its prior, usually 1."""

    def __init__(self, weight: float) -> None:
        self.values = array("d")
        self._weight = weight
        self._observed: list[float] = []
        self._expected: list[float] = []

    def grow(self, start: float = 1.0) -> int:
        """Add a factor with the prior `start` and return its index."""
        self._observed.append(self._weight * start)
        self._expected.append(self._weight)
        self.values.append(start)
        return len(self.values) - 1

    def learn(self, at: int, observed: float, expected: float) -> None:
        """Update a factor; `expected` is the whole product, including this factor."""
        self._observed[at] += observed
        self._expected[at] += expected / self.values[at]
        self.values[at] = self._observed[at] / self._expected[at]


class ExpectedGain:
    """Factors of a region. Candidates are columns of indices, evaluated in bulk with numpy."""

    def __init__(self, tallies: Tallies | None = None) -> None:
        self._tallies = tallies or {}
        self._by_stage = {}
        for stage in Stage:
            counts = [count for (of, _), count in self._tallies.items() if of == stage]
            calls, new = sum(each[0] for each in counts), sum(each[1] for each in counts)
            prior = _STAGE_CALLS * _UNKNOWN_GAIN
            self._by_stage[stage] = (prior + new) / (_STAGE_CALLS + calls)
        self.base_rate = array("d")
        self.search_categories = Factors(_CATEGORY_WEIGHT)
        self.dongs = Factors(_DONG_WEIGHT)
        self._region = Factors(_REGION_WEIGHT)
        self._region.grow()
        self._novelty = Factors(_NOVELTY_WEIGHT)
        for _ in Stage:
            for new in range(MAX_RESULTS + 1):
                # If all places of the refined answer were known, its surroundings probably are.
                self._novelty.grow((1 + new) / (1 + MAX_RESULTS / 2))
        self._base_rate_at: dict[tuple[Stage, str], int] = {}

    def base_rate_at(self, stage: Stage, keyword: str) -> int:
        """Return the index of the base rate of a stage and keyword."""
        known = self._base_rate_at.get((stage, keyword))
        if known is None:
            known = self._base_rate_at[stage, keyword] = len(self.base_rate)
            calls, new = self._tallies.get((stage, keyword), (0, 0))
            self.base_rate.append(
                (_KEYWORD_CALLS * self._by_stage[stage] + new) / (_KEYWORD_CALLS + calls)
            )
        return known

    @staticmethod
    def novelty_at(stage: Stage, new_before: int) -> int:
        """Return the index of the novelty factor for the new places of the refined answer."""
        return _STAGES[stage] * (MAX_RESULTS + 1) + min(new_before, MAX_RESULTS)

    def expected(self, base_rate: int, novelty: int, search_category: int, dong: int) -> float:
        """Return the expected new places of the candidate with these indices, 0 to MAX_RESULTS."""
        product = (
            self.base_rate[base_rate]
            * self._novelty.values[novelty]
            * self.search_categories.values[search_category]
        )
        return min(MAX_RESULTS, product * self.dongs.values[dong] * self._region.values[0])

    def expected_at_first(self, base_rate: int, novelty: int) -> float:
        """Return `expected` before any candidate of the region was searched."""
        return min(MAX_RESULTS, self.base_rate[base_rate] * self._novelty.values[novelty])

    def expected_all(
        self,
        columns: "tuple[array[int], array[int], array[int], array[int]]",
        is_open: "array[float]",
    ) -> "npt.NDArray[np.float64]":
        """Return `expected` of every candidate, 0 where `is_open` is 0.

        The four columns are the arguments of `expected`, in its order.
        """
        import numpy as np  # noqa: PLC0415 - takes 0.1 s, and half of the commands do without

        tables = (
            self.base_rate,
            self._novelty.values,
            self.search_categories.values,
            self.dongs.values,
        )
        product: npt.NDArray[np.float64] = np.full(len(columns[0]), self._region.values[0])
        for table, column in zip(tables, columns, strict=True):
            product *= np.frombuffer(table)[np.frombuffer(column, dtype=np.int32)]
        return product.clip(max=MAX_RESULTS) * np.frombuffer(is_open)

    def learn(
        self, base_rate: int, novelty: int, search_category: int, dong: int, new: int
    ) -> None:
        """Update the factors of a candidate whose search found `new` new places."""
        expected = self.expected(base_rate, novelty, search_category, dong)
        for factors, at in (
            (self.dongs, dong),
            (self.search_categories, search_category),
            (self._novelty, novelty),
            (self._region, 0),
        ):
            factors.learn(at, new, expected)
