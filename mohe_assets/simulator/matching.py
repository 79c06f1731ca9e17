"""Which places a query finds, and in which order: a pure function of seed, round, region list and
query.
"""

import heapq
import math
import zlib
from typing import NamedTuple

from mohe_assets.simulator.catalogue import MEANINGS
from mohe_assets.simulator.gazetteer import Gazetteer, dongs_by_word
from mohe_assets.simulator.region_list import base_sigungu
from mohe_assets.simulator.universe import Place, Universe

MOST = 5
# Where a query without any place name finds something, as a service that guesses would: the middle
# of the capital.
_DEFAULT_DISTRICTS = ("11140", "11680", "11440", "11110", "11650")

Parts = dict[str, set[int] | None]


class Meaning(NamedTuple):
    """`parts`: base districts with the dongs asked for (None: all). `keywords`: each with the forms
    that mean it.
    """

    parts: Parts
    keywords: tuple[tuple[str, ...], ...]
    dong_words: tuple[str, ...]
    names_an_area: bool


class Searcher:
    """Reads queries against one universe under the names of one region list."""

    def __init__(self, universe: Universe, gazetteer: Gazetteer, *, round_number: int) -> None:
        self.universe = universe
        self.gazetteer = gazetteer
        self.round_number = round_number
        self._dongs = dongs_by_word()

    def meaning(self, query: str) -> Meaning:
        codes, rest = self._districts(query.split())
        parts = None if codes is None else self._parts(codes)
        dong_words, keywords = [], []
        for word in rest:
            narrowed = _narrowed(parts, self._dongs.get(word))
            if narrowed is None:
                keywords.append(MEANINGS.get(word, (word,)))
            else:
                dong_words.append(word)
                parts = narrowed
        everywhere: Parts = dict.fromkeys(_DEFAULT_DISTRICTS)
        return Meaning(
            parts=everywhere if parts is None else parts,
            keywords=tuple(keywords),
            dong_words=tuple(dong_words),
            names_an_area=parts is not None,
        )

    def _districts(self, words: list[str]) -> tuple[set[str] | None, list[str]]:
        """Codes of the districts that bear all district words of the query, and its other words."""
        codes: set[str] | None = None
        rest = []
        for word in words:
            named = self.gazetteer.districts_named(word)
            if named is None:
                rest.append(word)
            else:
                codes = named if codes is None else codes & named
        return codes, rest

    def _parts(self, codes: set[str]) -> Parts:
        parts: Parts = {}
        for code in sorted(codes):
            for base, dongs in self.gazetteer.districts[code].parts.items():
                known = parts.get(base, set())
                parts[base] = None if dongs is None or known is None else known | dongs
        return parts

    def best(self, meaning: Meaning, query: str, sort: str, *, most: int = MOST) -> list[Place]:
        """The best first. By accuracy each query ranks a little differently; by reviews all rank
        alike.
        """
        salt = zlib.crc32(f"{self.universe.seed}:{' '.join(query.split())}".encode())
        tops: list[tuple[float, str, int, Place]] = []
        for base, dongs in meaning.parts.items():
            found = self.universe.matching(base, meaning.keywords)
            if dongs is not None:
                found = [place for place in found if place.dong in dongs]
            scored = (self._by_reviews if sort == "comment" else self._by_accuracy)(found, salt)
            tops += heapq.nlargest(most, scored)
        return [top[3] for top in heapq.nlargest(most, tops)]

    def _by_accuracy(self, found: list[Place], salt: int) -> list[tuple[float, str, int, Place]]:
        # 40503 and 2654435761 spread consecutive numbers over 16 bits; the second term moves with
        # the round only.
        drift = self.round_number * 7919
        weight = 0.06 if drift else 0.0
        return [
            (
                place.accuracy
                + ((place.number * 40503 + salt) * 2654435761 >> 9 & 0xFFFF) * 3.8e-6
                + weight * (((place.number + drift) * 2654435761 >> 7 & 0xFF) / 256),
                place.base,
                place.number,
                place,
            )
            for place in found
        ]

    def _by_reviews(self, found: list[Place], _salt: int) -> list[tuple[float, str, int, Place]]:
        grown = self.round_number
        return [
            (
                place.reviews + grown * (place.number * 40503 >> 5 & 3),
                place.base,
                place.number,
                place,
            )
            for place in found
        ]

    def elsewhere(self, meaning: Meaning) -> list[Parts]:
        """Where results leak in from: dongs of the same name in other districts, else the nearest
        districts.
        """
        for word in meaning.dong_words:
            if namesakes := [
                {base: dongs}
                for base, dongs in self._dongs[word].items()
                if base not in meaning.parts
            ]:
                return [dict(parts) for parts in namesakes]
        asked = next(iter(meaning.parts), None)
        near = self._neighbours(asked) if asked else []
        return [{base: None} for base in near if base not in meaning.parts]

    def _neighbours(self, base: str) -> list[str]:
        here = base_sigungu()[base]
        others = (
            (math.hypot(each.lat - here.lat, each.lng - here.lng), code)
            for code, each in base_sigungu().items()
            if each.is_leaf and code != base
        )
        return [code for _, code in heapq.nsmallest(3, others)]


def _narrowed(parts: Parts | None, named: dict[str, set[int]] | None) -> Parts | None:
    """The parts within the dongs a word names; None when the word names no dong there."""
    if named is None:
        return None
    if parts is None:
        return {base: set(dongs) for base, dongs in named.items()}
    both = {
        base: named[base] if dongs is None else named[base] & dongs
        for base, dongs in parts.items()
        if base in named
    }
    return {base: dongs for base, dongs in both.items() if dongs} or None
