"""The region of an address, whatever query found it. Pure: no HTTP, no SQL.

The search API lags behind the region list, so addresses under abolished and changed names are read,
too.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from mohe_assets.domain.places import clean_address
from mohe_assets.domain.regions import Region
from mohe_assets.domain.succession import Succession

_SUFFIXES = ("통합특별시", "특별자치시", "특별자치도", "특별시", "광역시", "도")
_IRREGULAR = {
    "충청북도": "충북", "충청남도": "충남", "전라북도": "전북", "전라남도": "전남", "경상북도": "경북", "경상남도": "경남",
}  # fmt: skip

_Words = tuple[str, ...]


class RegionIndex:
    """Finds the leaf region of an address by its leading words: 경기도 수원시 장안구 before 경기도 수원시.

    Names of now win over those of before. Where a name means several regions (a parent city, a
    district that was split) the dong behind it decides, if exactly one of them has it. `dongs`
    gives those of regions by code; it is asked once, for the few of which that is so.
    """

    def __init__(
        self,
        regions: Iterable[Region],
        dongs: Callable[[Collection[str]], Mapping[str, Collection[str]]] = lambda _codes: {},
        successions: Iterable[Succession] = (),
    ) -> None:
        regions = list(regions)
        self._leaves = {region.region_code for region in regions if region.is_leaf}
        self._parents = {region.region_code for region in regions if not region.is_leaf}
        self._children: dict[str, set[str]] = {}
        for region in regions:
            if region.is_leaf:
                self._children.setdefault(region.parent_code, set()).add(region.region_code)
        successions = list(successions)
        self._became: dict[str, set[str]] = {}
        for one in successions:
            self._became.setdefault(one.old_code, set()).add(one.new_code)
        now: dict[_Words, set[str]] = {}
        before: dict[_Words, set[str]] = {}
        for region in regions:
            if meant := self._living(region.region_code):
                now.setdefault(tuple(region.region_name.split()), set()).update(meant)
        for one in successions:
            before.setdefault(tuple(one.old_name.split()), set()).update(self._living(one.new_code))
        self._meant = _with_short_forms({**before, **now})
        self._longest = max((len(words) for words in self._meant), default=0)
        self._dongs = {
            code: set(_dong_words(names)) for code, names in dongs(self._needing_dongs()).items()
        }

    def region_of(self, address: str, *, formerly: str | None = None) -> str | None:
        """The region's code, or None when the address names no leaf region.

        `formerly` is the region it was given before, whose successor it gets if the address itself
        says too little.
        """
        words = clean_address(address).split()
        for size in range(min(self._longest, len(words)), 0, -1):
            if meant := self._meant.get(tuple(words[:size])):
                return self._the_one(meant, words[size:])
        return self._the_one(self._living(formerly), words) if formerly else None

    def _needing_dongs(self) -> list[str]:
        meant = [
            *self._meant.values(),
            *(self._living(code) for code in [*self._became, *self._parents]),
        ]
        return sorted({code for codes in meant if len(codes) > 1 for code in codes})

    def _the_one(self, meant: Collection[str], words: Sequence[str]) -> str | None:
        if len(meant) == 1:
            return next(iter(meant))
        for phrase in _phrases(words):
            having = [code for code in meant if phrase in self._dongs.get(code, ())]
            if having:
                return having[0] if len(having) == 1 else None
        return None

    def _living(self, code: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """The leaves of now that a code of any time stands for."""
        if code in self._leaves:
            return {code}
        if code in self._parents:
            return set(self._children.get(code, ()))
        after = self._became.get(code, set()) - seen - {code}
        return {leaf for one in after for leaf in self._living(one, seen | {code})}


def short_sidos(name: str) -> tuple[str, ...]:
    """How people shorten a province: 서울특별시 → 서울, 서울시; 경상북도 → 경북."""
    if name in _IRREGULAR:
        return (_IRREGULAR[name],)
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix) + 1:
            short = name.removesuffix(suffix)
            return (short, f"{short}시") if suffix.endswith("시") else (short,)
    return ()


def _with_short_forms(full: Mapping[_Words, set[str]]) -> dict[_Words, set[str]]:
    found: dict[_Words, set[_Words]] = {}
    for words in full:
        for short in short_sidos(words[0]) if words else ():
            found.setdefault((short, *words[1:]), set()).add(words)
    # A short form of two provinces says nothing, and a full name is never shadowed.
    unambiguous = {
        short: full[next(iter(means))] for short, means in found.items() if len(means) == 1
    }
    return {**unambiguous, **full}


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
