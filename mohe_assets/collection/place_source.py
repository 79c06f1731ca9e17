"""The seam for place sources: what a collection needs of one, and the one there is.

A source knows which searches a region needs, performs one, and parses an answer into records.
Ledger, budget, checkpoints, identity and attribution know no source by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mohe_assets.domain.places import PlaceRecord, RejectedItem, parse_items
from mohe_assets.sources.naver_local.client import NaverLocalClient
from mohe_assets.sources.naver_local.expected_gain import Tallies
from mohe_assets.sources.naver_local.refinement import Answered, RegionPlan
from mohe_assets.sources.naver_local.search_plan import Search, base_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """One answered search. `raw` is the body as it came, `calls` what it cost, retries included."""

    raw: dict[str, Any]
    result_count: int
    calls: int
    places: tuple[PlaceRecord, ...]
    set_aside: tuple[RejectedItem, ...]


class PlaceSource(Protocol):
    """Where places come from."""

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        ...

    def plan(self, region_name: str) -> Sequence[Search]:
        """The searches that make a region complete."""
        ...

    def refinement_plan(
        self, region_name: str, dongs: Sequence[str], history: Sequence[Answered], tallies: Tallies
    ) -> RegionPlan:
        """The searches worth making beyond the plan, the most promising first, given what the
        ledger has of the region and, in `tallies`, of the country.
        """
        ...

    async def perform(self, search: Search) -> SearchResult:
        """Sends the search, with its short retries. Raises ApiError."""
        ...


@dataclass(frozen=True, kw_only=True)
class NaverLocalSource:
    """Naver local search, classic or HUB: the same answers, so the same name in the ledger."""

    client: NaverLocalClient
    keywords: tuple[str, ...]
    name: str = "naver-local"

    def plan(self, region_name: str) -> Sequence[Search]:
        return base_plan(region_name, self.keywords)

    def refinement_plan(
        self, region_name: str, dongs: Sequence[str], history: Sequence[Answered], tallies: Tallies
    ) -> RegionPlan:
        return RegionPlan(region_name, dongs, self.keywords, history, tallies=tallies)

    async def perform(self, search: Search) -> SearchResult:
        answer = await self.client.search(search.query, sort=search.sort)
        places, set_aside = parse_items(answer.items)
        return SearchResult(
            raw=answer.raw,
            result_count=len(answer.items),
            calls=answer.calls,
            places=places,
            set_aside=set_aside,
        )
