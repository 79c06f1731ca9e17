"""The places of the simulated country, created by district on first use, equal for equal seeds.

The generators are seeded with texts, so that processes agree for any PYTHONHASHSEED.
"""

import gc
import math
import random
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from mohe_assets.simulator.catalogue import (
    BUILDING_FIRST,
    BUILDINGS,
    BUSY,
    FIRST,
    FLOORS,
    KINDS,
    LINKS,
    SECOND,
    STATIONS,
    Kind,
)
from mohe_assets.simulator.region_list import base_dongs, base_sigungu

_KIND_WEIGHTS = list(accumulate(kind.weight for kind in KINDS))
_TYPICAL_SIZE = {"구": 620, "시": 560, "군": 150}
_SHARE_OF_CHAINS = 0.3
_CHAINS = sorted({chain for kind in KINDS for chain in kind.chains})
_SHOPS_A_BUILDING = 2.2


class Place(NamedTuple):
    """A shop; `dong` is its dong's number in the district `base`, `lot` to `floor` its address."""

    base: str
    number: int
    title: str
    category: str
    dong: int
    lot: str
    road: str
    building: str
    floor: str
    link: str
    lat: float
    lng: float
    accuracy: float
    reviews: int

    @property
    def id(self) -> str:
        return f"{self.base}-{self.number:05}"


class _Building(NamedTuple):
    dong: int
    lot: str
    road: str
    name: str
    lat: float
    lng: float


