"""The region of a place: by lot address, else road address, else point. Pure: no HTTP, no SQL.

The search API lags behind the region list, so addresses under abolished and changed names are read,
too.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from mohe_assets.domain.regions import Region, sido_spellings
from mohe_assets.domain.succession import Succession

_Words = tuple[str, ...]
_Number = float | Decimal
Point = tuple[_Number, _Number]  # latitude, longitude

_NO_CODES: frozenset[str] = frozenset()
_PUNCTUATION = str.maketrans(dict.fromkeys(",，()[]", " "))
# What may precede the province: the country, or a postcode (06236; before 2015: 135-080).
_BEFORE_THE_SIDO = re.compile(r"대한민국|한국|우|우편번호|\d{5}|\d{3}-\d{3}")


class RegionIndex:
    """Finds the leaf region of an address by its leading words: 경기도 수원시 장안구 before 경기도 수원시.

    Names of now win over those of before. Where a name means several regions (a parent city, a
    district that was split) the dong behind it decides, and where that leaves several, the nearest
    of `points`. `dongs` gives those of regions by code; it is called once, for the few regions that
    share a name.
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
        for one in successions:
            self._became.setdefault(one.old_code, set()).add(one.new_code)
        # Both by full name; the lookup turns every spelling of a province into its full names.
        self._now: dict[_Words, frozenset[str]] = {}
        self._before: dict[_Words, frozenset[str]] = {}
        named = [(self._now, region.region_name, region.region_code) for region in regions]
        named += [(self._before, one.old_name, one.new_code) for one in successions]
        for names, name, code in named:
            words = tuple(name.split())
            if meant := self._living(code):
                names[words] = names.get(words, _NO_CODES) | meant
        self._sidos: dict[str, list[str]] = {}
        for sido in dict.fromkeys(words[0] for words in (*self._now, *self._before)):
            for spelling in (sido, *sido_spellings(sido)):
                self._sidos.setdefault(spelling, []).append(sido)
        self._longest = max((len(words) for words in (*self._now, *self._before)), default=0)
        several = self._codes_that_share_a_name()
        self._dongs = {code: set(_dong_words(names)) for code, names in dongs(several).items()}
        self._points = {code: points[code] for code in several if code in points} if points else {}

    def region_of(
        self,
        address: str,
        *,
        road_address: str = "",
        point: Point | None = None,
        formerly: str | None = None,
    ) -> str | None:
        """The region's code, or None when nothing tells which leaf region it is.

        `formerly` is the region it was given before: its successor is taken if both addresses name
        no region.
        """
        fitting = _NO_CODES
        for text in (address, road_address):
            found = self._named(text) if text else _NO_CODES
            if len(found) == 1:
                return next(iter(found))
            fitting = (fitting & found) or fitting or found
        if not fitting and formerly:
            fitting = self._narrowed(self._living(formerly), _words(address))
        return next(iter(fitting)) if len(fitting) == 1 else self._nearest(fitting, point)

    def _named(self, address: str) -> frozenset[str]:
        """The leaves that fit an address."""
        words = _words(address)
        sidos = self._sidos.get(words[0], ()) if words else ()
        for names in (self._now, self._before):
            found = _NO_CODES
            for sido in sidos:
                for size in range(min(self._longest, len(words)), 0, -1):
                    if meant := names.get((sido, *words[1:size])):
                        found |= self._narrowed(meant, words[size:])
                        break
            if found:
                return found
        return _NO_CODES

    def _narrowed(self, meant: frozenset[str], words: Sequence[str]) -> frozenset[str]:
        """Those of the leaves that have the dong in these words; all of them where none has."""
        if len(meant) > 1:
            for phrase in _phrases(words):
                having = frozenset(code for code in meant if phrase in self._dongs.get(code, ()))
                if having:
                    return having
        return meant

    def _nearest(self, codes: frozenset[str], point: Point | None) -> str | None:
        """The leaf whose point is nearest; None if a point is unknown: it may be nearer."""
        if point is None or not codes or not codes <= self._points.keys():
            return None
        latitude, longitude = float(point[0]), float(point[1])
        degree = math.cos(math.radians(latitude))  # of longitude, in degrees of latitude

        def distance(code: str) -> float:
            north, east = self._points[code]
            return math.hypot(north - latitude, (east - longitude) * degree)

        return min(sorted(codes), key=distance)

    def _codes_that_share_a_name(self) -> list[str]:
        meant = [*self._now.values(), *self._before.values()]
        meant += [self._living(code) for code in (*self._became, *self._parents)]
        return sorted({code for codes in meant if len(codes) > 1 for code in codes})

    def _living(self, code: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        """The leaves of now that a code of any time stands for."""
        if code in self._leaves:
            return frozenset((code,))
        if code in self._parents:
            return frozenset(self._children.get(code, ()))
        after = self._became.get(code, set()) - seen - {code}
        return frozenset(leaf for one in after for leaf in self._living(one, seen | {code}))


def _words(address: str) -> list[str]:
    """The words of an address from its province on, the doubled name of Sejong once."""
    words = address.translate(_PUNCTUATION).split()
    start = 0
    while start < len(words) and _BEFORE_THE_SIDO.fullmatch(words[start]):
        start += 1
    while start + 1 < len(words) and words[start] == words[start + 1]:
        start += 1
    return words[start:]


def regions_named(words: str, names: Mapping[str, str]) -> list[str]:
    """Codes of the regions that a person may mean by a name: 강남구, 서울 강남구 or 수원시.

    `names` are full names by code. A full name means itself alone. Else the words have to be among
    the region's, in its order, with the province full or short; regions whose name ends with the
    last of them come before those that only contain it.
    """
    given = tuple(words.replace("_", " ").split())
    split = {code: tuple(name.split()) for code, name in names.items()}
    if exact := [code for code, full in split.items() if full == given]:
        return exact
    found = [code for code, full in split.items() if given and _contains(full, given)]
    return [code for code in found if split[code][-1] == given[-1]] or found


def _contains(full: _Words, given: _Words) -> bool:
    forms = [full, *((short, *full[1:]) for short in sido_spellings(full[0]))]
    return any(_in_order(given, form) for form in forms)


def _in_order(given: _Words, form: _Words) -> bool:
    left = iter(form)
    return all(word in left for word in given)


def _dong_words(names: Iterable[str]) -> Iterator[str]:
    """Names as addresses write them: 돌산읍 and 돌산읍 군내리, without what is in brackets."""
    for name in names:
        plain = name.split("(")[0].strip()
        yield plain
        yield plain.split(" ")[0]


def _phrases(words: Sequence[str]) -> Iterator[str]:
    """What may be a dong in an address, the most exact first: 향남읍 구문천리 before 향남읍."""
    for first, second in pairwise(words):
        yield f"{first} {second}"
    yield from words
