"""Which searches a region needs. Pure: the same region, keywords and ledger always give the same
searches.

A search is identified by (query, sort); resuming is the plan without the searches the ledger has
done.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Sort(StrEnum):
    """The API's two orders: accuracy (its default, misleadingly called random) and most reviewed."""

    ACCURACY = "random"
    REVIEWS = "comment"


class Stage(StrEnum):
    """Why a search is made. `base`: full region name × keyword, for every region; the others
    refine, see refinement.py.

    `…sort` is the second order of the same text, `dong` adds a dong, eup or myeon, `ri` a ri of an
    eup, and `category` a category that answers to the keyword showed.
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
    """One search, costing one call: the text asked for and the order of the answer."""

    query: str
    sort: Sort
    keyword: str
    stage: Stage
    dong_name: str | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """What the ledger knows the search by, within one round of one region."""
        return (self.query, self.sort.value)


def base_plan(region_name: str, keywords: Iterable[str]) -> tuple[Search, ...]:
    """Full region name × keyword. The name has sido and sigungu, because 중구 and 고성군 alone exist
    several times.
    """
    return tuple(
        Search(
            query=f"{region_name} {keyword}", sort=Sort.ACCURACY, keyword=keyword, stage=Stage.BASE
        )
        for keyword in keywords
    )


def remaining(plan: Iterable[Search], done: Collection[tuple[str, str]]) -> tuple[Search, ...]:
    """The searches of the plan that are not done, in the plan's order."""
    return tuple(search for search in plan if search.identity not in done)


def plan_digest(plan: Iterable[Search]) -> str:
    """The same for the same kind of plan, whatever the region and the order: says whether a
    completed one has changed.
    """
    kinds = sorted({f"{search.sort}:{search.keyword}" for search in plan})
    return hashlib.sha256("\n".join(kinds).encode()).hexdigest()[:32]
