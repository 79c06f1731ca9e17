"""Figures from measurements: medians with their spread, exponents, tables. Pure."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

MISSING = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """The median of a few runs, with the least and the most of them."""

    median: float
    least: float
    most: float
    runs: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self | None:
        """None when nothing was measured: a run that failed has no figure, and must not count as
        zero.
        """
        found = [value for value in values if value is not None]
        if not found:
            return None
        return cls(
            median=statistics.median(found), least=min(found), most=max(found), runs=len(found)
        )

    def as_json(self) -> dict[str, float | int]:
        return {
            "median": rounded(self.median),
            "min": rounded(self.least),
            "max": rounded(self.most),
            "runs": self.runs,
        }


def rounded(value: float, digits: int = 4) -> float:
    """Round to this number of significant digits; whole numbers stay as they are."""
    if value == 0 or not math.isfinite(value) or float(value).is_integer():
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def number(value: float | None) -> str:
    """For a table: three significant digits, thousands set apart."""
    if value is None:
        return MISSING
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{rounded(value, 3):g}"


def cell(spread: Spread | None) -> str:
    """`487 (460–501)`; one run, or three that agree, need no spread."""
    if spread is None:
        return MISSING
    middle, least, most = number(spread.median), number(spread.least), number(spread.most)
    return middle if least == most else f"{middle} ({least}–{most})"


def percent(spread: Spread | None) -> str:
    """As `cell`, of shares."""
    if spread is None:
        return MISSING
    middle, least, most = (f"{100 * one:.1f}" for one in (spread.median, spread.least, spread.most))
    return f"{middle} %" if least == most else f"{middle} % ({least}–{most})"


def share_of_limit(answered: int, first: float, last: float, limit: float) -> float | None:
    """How much of a limit was used between the first call and the last; both ends are calls, so one
    interval less than calls.
    """
    return (answered - 1) / (last - first) / limit if answered > 1 and last > first else None


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """K of `value = a · size^k`, by least squares on the logarithms; 1 is linear, 0 does not grow.
    None below two sizes.
    """
    points = [
        (math.log(size), math.log(value))
        for size, value in zip(sizes, values, strict=True)
        if size > 0 and value > 0
    ]
    if len({x for x, _ in points}) < 2:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def repeated(answers_per_search: Mapping[str, int]) -> int:
    """Answers beyond the first of each search."""
    return sum(answers_per_search.values()) - len(answers_per_search)


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown; the first column is text, the others are figures."""
    aligned = ["---", *("---:" for _ in head[1:])]
    rows = [head, aligned, *lines]
    return "\n".join(
        f"| {' | '.join(part.replace('|', chr(92) + '|') for part in row)} |" for row in rows
    )
