"""The places that a query finds, in order. Pure: depends on seed, round, region list and query."""

import heapq
import math
import zlib
from typing import NamedTuple

from mohe_assets.simulator.catalogue import MEANINGS
from mohe_assets.simulator.gazetteer import Gazetteer, dongs_by_word
from mohe_assets.simulator.region_list import base_sigungu
from mohe_assets.simulator.universe import Place, Universe

MOST = 5  # items in an answer
# Districts for queries without a place name, as the service guesses: the middle of the capital.
_DEFAULT_DISTRICTS = ("11140", "11680", "11440", "11110", "11650")

Parts = dict[str, set[int] | None]


class Meaning(NamedTuple):
    """The meaning of a query.

    `parts`: base districts with dong numbers (None: all). `keywords`: each with its synonyms.
    """

    parts: Parts
    keywords: tuple[tuple[str, ...], ...]
    dong_words: tuple[str, ...]
    names_an_area: bool


class Searcher:
    """Interprets queries for a universe with the names of a region list."""

    def __init__(self, universe: Universe, gazetteer: Gazetteer, *, round_number: int) -> None:
        self.universe = universe
        self.gazetteer = gazetteer
        self.round_number = round_number
        self._dongs = dongs_by_word()

    def meaning(self, query: str) -> Meaning:
        codes: set[str] | None = None
        rest, dong_words, keywords = [], [], []
        for word in query.split():
            named = self.gazetteer.districts_named(word)
            if named is None:
                rest.append(word)
            else:
                codes = named if codes is None else codes & named
        parts: Parts | None = None
        if codes is not None:
            parts = {}
            for code in sorted(codes):
                for base, dongs in self.gazetteer.districts[code].parts.items():
                    known = parts.get(base, set())
                    parts[base] = None if dongs is None or known is None else known | dongs
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

    def best(self, meaning: Meaning, query: str, sort: str, *, most: int = MOST) -> list[Place]:
        """Return the best places. The order by accuracy depends on the query's text a little."""
        salt = zlib.crc32(f"{self.universe.seed}:{' '.join(query.split())}".encode())
        tops: list[tuple[float, str, int, Place]] = []
        # 40503 and 2654435761 spread consecutive numbers over 16 bits; only the last term of the
        # accuracy changes with the round.
        days = self.round_number
        drift, weight = days * 7919, 0.06 if days else 0.0
        for base, dongs in meaning.parts.items():
            places = self.universe.matching(base, meaning.keywords)
            if dongs is not None:
                places = [place for place in places if place.dong in dongs]
            if sort == "comment":
                scores = [
                    float(each.reviews + days * (each.number * 40503 >> 5 & 3)) for each in places
                ]
            else:
                scores = [
                    each.accuracy
                    + ((each.number * 40503 + salt) * 2654435761 >> 9 & 0xFFFF) * 3.8e-6
                    + weight * (((each.number + drift) * 2654435761 >> 7 & 0xFF) / 256)
                    for each in places
                ]
            ranked = (
                (score, each.base, each.number, each)
                for score, each in zip(scores, places, strict=True)
            )
            tops += heapq.nlargest(most, ranked)
        return [top[3] for top in heapq.nlargest(most, tops)]

    def elsewhere(self, meaning: Meaning) -> list[Parts]:
        """Return areas whose places also appear: dongs of the same name, else near districts."""
        for word in meaning.dong_words:
            if namesakes := [
                {base: dongs}
                for base, dongs in self._dongs[word].items()
                if base not in meaning.parts
            ]:
                return [dict(parts) for parts in namesakes]
        if not meaning.parts:
            return []
        own = next(iter(meaning.parts))
        here = base_sigungu()[own]
        others = (
            (math.hypot(each.lat - here.lat, each.lng - here.lng), code)
            for code, each in base_sigungu().items()
            if each.is_leaf and code != own
        )
        near = [code for _, code in heapq.nsmallest(3, others)]
        return [{base: None} for base in near if base not in meaning.parts]


def _narrowed(parts: Parts | None, named: dict[str, set[int]] | None) -> Parts | None:
    """Return the parts within the dongs that a word names; None if it names no dong there."""
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
