"""The interface of a place source.

A source knows which searches a region needs, performs a search, and parses its answer into
records. Ledger, rate limiter, checkpoints, identity and attribution know no source by name.
"""

from collections.abc import Sequence
from typing import Protocol

from mohe_assets.domain.places import Licence
from mohe_assets.domain.search_plan import Answered, Search, SearchResult, Tallies


class RefinementPlan(Protocol):
    """Searches beyond a region's base plan, in one round."""

    def best(self) -> tuple[Search, float] | None:
        """Return the search with the highest expected gain, and this gain; None without any."""
        ...

    def expected_gain(self) -> float:
        """Return the gain of `best`, 0 without any search."""
        ...

    def learn(self, answered: Answered) -> int:
        """Add an answer to the history and return the number of its places new in this round."""
        ...


class PlaceSource(Protocol):
    """Origin of places."""

    @property
    def name(self) -> str:
        """The source's name in the ledger."""
        ...

    @property
    def licence(self) -> Licence:
        """The terms of the source's data."""
        ...

    def plan(self, region_name: str) -> Sequence[Search]:
        """Return the searches that make a region complete."""
        ...

    def refinement_plan(
        self, region_name: str, dongs: Sequence[str], history: Sequence[Answered], tallies: Tallies
    ) -> RefinementPlan:
        """Return the refinement of a region.

        `history` is the region's ledger, `tallies` are counts of the country.
        """
        ...

    def probe_search(self, *, without: str) -> Search:
        """Return a search that has places, in another region than the one with this code.

        It shows whether the API is at fault while the ledger has no answered search.
        """
        ...

    async def perform(self, search: Search) -> SearchResult:
        """Send the search, with its short retries. Raises ApiError."""
        ...
