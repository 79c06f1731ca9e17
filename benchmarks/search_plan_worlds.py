"""The countries the search plans are compared in: the simulator's own, and two made differently on
purpose.
"""

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from mohe_assets.domain.places import place_key
from mohe_assets.simulator.catalogue import FIRST, KINDS, MEANINGS, SECOND
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.matching import Searcher
from mohe_assets.simulator.naver_responses import Answers
from mohe_assets.simulator.region_list import base_dongs, base_sigungu
from mohe_assets.simulator.universe import Place, Universe
from mohe_assets.simulator.world import World
from mohe_assets.sources.naver_local.items import parse_items

LEAVES = tuple(base for base, district in base_sigungu().items() if district.is_leaf)


class Steep(Universe):
    """Few huge districts, three in four places in one dong or two, few kinds, and one order of fame
    for every query and sort.
    """

    stray_share = 0.3
    kind_power, dong_power = 1.6, 2.0

    def size(self, base: str) -> int:
        return min(
            12_000,
            int(200 * math.exp(random.Random(f"{self.seed}:steep:{base}").gauss(0, 1.3))) + 3,
        )

    def fame(self, rng: random.Random) -> tuple[float, int]:
        fame = (1 - rng.random()) ** -2
        return fame, int(fame * 1000)

    def places(self, base: str) -> list[Place]:
        if base not in self._districts:
            self._districts[base] = list(
                self._made(base, random.Random(f"{self.seed}:made:{base}"))
            )
        return self._districts[base]

    def _made(self, base: str, rng: random.Random) -> Iterator[Place]:
        names = base_dongs()[base]
        parents = {name.split()[0] for name in names if " " in name}
        homes = [at for at, name in enumerate(names) if name not in parents]
        rng.shuffle(homes)
        weights = [1 / (rank + 1) ** self.dong_power for rank in range(len(homes))]
        kinds = rng.choices(
            KINDS, [kind.weight**self.kind_power for kind in KINDS], k=self.size(base)
        )
        district = base_sigungu()[base]
        for number, (kind, dong) in enumerate(
            zip(kinds, rng.choices(homes, weights, k=len(kinds)), strict=True)
        ):
            accuracy, reviews = self.fame(rng)
            yield Place(
                base=base,
                number=number,
                title=f"{rng.choice(FIRST)}{rng.choice(SECOND)} {rng.choice(kind.nouns)} {number}",
                category=kind.category,
                dong=dong,
                lot=f"{number + 1}",
                road="",
                building="",
                floor="",
                link="",
                lat=round(district.lat + rng.gauss(0, 0.02), 7),
                lng=round(district.lng + rng.gauss(0, 0.02), 7),
                accuracy=accuracy,
                reviews=reviews,
            )


class Even(Steep):
    """Every district, dong and kind alike, no famous places, hardly one out of region."""

    stray_share = 0.02
    kind_power, dong_power = 0.0, 0.0

    def size(self, base: str) -> int:  # noqa: ARG002 - all alike
        return 600

    def fame(self, rng: random.Random) -> tuple[float, int]:
        return 0.0, rng.randrange(1_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An answer; `ids` stand for the database's."""

    result_count: int
    ids: tuple[int, ...]
    categories: tuple[str, ...]


@dataclass(kw_only=True)
class Country:
    """A world asked in process. `wanted` are the true places that a keyword means, `true` all of
    them.
    """

    name: str
    seed: int
    keywords: Sequence[str]
    ids: dict[str, int] = field(default_factory=dict)
    true: set[int] = field(default_factory=set)
    wanted: set[int] = field(default_factory=set)
    _asked: dict[tuple[str, str], Found] = field(default_factory=dict)

    def __post_init__(self) -> None:
        world = World(SimulatorConfig(seed=self.seed))
        self._answers = world.answers
        if self.name != "simulator":
            world.universe = made = {"steep": Steep, "even": Even}[self.name](self.seed)
            config = SimulatorConfig(seed=self.seed, stray_share=made.stray_share)
            self._answers = Answers(Searcher(made, world.gazetteer, round_number=0), config)
        for base in LEAVES:
            self._count(world.universe, base)

    def _count(self, universe: Universe, base: str) -> None:
        keys = {place.id: self._key(place) for place in universe.places(base)}
        self.true.update(keys.values())
        for keyword in self.keywords:
            forms = MEANINGS.get(keyword, (keyword,))
            self.wanted.update(keys[place.id] for place in universe.matching(base, (forms,)))

    def _key(self, place: Place) -> int:
        """The true place behind an answer, by title and point, which no two places share."""
        lat, lng = (Decimal(round(degrees * 10**7)) / 10**7 for degrees in (place.lat, place.lng))
        return self.ids.setdefault(place_key(place.title, lat, lng), len(self.ids))

    def ask(self, query: str, sort: str) -> Found:
        if (query, sort) not in self._asked:
            items = [json.loads(item) for item in self._answers.items(query, sort)]
            places, _ = parse_items(items)
            self._asked[query, sort] = Found(
                result_count=len(items),
                ids=tuple(self.ids.setdefault(place.place_key, len(self.ids)) for place in places),
                categories=tuple(place.category for place in places),
            )
        return self._asked[query, sort]
