"""Which search refines a region next, and what it may bring. Pure: the same history always gives
the same next search.

The API gives five places a search and no second page, so only the text steers. The rule: a search
that came back full is refined by (1) the second order of the same text, (2) the text with a dong,
eup or myeon, after a full eup its ris, and (3) the text with a category that answers to the keyword
itself showed: `음식점` may become `음식점 국밥`, and never `국밥`, so that whatever is found is still what
the keyword asks for. A search with less than five answers is exhausted: what is more specific could
only find the same again, and is never asked.

Which of them first is a matter of expected new places, see promise.py. The order comes from what
others measured (84 % of blindly refined searches brought nothing new) and from what this region
answers. It errs by a stray that fills an exhausted answer up to five, which costs the searches
below it until they come back short.
"""

import functools
import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mohe_assets.sources.naver_local.expected_gain import MAX_RESULTS, ExpectedGain, Tallies
from mohe_assets.sources.naver_local.search_plan import Search, Sort, Stage

_REGION = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A search the ledger has, in the order it was stored. `place_ids` are the places kept,
    `categories` as answered.

    `result_count` counts all items, also those set aside; a search the API refuses is one with
    none.
    """

    query: str
    sort: Sort
    keyword: str
    stage: Stage
    dong_name: str | None
    result_count: int
    place_ids: tuple[int, ...]
    categories: tuple[str, ...] = ()


class _Node(NamedTuple):
    """What a text asks for; both orders of an answer belong to one node. Empty dong: the region;
    empty category: all.
    """

    dong: str
    keyword: str
    category: str


class _Block(NamedTuple):
    """Nodes of one stage, no two alike: every dong with every category."""

    dongs: Sequence[str]
    keyword: str
    categories: Sequence[str]
    sort: Sort
    new_before: int

    @property
    def stage(self) -> Stage:
        return _stage(_Node(self.dongs[0], self.keyword, self.categories[0]), self.sort)


class _Numbers(dict[str, int]):
    """Names numbered by `number`, each when it is first asked for."""

    def __init__(self, number: Callable[[], int]) -> None:
        super().__init__()
        self._number = number

    def __missing__(self, name: str) -> int:
        number = self[name] = self._number()
        return number


class RegionPlan:
    """The refinement of one region in one round. Knows only its arguments: rebuilt from the ledger
    it goes on as before.

    `history` has the base plan's searches too, in the ledger's order; they are never proposed here.
    `tallies` are nationwide counts, read once when the region is claimed; without them the region
    learns by itself, more slowly.
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
        self._asked: set[tuple[str, str]] = set()
        self._counts: dict[_Node, int] = {}
        self._full: dict[str, dict[_Node, int]] = {keyword: {} for keyword in self._keywords}
        self._categories: dict[str, dict[str, None]] = {keyword: {} for keyword in self._keywords}
        self._search_categories = {
            keyword: _Numbers(self._expected_gain.search_categories.grow)
            for keyword in self._keywords
        }
        self._dongs = _Numbers(self._expected_gain.dongs.grow)
        self._candidates: list[tuple[_Node, Sort]] = []
        # By order: each node that is a candidate or was answered, with its number among the
        # candidates if it has one.
        self._at: dict[Sort, dict[_Node, int | None]] = {sort: {} for sort in Sort}
        self._columns = (array("i"), array("i"), array("i"), array("i"))
        self._open = array("d")
        # What is a candidate and has no column yet: a region's base plan makes hundreds, and most
        # of them nobody asks for.
        self._pending: list[_Block] = []
        self._unfolded = False
        for answered in history:
            self.learn(answered)

    @property
    def calls(self) -> int:
        """Searches in the history."""
        return len(self._asked)

    @property
    def places(self) -> int:
        """Distinct places in the history."""
        return len(self._places)

    def best(self) -> tuple[Search, float] | None:
        """The most promising search and the new places expected of it (0 to 5); None when all is
        exhausted.

        The number is comparable between regions that were given the same tallies.
        """
        self._unfold()
        while self._candidates:
            expected = self._expected_gain.expected_all(self._columns, self._open)
            at = int(expected.argmax())
            if expected[at] <= 0:
                return None
            node, sort = self._candidates[at]
            if not self._exhausted(node):
                return self._search(node, sort), float(expected[at])
            self._open[at] = 0
        return None

    def expected_gain(self) -> float:
        """The new places expected of the best search, 0 when all is exhausted: what `best` says,
        for less where only the base plan was answered.
        """
        if self._unfolded:
            best = self.best()
            return best[1] if best else 0.0
        # Nothing is exhausted yet, and nothing known of categories, dongs and the region.
        return max(
            (
                self._expected_gain.expected_at_first(*self._base_rate_and_novelty(block))
                for block in self._pending
            ),
            default=0.0,
        )

    def learn(self, answered: Answered) -> int:
        """Takes one answer in; returns how many of its places no earlier search of this region and
        round had.
        """
        if (answered.query, answered.sort.value) in self._asked:
            return 0
        self._asked.add((answered.query, answered.sort.value))
        new = len(set(answered.place_ids) - self._places)
        self._places.update(answered.place_ids)
        node = self._node(answered)
        if node is not None:
            if answered.stage is not Stage.BASE:
                self._unfold()
            self._judge(node, answered.sort, new)
            # A node is exhausted as soon as either order of it came back short.
            self._counts[node] = min(answered.result_count, self._counts.get(node, MAX_RESULTS))
            self._note_categories(node.keyword, answered.categories)
            if answered.sort is Sort.ACCURACY and answered.result_count >= MAX_RESULTS:
                self._refine(node, new)
        return new

    def _node(self, answered: Answered) -> _Node | None:
        """What the search asked for; None when today's names or keywords would not ask it any more."""
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

    def _judge(self, node: _Node, sort: Sort, new: int) -> None:
        """Compares what a candidate brought with what was expected, and takes it from the list."""
        at = self._at[sort].setdefault(node)
        if at is not None:
            self._open[at] = 0
            base_rate, novelty, search_category, dong = (column[at] for column in self._columns)
            self._expected_gain.learn(base_rate, novelty, search_category, dong, new)

    def _note_categories(self, keyword: str, categories: Sequence[str]) -> None:
        known = self._categories[keyword]
        for category in dict.fromkeys(categories):
            for level in _levels(category, keyword):
                if level not in known:
                    known[level] = None
                    for node, new in self._full[keyword].items():
                        self._add(_Block([node.dong], keyword, [level], Sort.ACCURACY, new))

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
        self._unfolded = True
        for block in self._pending:
            self._make_candidates(block)
        self._pending.clear()

    def _base_rate_and_novelty(self, block: _Block) -> tuple[int, int]:
        stage = block.stage
        return self._expected_gain.base_rate_at(
            stage, block.keyword
        ), self._expected_gain.novelty_at(stage, block.new_before)

    def _make_candidates(self, block: _Block) -> None:
        """In bulk: a full keyword of a large region has 250 dongs."""
        base_rate, novelty = self._base_rate_and_novelty(block)
        known, kinds_here = self._at[block.sort], self._search_categories[block.keyword]
        nodes = (
            _Node(dong, block.keyword, category)
            for dong in block.dongs
            for category in block.categories
        )
        new = [node for node in nodes if node not in known]
        known.update(zip(new, itertools.count(len(self._candidates))))
        self._candidates += zip(new, itertools.repeat(block.sort))
        usuals, novelties, search_categories, dongs = self._columns
        usuals.extend(array("i", [base_rate]) * len(new))
        novelties.extend(array("i", [novelty]) * len(new))
        search_categories.extend([kinds_here[node.category] for node in new])
        dongs.extend([self._dongs[node.dong] for node in new])
        self._open.extend(array("d", [1.0]) * len(new))

    def _exhausted(self, node: _Node) -> bool:
        return any(self._counts.get(wider, MAX_RESULTS) < MAX_RESULTS for wider in _wider(node))

    def _query(self, node: _Node) -> str:
        return " ".join(
            part for part in (self.region_name, node.dong, node.keyword, node.category) if part
        )

    def _search(self, node: _Node, sort: Sort) -> Search:
        return Search(
            query=self._query(node),
            sort=sort,
            keyword=node.keyword,
            stage=_stage(node, sort),
            dong_name=node.dong or None,
        )


def _hierarchy(dong_names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The areas right below each area. `돌산읍 군내리` lies below `돌산읍`, also when the list lacks the eup
    itself.
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
    """The levels of `음식점>카페,디저트` as words, without those that say no more than the keyword does."""
    levels = (" ".join(level.replace(",", " ").split()) for level in category.split(">"))
    return tuple(words for words in levels if words and keyword not in words)


def _stage(node: _Node, sort: Sort) -> Stage:
    area = "ri" if " " in node.dong else "dong" if node.dong else ""
    parts = (area, "category" if node.category else "", "sort" if sort is Sort.REVIEWS else "")
    return Stage("_".join(part for part in parts if part))


def _wider(node: _Node) -> Iterator[_Node]:
    """The node and all that contain it: without the category, in the eup, in the region."""
    head = node.dong.partition(" ")[0]
    for dong in dict.fromkeys((node.dong, head, _REGION)):
        for category in dict.fromkeys((node.category, "")):
            yield _Node(dong, node.keyword, category)
