"""Choose the next search that refines a region. Pure: equal histories give equal searches.

An answer has MAX_RESULTS places and no second page, so only the text of a search can find more. A
full answer is refined by (1) the second order of the same text, (2) the text with a dong, eup or
myeon, and after a full eup with its ris, and (3) the text with a category that occurred in answers
of this keyword: `음식점 국밥`, never `국밥` alone, so that results still belong to the keyword. A
search with fewer results is exhausted: a more specific text would find the same places again.

The candidate with the highest expected gain comes first, see expected_gain.py: in published
measurements 84 % of refinements without such an order found nothing new. Known error: a place of
another region can fill an exhausted answer up to MAX_RESULTS; the refinements below it are then
searched until they come back short.
"""

import functools
import itertools
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mohe_assets.domain.places import MAX_RESULTS
from mohe_assets.domain.search_plan import Answered, Search, Tallies
from mohe_assets.sources.naver_local.expected_gain import ExpectedGain
from mohe_assets.sources.naver_local.plan import Sort, Stage

_REGION = ""


class _Node(NamedTuple):
    """The parts of a search text; both orders belong to a node.

    Empty dong: the whole region. Empty category: all categories.
    """

    dong: str
    keyword: str
    category: str


class _Block(NamedTuple):
    """Distinct nodes of the same stage: every dong with every category."""

    dongs: Sequence[str]
    keyword: str
    categories: Sequence[str]
    sort: Sort
    new_before: int

    @property
    def stage(self) -> Stage:
        return _stage(_Node(self.dongs[0], self.keyword, self.categories[0]), self.sort)


class _Numbers(dict[str, int]):
    """Numbers of names, assigned by `number` on first access."""

    def __init__(self, number: Callable[[], int]) -> None:
        super().__init__()
        self._number = number

    def __missing__(self, name: str) -> int:
        number = self[name] = self._number()
        return number