class Universe:
    """All places by base district (first five digits of the unedited list)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._districts: dict[str, list[Place]] = {}
        self._matches: dict[tuple[str, tuple[str, ...]], list[Place]] = {}

    def size(self, base: str) -> int:
        """Return the number of places of a district without creating them."""
        if base in BUSY:
            return BUSY[base]
        typical = _TYPICAL_SIZE.get(base_sigungu()[base].name[-1], 400)
        rng = random.Random(f"{self.seed}:size:{base}")  # noqa: S311 - made-up data
        return int(typical * math.exp(rng.gauss(0, 0.45)))

    def places(self, base: str) -> list[Place]:
        if base not in self._districts:
            rng = random.Random(f"{self.seed}:{base}")  # noqa: S311 - as above
            self._districts[base] = list(_district(base, self.size(base), rng))
        return self._districts[base]

    def make_all(self) -> None:
        """Create all districts and exclude them from garbage collection."""
        for base, district in base_sigungu().items():
            if district.is_leaf:
                self.places(base)
        gc.collect()
        gc.freeze()

    def matching(self, base: str, keywords: tuple[tuple[str, ...], ...]) -> list[Place]:
        """Return places with every keyword (or a synonym) in the title or the category."""
        key = base, tuple(form for forms in keywords for form in forms)
        if key not in self._matches:
            self._matches[key] = [place for place in self.places(base) if _matches(place, keywords)]
        return self._matches[key]


def _matches(place: Place, keywords: tuple[tuple[str, ...], ...]) -> bool:
    for forms in keywords:
        for form in forms:
            if form in place.category or form in place.title:
                break
        else:
            return False
    return True


def _district(base: str, size: int, rng: random.Random) -> Iterator[Place]:
    buildings = _buildings(base, max(3, int(size / _SHOPS_A_BUILDING)), rng)
    # The dong in names of shops: 역삼 for 역삼동, 돌산 for 돌산읍 군내리, 명동 for 명동.
    heads = [
        re.sub(r"(\d+가|동|읍|면|로)$", "", head) if len(head) > 2 else head  # noqa: PLR2004
        for head in (name.split()[0] for name in base_dongs()[base])
    ]
    taken: set[tuple[str, str]] = set()
    kinds = rng.choices(KINDS, cum_weights=_KIND_WEIGHTS, k=size)
    for number, kind in enumerate(kinds):
        # The square gives a few buildings many shops.
        building = buildings[int(len(buildings) * rng.random() ** 2)]
        head, draw = heads[building.dong], rng.random()
        if kind.chains and draw < _SHARE_OF_CHAINS:
            title = f"{_pick(kind.chains, rng)} {head}{_pick(STATIONS, rng)}점"
        else:
            noun = _pick(kind.nouns, rng)
            if 1 - draw < kind.named_after_dong:
                title = f"{head}{noun}" if noun[0] > "Z" else f"{head} {noun}"
            else:
                first, second = _pick(FIRST, rng), _pick(SECOND, rng)
                has_both = rng.random() < 0.7  # noqa: PLR2004
                title = f"{first}{second if has_both else ''} {noun}"
        while (title, building.lot) in taken:
            title = f"{title} {number % 9 + 2}호점"
        taken.add((title, building.lot))
        yield _place(building, base=base, number=number, title=title, kind=kind, rng=rng)


def _place(
    building: _Building, *, base: str, number: int, title: str, kind: Kind, rng: random.Random
) -> Place:
    chance = rng.random()
    popularity = rng.random()
    floor = FLOORS[int(len(FLOORS) * rng.random())]
    link, brand = "", title.split(maxsplit=1)[0]
    if chance > 0.6 and brand in _CHAINS:  # noqa: PLR2004 - all branches share a page
        link = f"https://www.brand{_CHAINS.index(brand)}.example/"
    elif chance > 0.6:  # noqa: PLR2004 - as above
        link = _pick(LINKS, rng).format(f"shop{base}{number}")
    return Place(
        base=base,
        number=number,
        title=title,
        category=kind.category,
        dong=building.dong,
        lot=building.lot,
        road="" if chance < 0.06 else building.road,  # noqa: PLR2004
        building=building.name,
        floor=floor,
        link=link,
        lat=building.lat,
        lng=building.lng,
        accuracy=popularity,
        reviews=int((1 - rng.random()) ** -1.1 * (3 + 20 * popularity)),
    )


def _pick(words: Sequence[str], rng: random.Random) -> str:
    return words[int(len(words) * rng.random())]


def _buildings(base: str, count: int, rng: random.Random) -> list[_Building]:
    district, names = base_sigungu()[base], base_dongs()[base]
    with_ris = {name.split()[0] for name in names if " " in name}
    homes = [at for at, name in enumerate(names) if name not in with_ris]
    rng.shuffle(homes)
    weights = [1 / (rank + 1) ** 0.8 for rank in range(len(homes))]
    spread = 0.05 if district.name.endswith("군") else 0.015
    centres = {at: _near(district.lat, district.lng, spread, rng) for at in homes}
    made: dict[tuple[int, str], _Building] = {}
    while len(made) < count:
        for dong in rng.choices(homes, weights, k=count - len(made)):
            name = names[dong]
            number, sub = 1 + int(950 * rng.random()), int(40 * rng.random())
            lot = f"{number}-{sub}" if sub else str(number)
            head = re.sub(r"(\(.*\)|\d+가|[동읍면리로])$", "", name.rsplit(maxsplit=1)[-1])
            street = _pick(("로", "대로", "길", "로 1번길", "로 23번길"), rng)
            road = f"{head}{street} {1 + int(400 * rng.random())}"
            lat, lng = _near(*centres[dong], 0.004, rng)
            eup = f"{name.split(maxsplit=1)[0]} " if " " in name else ""
            has_name = rng.random() < 0.5  # noqa: PLR2004
            made[dong, lot] = _Building(
                dong=dong,
                lot=lot,
                road=eup + road,
                name=_pick(BUILDING_FIRST, rng) + _pick(BUILDINGS, rng) if has_name else "",
                lat=lat,
                lng=lng,
            )
    return list(made.values())


def _near(lat: float, lng: float, spread: float, rng: random.Random) -> tuple[float, float]:
    return round(lat + rng.gauss(0, spread), 7), round(lng + rng.gauss(0, spread), 7)
