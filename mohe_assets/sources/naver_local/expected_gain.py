"""How many new places a search may bring, estimated from the searches answered so far. Pure: counts
in, numbers out.

Expected = usual gain of its stage and keyword × novelty of the answer it refines × its keyword and
category here × its dong here × its region. Each factor is the gain seen over the gain that the
other factors foresaw, drawn towards 1 by a few imagined calls, so that one lucky call moves little
and ten move much. What is not known of this region comes from the nationwide counts, if the caller
has them, and else from the cap of five alone. It errs where a dong is strong for one keyword and
empty for all others, since keyword and dong are taken to be independent.
"""

from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mohe_assets.sources.naver_local.search_plan import Stage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_RESULTS = 5  # places in one answer, at most
Tallies = Mapping[tuple[Stage, str], tuple[int, int]]
"""(stage, keyword) -> (calls, new places), over all regions; what SELECT … GROUP BY stage, keyword
says.
"""

_STAGES = {stage: at for at, stage in enumerate(Stage)}
_UNKNOWN_GAIN = MAX_RESULTS / 2  # nothing is known: the middle between nothing and the cap
# How many calls' worth of evidence the more general figure is given against the more special one.
_STAGE_CALLS, _KEYWORD_CALLS = 5, 10
_DONG_WEIGHT, _CATEGORY_WEIGHT, _REGION_WEIGHT, _NOVELTY_WEIGHT = 2.0, 4.0, 10.0, 10.0


class Factors:
    """Multipliers by index, each 1 until told otherwise."""

    def __init__(self, weight: float) -> None:
        self.values = array("d")
        self._weight = weight
        self._seen: list[float] = []
        self._expected: list[float] = []

    def grow(self, start: float = 1.0) -> int:
        """Adds a factor that believes `start` until evidence comes; returns its index."""
        self._seen.append(self._weight * start)
        self._expected.append(self._weight)
        self.values.append(start)
        return len(self.values) - 1

    def learn(self, at: int, seen: float, expected: float) -> None:
        """`expected` is the whole product; the factor's own share is taken out of it."""
        self._seen[at] += seen
        self._expected[at] += expected / self.values[at]
        self.values[at] = self._seen[at] / self._expected[at]


class ExpectedGain:
    """Factors of one region. Candidates are columns of indices, so that thousands are weighed at
    once.
    """

    def __init__(self, tallies: Tallies | None = None) -> None:
        self._tallies = tallies or {}
        self._by_stage = {stage: self._base_rate(stage) for stage in Stage}
        self.base_rate = array("d")
        self.search_categories = Factors(_CATEGORY_WEIGHT)
        self.dongs = Factors(_DONG_WEIGHT)
        self._region = Factors(_REGION_WEIGHT)
        self._region.grow()
        self._novelty = Factors(_NOVELTY_WEIGHT)
        for _ in Stage:
            for new in range(MAX_RESULTS + 1):
                # An answer that was all known says that its surroundings are known too.
                self._novelty.grow((1 + new) / (1 + MAX_RESULTS / 2))
        self._base_rate_at: dict[tuple[Stage, str], int] = {}

    def _base_rate(self, stage: Stage) -> float:
        counts = [count for (of, _), count in self._tallies.items() if of is stage]
        calls, new = sum(each[0] for each in counts), sum(each[1] for each in counts)
        return (_STAGE_CALLS * _UNKNOWN_GAIN + new) / (_STAGE_CALLS + calls)

    def base_rate_at(self, stage: Stage, keyword: str) -> int:
        """The index of what a stage usually brings for a keyword."""
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
        """The index for how many places of the refined answer were new."""
        return _STAGES[stage] * (MAX_RESULTS + 1) + min(new_before, MAX_RESULTS)

    def expected(self, base_rate: int, novelty: int, search_category: int, dong: int) -> float:
        product = (
            self.base_rate[base_rate]
            * self._novelty.values[novelty]
            * self.search_categories.values[search_category]
        )
        return min(MAX_RESULTS, product * self.dongs.values[dong] * self._region.values[0])

    def expected_at_first(self, base_rate: int, novelty: int) -> float:
        """`expected` while no candidate was asked yet."""
        return min(MAX_RESULTS, self.base_rate[base_rate] * self._novelty.values[novelty])

    def expected_all(
        self,
        columns: "tuple[array[int], array[int], array[int], array[int]]",
        is_open: "array[float]",
    ) -> "npt.NDArray[np.float64]":
        """`expected` of every candidate, 0 where `is_open` is; the four columns are those of its
        arguments.
        """
        import numpy as np  # noqa: PLC0415 - a tenth of a second, and half of the commands weigh nothing

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
        expected = self.expected(base_rate, novelty, search_category, dong)
        for factors, at in (
            (self.dongs, dong),
            (self.search_categories, search_category),
            (self._novelty, novelty),
            (self._region, 0),
        ):
            factors.learn(at, new, expected)
