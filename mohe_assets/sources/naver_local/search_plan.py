"""The searches of a region's base plan. Pure.

A search is identified by (query, sort). To resume a region, the searches that are done in the
ledger are left out of its plan.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Sort(StrEnum):
    """The API's orders: accuracy (its default, named "random" by the API) and most reviews."""

    ACCURACY = "random"
    REVIEWS = "comment"


class Stage(StrEnum):
    """The origin of a search: `base` is the base plan, the others are refinements.

    `…sort` is the second order of the same text; `dong` adds a dong, eup or myeon, `ri` a ri of an
    eup, `category` a category from answers of the keyword. See refinement.py.
    """

    BASE = "base"
    SORT = "sort"
    DONG = "dong"
    DONG_SORT = "dong_sort"
    RI = "ri"
    RI_SORT = "ri_sort"
    CATEGORY = "category"
    CATEGORY_SORT = "category_sort"
    DONG_CATEGORY = "dong_category"
    DONG_CATEGORY_SORT = "dong_category_sort"
    RI_CATEGORY = "ri_category"
    RI_CATEGORY_SORT = "ri_category_sort"


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A search: its text and its order. It costs a call, and more with retries."""

    query: str
    sort: Sort
    keyword: str
    stage: Stage
    dong_name: str | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """The key of the search in the ledger within a region's round."""
        return (self.query, self.sort.value)


def base_plan(region_name: str, keywords: Iterable[str]) -> tuple[Search, ...]:
    """Return the searches full region name × keyword.

    The full name includes the sido, because names such as 중구 and 고성군 are not unique.
    """
    return tuple(
        Search(
            query=f"{region_name} {keyword}", sort=Sort.ACCURACY, keyword=keyword, stage=Stage.BASE
        )
        for keyword in keywords
    )


def remaining(plan: Iterable[Search], done: Collection[tuple[str, str]]) -> tuple[Search, ...]:
    """Return the searches of the plan whose identity is not in `done`, in the plan's order."""
    return tuple(search for search in plan if search.identity not in done)


def plan_digest(plan: Iterable[Search]) -> str:
    """Return a digest of the plan's orders and keywords, equal for all regions.

    A completed region with another digest has an outdated plan.
    """
    kinds = sorted({f"{search.sort}:{search.keyword}" for search in plan})
    return hashlib.sha256("\n".join(kinds).encode()).hexdigest()[:32]
