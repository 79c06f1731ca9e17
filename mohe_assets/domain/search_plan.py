"""Searches of a region, as every source of places describes them. Pure.

A search is identified by (query, sort). To resume a region, the searches that are done in the
ledger are left out of its plan.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mohe_assets.domain.places import PlaceRecord, RejectedItem

BASE_STAGE = "base"  # the searches that make a region complete; every other stage refines it

Tallies = Mapping[tuple[str, str], tuple[int, int]]
"""(stage, keyword) → (calls, new places), over all regions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A search: its text and its order. It costs a call, and more with retries.

    The source defines the values of `sort` and `stage`, except BASE_STAGE.
    """

    query: str
    sort: str
    keyword: str
    stage: str
    dong_name: str | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """The key of the search in the ledger within a region's round."""
        return (self.query, str(self.sort))


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """The answer to a search. `raw` is the body as received, `calls` includes retries."""

    raw: dict[str, Any]
    result_count: int
    calls: int
    places: tuple[PlaceRecord, ...]
    set_aside: tuple[RejectedItem, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """An answered search of the ledger.

    `result_count` counts all items, rejected items included; it is 0 for a search that the API
    refuses. `place_ids` are the stored places, `categories` those of the answer.
    """

    query: str
    sort: str
    keyword: str
    stage: str
    dong_name: str | None
    result_count: int
    place_ids: tuple[int, ...]
    categories: tuple[str, ...] = ()


def remaining(plan: Iterable[Search], done: Collection[tuple[str, str]]) -> tuple[Search, ...]:
    """Return the searches of the plan whose identity is not in `done`, in the plan's order."""
    return tuple(search for search in plan if search.identity not in done)


def plan_digest(plan: Iterable[Search]) -> str:
    """Return a digest of the plan's orders and keywords, equal for all regions.

    A completed region with another digest has an outdated plan.
    """
    kinds = sorted({f"{search.sort}:{search.keyword}" for search in plan})
    return hashlib.sha256("\n".join(kinds).encode()).hexdigest()[:32]
