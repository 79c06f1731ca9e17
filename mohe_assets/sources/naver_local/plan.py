"""The searches of a region's base plan. Pure."""

from collections.abc import Iterable
from enum import StrEnum

from mohe_assets.domain.search_plan import BASE_STAGE, Search


class Sort(StrEnum):
    """The API's orders: accuracy (its default, named "random" by the API) and most reviews."""

    ACCURACY = "random"
    REVIEWS = "comment"


class Stage(StrEnum):
    """The origin of a search: `base` is the base plan, the others are refinements.

    `…sort` is the second order of the same text; `dong` adds a dong, eup or myeon, `ri` a ri of an
    eup, `category` a category from answers of the keyword. See refinement.py.
    """

    BASE = BASE_STAGE
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
