"""Items of a place search with the quirks of the real service; equal queries give equal items."""

import html
import json
import random
import zlib
from typing import Any

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.gazetteer import Gazetteer
from mohe_assets.simulator.matching import MOST, Searcher
from mohe_assets.simulator.region_list import base_dongs
from mohe_assets.simulator.universe import Place

_SEJONG = "세종특별자치시"
_MOST_KEPT = 20_000  # rendered answers, in memory

Item = dict[str, str]


class Answers:
    """Rendered items by query and sort order, cached because load tests repeat queries."""

    def __init__(self, searcher: Searcher, config: SimulatorConfig) -> None:
        self._searcher = searcher
        self._config = config
        self._kept: dict[tuple[str, str], list[str]] = {}

    def items(self, query: str, sort: str) -> list[str]:
        """Return up to MOST items as JSON texts, with slashes escaped like the service's."""
        if (query, sort) in self._kept:
            return self._kept[query, sort]
        config, searcher = self._config, self._searcher
        meaning = searcher.meaning(query)
        rng = random.Random(f"{config.seed}:quirks:{query}")  # noqa: S311 - reproducible quirks
        places = searcher.best(meaning, query, sort)
        if meaning.names_an_area and rng.random() < config.stray_share:
            # A place of another area among them: of a neighbour, or of a dong of the same name.
            areas = searcher.elsewhere(meaning)
            if areas:
                area = meaning._replace(parts=rng.choice(areas))
                outside = searcher.best(area, query, sort, most=1)
                kept = places[: MOST - len(outside)]
                at = rng.randint(len(kept) // 2, len(kept))
                places = [*kept[:at], *outside, *kept[at:]]
        items = [_item(place, searcher.gazetteer, config.round, query.split()) for place in places]
        if items and rng.random() < config.katech_share:
            # Coordinates of the grid used until 2023-08: six digits, no degrees.
            item = items[rng.randrange(len(items))]
            lng, lat = int(item["mapx"]) / 10**7, int(item["mapy"]) / 10**7
            item["mapx"] = str(int(400_000 + (lng - 128) * 88_000))
            item["mapy"] = str(int(500_000 + (lat - 36.5) * 111_000))
        if items and meaning.names_an_area and rng.random() < config.place_name_share:
            items.insert(rng.randrange(len(items)), _place_name(places[0], searcher.gazetteer))
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[query, sort] = [
            json.dumps(item, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
            for item in items[:MOST]
        ]
        return self._kept[query, sort]


def _item(place: Place, gazetteer: Gazetteer, round_number: int, words: list[str]) -> Item:
    address, road_address = _addresses(place, gazetteer, round_number)
    title = place.title
    for word in words:  # marked before escaping, because a word may contain an &
        title = title.replace(word, f"\x02{word}\x03")
    return {
        "title": html.escape(title).replace("\x02", "<b>").replace("\x03", "</b>"),
        "link": place.link,
        "category": place.category,
        "description": "",
        "telephone": "",
        "address": address,
        "roadAddress": road_address,
        "mapx": str(round(place.lng * 10**7)),
        "mapy": str(round(place.lat * 10**7)),
    }


def _addresses(place: Place, gazetteer: Gazetteer, round_number: int) -> tuple[str, str]:
    """Return lot and road address.

    With increasing rounds, building suffixes appear and roads are renumbered; lots stay.
    """
    variety = zlib.crc32(place.id.encode())
    name = gazetteer.name_of(place.base, place.dong)
    if name == _SEJONG and variety % 8 == 0:
        name = f"{name} {name}"
    dong = base_dongs()[place.base][place.dong].split("(")[0]
    inside = (
        f" {place.building} {place.floor}"
        if place.building and variety // 8 % 100 < 30 + 4 * round_number
        else ""
    )
    road = place.road
    if road and variety // 800 % 100 < 3 * round_number:
        street, number = road.rsplit(" ", 1)
        road = f"{street} {int(number) + 7}"
    floor = f" {place.floor}" if variety // 80_000 % 3 == 0 else ""
    return f"{name} {dong} {place.lot}{inside}", f"{name} {road}{floor}" if road else ""


def _place_name(place: Place, gazetteer: Gazetteer) -> Item:
    """Return an item that is a geographical name, not a business."""
    area = f"{gazetteer.name_of(place.base, place.dong)} {base_dongs()[place.base][place.dong]}"
    item: dict[str, Any] = {
        "title": area.rsplit(" ", 1)[1],
        "link": "",
        "category": "지명>행정지명",
        "description": "",
        "telephone": "",
        "address": area,
        "roadAddress": "",
        "mapx": str(round(place.lng * 10**7)),
        "mapy": str(round(place.lat * 10**7)),
    }
    return item