class RegionPlan:
    """The refinement of a region in one round; depends on its arguments only.

    `history` has the answered searches in the ledger's order, the base plan's included. `tallies`
    are nationwide counts, read once when the region is claimed; without them the estimate starts
    from a constant.
    """

    def __init__(
        self,
        region_name: str,
        dong_names: Iterable[str],
        keywords: Iterable[str],
        history: Iterable[Answered] = (),
        *,
        tallies: Tallies | None = None,
    ) -> None:
        self.region_name = region_name
        self._keywords = frozenset(keywords)
        self._below = _hierarchy(dong_names)
        self._expected_gain = ExpectedGain(tallies)
        self._places: set[int] = set()
        self._answered: set[tuple[str, str]] = set()
        self._counts: dict[_Node, int] = {}
        self._full: dict[str, dict[_Node, int]] = {keyword: {} for keyword in self._keywords}
        self._categories: dict[str, dict[str, None]] = {keyword: {} for keyword in self._keywords}
        self._search_categories = {
            keyword: _Numbers(self._expected_gain.search_categories.grow)
            for keyword in self._keywords
        }
        self._dongs = _Numbers(self._expected_gain.dongs.grow)
        self._candidates: list[tuple[_Node, Sort]] = []
        # By order: the nodes that are candidates or answered, with their index in _candidates.
        self._at: dict[Sort, dict[_Node, int | None]] = {sort: {} for sort in Sort}
        self._columns = (array("i"), array("i"), array("i"), array("i"))
        self._open = array("d")
        # Candidates without columns yet: a base plan creates hundreds, most are never needed.
        self._pending: list[_Block] = []
        self._unfolded = False
        for answered in history:
            self.learn(answered)

    @property
    def calls(self) -> int:
        """Searches in the history."""
        return len(self._answered)

    @property
    def places(self) -> int:
        """Distinct places in the history."""
        return len(self._places)

    def best(self) -> tuple[Search, float] | None:
        """Return the search with the highest expected gain, and this gain (0 to MAX_RESULTS).

        None if all searches are exhausted. Gains of regions with the same tallies are comparable.
        """
        self._unfold()
        while self._candidates:
            expected = self._expected_gain.expected_all(self._columns, self._open)
            at = int(expected.argmax())
            if expected[at] <= 0:
                return None
            node, sort = self._candidates[at]
            # Exhausted if the node or a wider node was: without category, in the eup, the region.
            wider = (
                node._replace(dong=dong, category=category)
                for dong in (node.dong, node.dong.partition(" ")[0], _REGION)
                for category in (node.category, "")
            )
            if all(self._counts.get(each, MAX_RESULTS) >= MAX_RESULTS for each in wider):
                search = Search(
                    query=self._query(node),
                    sort=sort,
                    keyword=node.keyword,
                    stage=_stage(node, sort),
                    dong_name=node.dong or None,
                )
                return search, float(expected[at])
            self._open[at] = 0
        return None

    def expected_gain(self) -> float:
        """Return the gain of `best`, 0 if all searches are exhausted.

        Cheaper than `best` while only the base plan is answered.
        """
        if self._unfolded:
            best = self.best()
            return best[1] if best else 0.0
        # No search is exhausted yet, and all factors but the first two are 1.
        return max(
            (
                self._expected_gain.expected_at_first(*self._base_rate_and_novelty(block))
                for block in self._pending
            ),
            default=0.0,
        )

    def learn(self, answered: Answered) -> int:
        """Add an answer to the history and return the number of its places new in this round."""
        if (answered.query, answered.sort) in self._answered:
            return 0
        self._answered.add((answered.query, answered.sort))
        sort = Sort(answered.sort)
        new = len(set(answered.place_ids) - self._places)
        self._places.update(answered.place_ids)
        node = self._node(answered)
        if node is not None:
            if answered.stage != Stage.BASE:
                self._unfold()
            at = self._at[sort].setdefault(node)
            if at is not None:  # it was a candidate: compare the gain with the expectation
                self._open[at] = 0
                base_rate, novelty, search_category, dong = (column[at] for column in self._columns)
                self._expected_gain.learn(base_rate, novelty, search_category, dong, new)
            # A node is exhausted as soon as either order of it came back short.
            self._counts[node] = min(answered.result_count, self._counts.get(node, MAX_RESULTS))
            known = self._categories[node.keyword]
            for category in dict.fromkeys(answered.categories):
                for level in _levels(category, node.keyword):
                    if level not in known:
                        known[level] = None
                        for full, was_new in self._full[node.keyword].items():
                            block = [full.dong], node.keyword, [level], Sort.ACCURACY, was_new
                            self._add(_Block(*block))
            if sort is Sort.ACCURACY and answered.result_count >= MAX_RESULTS:
                self._refine(node, new)
        return new

    def _node(self, answered: Answered) -> _Node | None:
        """Return the node of a search; None if the current dongs or keywords do not contain it."""
        dong = answered.dong_name or _REGION
        text = _Node(dong, answered.keyword, "")
        if answered.keyword not in self._keywords or (dong and dong not in self._below):
            return None
        head, rest = self._query(text), answered.query
        if rest == head:
            return text
        return (
            text._replace(category=rest[len(head) + 1 :]) if rest.startswith(f"{head} ") else None
        )

    def _refine(self, node: _Node, new: int) -> None:
        dong, keyword, category = node
        self._add(_Block([dong], keyword, [category], Sort.REVIEWS, new))
        if category:
            return
        self._full[keyword][node] = new
        self._add(_Block(self._below[dong], keyword, [""], Sort.ACCURACY, new))
        self._add(_Block([dong], keyword, [*self._categories[keyword]], Sort.ACCURACY, new))

    def _add(self, block: _Block) -> None:
        if block.dongs and block.categories:
            self._pending.append(block)

    def _unfold(self) -> None:
        """Make candidates of the pending blocks, in bulk: a region can have 250 dongs."""
        self._unfolded = True
        for block in self._pending:
            base_rate, novelty = self._base_rate_and_novelty(block)
            known, categories = self._at[block.sort], self._search_categories[block.keyword]
            nodes = (
                _Node(dong, block.keyword, category)
                for dong in block.dongs
                for category in block.categories
            )
            new = [node for node in nodes if node not in known]
            known.update(zip(new, itertools.count(len(self._candidates))))
            self._candidates += zip(new, itertools.repeat(block.sort))
            for column, indices in zip(
                self._columns,
                (
                    [base_rate] * len(new),
                    [novelty] * len(new),
                    [categories[node.category] for node in new],
                    [self._dongs[node.dong] for node in new],
                ),
                strict=True,
            ):
                column.extend(indices)
            self._open.extend([1.0] * len(new))
        self._pending.clear()

    def _base_rate_and_novelty(self, block: _Block) -> tuple[int, int]:
        stage = block.stage
        return self._expected_gain.base_rate_at(
            stage, block.keyword
        ), self._expected_gain.novelty_at(stage, block.new_before)

    def _query(self, node: _Node) -> str:
        return " ".join(
            part for part in (self.region_name, node.dong, node.keyword, node.category) if part
        )


def _hierarchy(dong_names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the areas directly below each area.

    `돌산읍 군내리` lies below `돌산읍`, even if the list has no row for the eup.
    """
    below: dict[str, dict[str, None]] = {_REGION: {}}
    for name in dong_names:
        head, _, ri = name.partition(" ")
        below[_REGION][head] = None
        below.setdefault(head, {})
        if ri:
            below[head][name] = None
            below.setdefault(name, {})
    return {area: tuple(names) for area, names in below.items()}


@functools.lru_cache(maxsize=10_000)
def _levels(category: str, keyword: str) -> tuple[str, ...]:
    """Return the levels of `음식점>카페,디저트` as words, except those with the keyword."""
    levels = (" ".join(level.replace(",", " ").split()) for level in category.split(">"))
    return tuple(words for words in levels if words and keyword not in words)


def _stage(node: _Node, sort: Sort) -> Stage:
    area = "ri" if " " in node.dong else "dong" if node.dong else ""
    parts = (area, "category" if node.category else "", "sort" if sort is Sort.REVIEWS else "")
    return Stage("_".join(part for part in parts if part))
