"""Which search refines a region next, and what it may bring. Pure: the same history always gives the same next search.

The API gives five places a search and no second page, so only the text steers. The rule: a search that came back full is
refined by (1) the second order of the same text, (2) the text with a dong, eup or myeon, after a full eup its ris, and
(3) the text with a category that answers to the keyword itself showed: `음식점` may become `음식점 국밥`, and never `국밥`, so
that whatever is found is still what the keyword asks for. A search with less than five answers is exhausted: what is more
specific could only find the same again, and is never asked.

Which of them first is a matter of expected new places, see promise.py. The order comes from what others measured (84 % of
blindly refined searches brought nothing new) and from what this region answers. It errs by a stray that fills an
exhausted answer up to five, which costs the searches below it until they come back short.
"""

import functools
import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mohe_assets.promise import CAP, Promise, Tallies
from mohe_assets.search_plan import Search, Sort, Stage

_REGION = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A search the ledger has, in the order it was stored. `place_ids` are the places kept, `categories` as answered.

    `result_count` counts all items, also those set aside; a search the API refuses is one with none.
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
    """What a text asks for; both orders of an answer belong to one node. Empty dong: the region; empty category: all."""

    dong: str
    keyword: str
    category: str


class RegionPlan:
    """The refinement of one region in one round. Knows only its arguments: rebuilt from the ledger it goes on as before.

    `history` has the base plan's searches too, in the ledger's order; they are never proposed here. `tallies` are
    nationwide counts, read once when the region is claimed; without them the region learns by itself, more slowly.
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
        self._promise = Promise(tallies)
        self._places: set[int] = set()
        self._asked: set[tuple[str, str]] = set()
        self._done: set[tuple[_Node, Sort]] = set()
        self._counts: dict[_Node, int] = {}
        self._full: dict[str, dict[_Node, int]] = {keyword: {} for keyword in self._keywords}
        self._categories: dict[str, dict[str, None]] = {keyword: {} for keyword in self._keywords}
        self._kinds: dict[tuple[str, str], int] = {}
        self._dongs: dict[str, int] = {}
        self._candidates: list[tuple[_Node, Sort]] = []
        self._at: dict[tuple[_Node, Sort], int] = {}
        self._columns = (array("i"), array("i"), array("i"), array("i"))
        self._open = array("d")
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
        """The most promising search and the new places expected of it (0 to 5); None when all is exhausted.

        The number is comparable between regions that were given the same tallies.
        """
        while self._candidates:
            expected = self._promise.expected_all(self._columns, self._open)
            at = int(expected.argmax())
            if expected[at] <= 0:
                return None
            node, sort = self._candidates[at]
            if not self._exhausted(node):
                return self._search(node, sort), float(expected[at])
            self._open[at] = 0
        return None

    def learn(self, answered: Answered) -> int:
        """Takes one answer in; returns how many of its places no earlier search of this region and round had."""
        if (answered.query, answered.sort.value) in self._asked:
            return 0
        self._asked.add((answered.query, answered.sort.value))
        new = len(set(answered.place_ids) - self._places)
        self._places.update(answered.place_ids)
        node = self._node(answered)
        if node is not None:
            self._done.add((node, answered.sort))
            self._judge(node, answered.sort, new)
            # A node is exhausted as soon as either order of it came back short.
            self._counts[node] = min(answered.result_count, self._counts.get(node, CAP))
            self._note_categories(node.keyword, answered.categories)
            if answered.sort is Sort.ACCURACY and answered.result_count >= CAP:
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
        return text._replace(category=rest[len(head) + 1 :]) if rest.startswith(f"{head} ") else None

    def _judge(self, node: _Node, sort: Sort, new: int) -> None:
        """Compares what a candidate brought with what was expected, and takes it from the list."""
        at = self._at.get((node, sort))
        if at is not None:
            self._open[at] = 0
            usual, novelty, kind, dong = (column[at] for column in self._columns)
            self._promise.learn(usual, novelty, kind, dong, new)

    def _note_categories(self, keyword: str, categories: Sequence[str]) -> None:
        known = self._categories[keyword]
        for category in dict.fromkeys(categories):
            for level in _levels(category, keyword):
                if level not in known:
                    known[level] = None
                    for node, new in self._full[keyword].items():
                        self._add([node._replace(category=level)], Sort.ACCURACY, new)

    def _refine(self, node: _Node, new: int) -> None:
        self._add([node], Sort.REVIEWS, new)
        if node.category:
            return
        dong, keyword, _ = node
        self._full[keyword][node] = new
        self._add([_Node(below, keyword, "") for below in self._below[dong]], Sort.ACCURACY, new)
        self._add([_Node(dong, keyword, level) for level in self._categories[keyword]], Sort.ACCURACY, new)

    def _add(self, nodes: Sequence[_Node], sort: Sort, new_before: int) -> None:
        """Makes candidates of nodes of one stage and keyword. In bulk: a full keyword of a large region has 250 dongs."""
        if not nodes:
            return
        stage = _stage(nodes[0], sort)
        usual, novelty = self._promise.usual_at(stage, nodes[0].keyword), self._promise.novelty_at(stage, new_before)
        asked = dict.fromkeys((node, sort) for node in nodes)
        new = [key for key in asked if key not in self._at and key not in self._done]
        self._at.update(zip(new, itertools.count(len(self._candidates))))
        self._candidates += new
        usuals, novelties, kinds, dongs = self._columns
        usuals.extend([usual] * len(new))
        novelties.extend([novelty] * len(new))
        kinds.extend(self._kind_at(node) for node, _ in new)
        dongs.extend(self._dong_at(node.dong) for node, _ in new)
        self._open.extend([1.0] * len(new))

    def _kind_at(self, node: _Node) -> int:
        kind = self._kinds.get((node.keyword, node.category))
        if kind is None:
            kind = self._kinds[node.keyword, node.category] = self._promise.kinds.grow()
        return kind

    def _dong_at(self, name: str) -> int:
        dong = self._dongs.get(name)
        if dong is None:
            dong = self._dongs[name] = self._promise.dongs.grow()
        return dong

    def _exhausted(self, node: _Node) -> bool:
        return any(self._counts.get(wider, CAP) < CAP for wider in _wider(node))

    def _query(self, node: _Node) -> str:
        return " ".join(part for part in (self.region_name, node.dong, node.keyword, node.category) if part)

    def _search(self, node: _Node, sort: Sort) -> Search:
        return Search(
            query=self._query(node), sort=sort, keyword=node.keyword, stage=_stage(node, sort), dong_name=node.dong or None
        )


def _hierarchy(dong_names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The areas right below each area. `돌산읍 군내리` lies below `돌산읍`, also when the list lacks the eup itself."""
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
