"""Naver's local search as a source of places, classic or HUB: equal answers, so one name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mohe_assets.domain.places import Licence, PlaceRecord, RejectedItem
from mohe_assets.domain.search_plan import BASE_STAGE, Answered, Search, SearchResult, Tallies
from mohe_assets.sources.naver_local.client import NaverLocalClient
from mohe_assets.sources.naver_local.items import parse_items
from mohe_assets.sources.naver_local.plan import Sort, base_plan
from mohe_assets.sources.naver_local.refinement import RegionPlan

LICENCE = Licence(
    may_store=False,  # only with Naver's consent, see README.md
    may_redistribute=False,
    attribution="네이버 지역 검색",
    link="https://developers.naver.com/products/terms/",
)
# Regions in which a search for cafés always has a full answer.
_PROBE_REGIONS = {"11680": "서울특별시 강남구", "26350": "부산광역시 해운대구"}


@dataclass(frozen=True, kw_only=True)
class NaverLocalSource:
    """The source; `keywords` are those of MOHE_SEARCH_KEYWORDS."""

    client: NaverLocalClient
    keywords: tuple[str, ...]
    name: str = "naver-local"
    licence: Licence = LICENCE

    def plan(self, region_name: str) -> Sequence[Search]:
        return base_plan(region_name, self.keywords)

    def refinement_plan(
        self, region_name: str, dongs: Sequence[str], history: Sequence[Answered], tallies: Tallies
    ) -> RegionPlan:
        return RegionPlan(region_name, dongs, self.keywords, history, tallies=tallies)

    @staticmethod
    def probe_search(*, without: str) -> Search:
        region_name = next(
            name for code, name in _PROBE_REGIONS.items() if not without.startswith(code)
        )
        return Search(
            query=f"{region_name} 카페", sort=Sort.ACCURACY, keyword="카페", stage=BASE_STAGE
        )

    async def perform(self, search: Search) -> SearchResult:
        answer = await self.client.search(search.query, sort=Sort(search.sort))
        places, set_aside, result_count = parse_answer(answer.raw)
        return SearchResult(
            raw=answer.raw,
            result_count=result_count,
            calls=answer.calls,
            places=places,
            set_aside=set_aside,
        )


def parse_answer(
    raw: Mapping[str, Any],
) -> tuple[tuple[PlaceRecord, ...], tuple[RejectedItem, ...], int]:
    """Return the places, the rejected items and the number of items of an answer."""
    items = raw["items"]
    return (*parse_items(items), len(items))
