"""Find the region of a place by lot address, road address or point. Pure: no HTTP, no SQL.

The search API lags behind the region list, so abolished and changed region names are recognized.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from mohe_assets.domain.regions import Region, sido_spellings
from mohe_assets.domain.succession import Succession

_Words = tuple[str, ...]
_Number = float | Decimal
Point = tuple[_Number, _Number]  # latitude, longitude

_NO_CODES: frozenset[str] = frozenset()
_PUNCTUATION = str.maketrans(dict.fromkeys(",，()[]", " "))
# Words before the province: the country, or a postcode (06236; before 2015: 135-080).
_BEFORE_THE_SIDO = re.compile(r"대한민국|한국|우|우편번호|\d{5}|\d{3}-\d{3}")


class RegionIndex:
    """Index that finds the leaf region of an address by the longest prefix of its words.

    경기도 수원시 장안구 is tried before 경기도 수원시. Current names precede former names.
    If a name stands for several regions (a parent city, a split district), the dong after it
    decides, then the nearest of `points` (code → WGS84 latitude, longitude). `dongs` returns dong
    names by region code; it is called once, with the codes of regions that share a name.
    """

    def __init__(
        self,
        regions: Iterable[Region],
        dongs: Callable[[Collection[str]], Mapping[str, Collection[str]]] = lambda _codes: {},
        successions: Iterable[Succession] = (),
        points: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        regions, successions = list(regions), list(successions)
        self._leaves = {region.region_code for region in regions if region.is_leaf}
        self._parents = {region.region_code for region in regions if not region.is_leaf}
        self._children: dict[str, set[str]] = {}
        for region in regions:
            if region.is_leaf:
                self._children.setdefault(region.parent_code, set()).add(region.region_code)
        self._became: dict[str, set[str]] = {}
        for succession in successions:
            self._became.setdefault(succession.old_code, set()).add(succession.new_code)
        # Both by the words of the full name; lookups expand each spelling of a province.
        self._current: dict[_Words, frozenset[str]] = {}
        self._former: dict[_Words, frozenset[str]] = {}
        named = [(self._current, region.region_name, region.region_code) for region in regions]
        named += [(self._former, each.old_name, each.new_code) for each in successions]
        for names, name, code in named:
            words = tuple(name.split())
            if leaves := self._current_leaves(code):
                names[words] = names.get(words, _NO_CODES) | leaves
        self._sidos: dict[str, list[str]] = {}
        for sido in dict.fromkeys(words[0] for words in (*self._current, *self._former)):
            for spelling in (sido, *sido_spellings(sido)):
                self._sidos.setdefault(spelling, []).append(sido)
        self._longest = max((len(words) for words in (*self._current, *self._former)), default=0)
        groups = [*self._current.values(), *self._former.values()]
        groups += [self._current_leaves(code) for code in (*self._became, *self._parents)]
        shared = sorted({code for codes in groups if len(codes) > 1 for code in codes})
        # As addresses write them: 돌산읍 and 돌산읍 군내리, without the part in brackets.
        self._dongs: dict[str, set[str]] = {}
        for code, dong_names in dongs(shared).items():
            plain = {name.split("(")[0].strip() for name in dong_names}
            self._dongs[code] = plain | {name.split(" ")[0] for name in plain}
        self._points = {code: points[code] for code in shared if code in points} if points else {}

    def region_of(
        self,
        address: str,
        *,
        road_address: str = "",
        point: Point | None = None,
        formerly: str | None = None,
    ) -> str | None:
        """Return the code of the place's leaf region, or None if it cannot be decided.

        `formerly` is the code of the place's previous region: if neither address names a region,
        its successor is returned.
        """
        matching = _NO_CODES
        for text in (address, road_address):
            leaves = self._leaves_of(_words(text))
            if len(leaves) == 1:
                return next(iter(leaves))
            matching = (matching & leaves) or matching or leaves
        if not matching and formerly:
            matching = self._narrow_by_dong(self._current_leaves(formerly), _words(address))
        if len(matching) == 1:
            return next(iter(matching))
        # A leaf without a known point could be the nearest.
        if point is None or not matching or not matching <= self._points.keys():
            return None
        latitude, longitude = float(point[0]), float(point[1])
        degree = math.cos(math.radians(latitude))  # length of 1° of longitude in ° of latitude

        def distance(code: str) -> float:
            north, east = self._points[code]
            return math.hypot(north - latitude, (east - longitude) * degree)

        return min(sorted(matching), key=distance)

    def _leaves_of(self, words: Sequence[str]) -> frozenset[str]:
        """Return the leaves that match the words of an address."""
        sidos = self._sidos.get(words[0], ()) if words else ()
        for names in (self._current, self._former):
            matching = _NO_CODES
            for sido in sidos:
                for size in range(min(self._longest, len(words)), 0, -1):
                    if leaves := names.get((sido, *words[1:size])):
                        matching |= self._narrow_by_dong(leaves, words[size:])
                        break
            if matching:
                return matching
        return _NO_CODES

    def _narrow_by_dong(self, leaves: frozenset[str], words: Sequence[str]) -> frozenset[str]:
        """Return the leaves that have the dong in these words; all leaves if none has it."""
        if len(leaves) > 1:
            # The most exact first: 향남읍 구문천리 before 향남읍.
            pairs = [f"{first} {second}" for first, second in pairwise(words)]
            for phrase in (*pairs, *words):
                having = frozenset(code for code in leaves if phrase in self._dongs.get(code, ()))
                if having:
                    return having
        return leaves

    def _current_leaves(self, code: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        """Return the current leaves that a current or former code stands for."""
        if code in self._leaves:
            return frozenset((code,))
        if code in self._parents:
            return frozenset(self._children.get(code, ()))
        after = self._became.get(code, set()) - seen - {code}
        return frozenset(leaf for new in after for leaf in self._current_leaves(new, seen | {code}))


def _words(address: str) -> list[str]:
    """Split an address into words from its province on; Sejong's doubled name is kept once."""
    words = address.translate(_PUNCTUATION).split()
    start = 0
    while start < len(words) and _BEFORE_THE_SIDO.fullmatch(words[start]):
        start += 1
    while start + 1 < len(words) and words[start] == words[start + 1]:
        start += 1
    return words[start:]


def regions_named(words: str, names: Mapping[str, str]) -> list[str]:
    """Return the codes of regions that match a name such as 강남구, 서울 강남구 or 수원시.

    `names` has full names by code. A full name matches only itself. Otherwise the words must occur
    in the region's name, in this order, with the full or short province; regions whose name ends
    with the last word have priority.
    """
    given = tuple(words.replace("_", " ").split())
    split = {code: tuple(name.split()) for code, name in names.items()}
    if exact := [code for code, full in split.items() if full == given]:
        return exact
    matching = [code for code, full in split.items() if given and _contains(full, given)]
    return [code for code in matching if split[code][-1] == given[-1]] or matching


def _contains(full: _Words, given: _Words) -> bool:
    for province in (full[0], *sido_spellings(full[0])):
        left = iter((province, *full[1:]))
        if all(word in left for word in given):
            return True
    return False
