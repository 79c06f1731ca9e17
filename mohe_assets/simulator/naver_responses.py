"""The items of a place search as the service really gives them, quirks included; the same for the
same query.
"""

import html
import json
import random
import zlib
from typing import Any

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.gazetteer import Gazetteer
from mohe_assets.simulator.matching import MOST, Meaning, Searcher
from mohe_assets.simulator.region_list import base_dongs
from mohe_assets.simulator.universe import Place

_SEJONG = "세종특별자치시"
_MOST_KEPT = 20_000

Item = dict[str, str]


class Answers:
    """Rendered items by query and sort order, kept because the hot path of a load test asks the
    same again.
    """

    def __init__(self, searcher: Searcher, config: SimulatorConfig) -> None:
        self._searcher = searcher
        self._config = config
        self._kept: dict[tuple[str, str], list[str]] = {}

    def items(self, query: str, sort: str) -> list[str]:
        """Up to five items, each as JSON text with slashes escaped as the service does."""
        if (query, sort) not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            found = _items(self._searcher, self._config, query, sort)
            self._kept[query, sort] = [
                json.dumps(item, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
                for item in found
            ]
        return self._kept[query, sort]


def _items(searcher: Searcher, config: SimulatorConfig, query: str, sort: str) -> list[Item]:
    meaning = searcher.meaning(query)
    rng = random.Random(f"{config.seed}:quirks:{query}")  # noqa: S311 - reproducible quirks, not a secret
    places = searcher.best(meaning, query, sort)
    if meaning.names_an_area and rng.random() < config.stray_share:
        places = _with_stray(searcher, places, meaning=meaning, query=query, sort=sort, rng=rng)
    items = [_item(place, searcher.gazetteer, config.round, query.split()) for place in places]
    if items and rng.random() < config.katech_share:
        _make_katech(items[rng.randrange(len(items))])
    if items and meaning.names_an_area and rng.random() < config.place_name_share:
        items.insert(rng.randrange(len(items)), _place_name(places[0], searcher.gazetteer))
    return items[:MOST]


def _with_stray(
    searcher: Searcher,
    places: list[Place],
    *,
    meaning: Meaning,
    query: str,
    sort: str,
    rng: random.Random,
) -> list[Place]:
    """The places with one of somewhere else among them: of a neighbour, or of a dong of the same
    name.
    """
    sources = searcher.elsewhere(meaning)
    if not sources:
        return places
    strays = searcher.best(meaning._replace(parts=rng.choice(sources)), query, sort, most=1)
    kept = places[: MOST - len(strays)]
    at = rng.randint(len(kept) // 2, len(kept))
    return [*kept[:at], *strays, *kept[at:]]


def _item(place: Place, gazetteer: Gazetteer, round_number: int, words: list[str]) -> Item:
    address, road_address = _addresses(place, gazetteer, round_number)
    return {
        "title": _marked(place.title, words),
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
    """Lot and road address. With the rounds, building suffixes appear and roads are renumbered;
    lots stay.
    """
    fate = zlib.crc32(place.id.encode())
    name = gazetteer.name_of(place.base, place.dong)
    if name == _SEJONG and fate % 8 == 0:
        name = f"{name} {name}"
    dong = base_dongs()[place.base][place.dong].split("(")[0]
    inside = (
        f" {place.building} {place.floor}"
        if place.building and fate // 8 % 100 < 30 + 4 * round_number
        else ""
    )
    road = place.road
    if road and fate // 800 % 100 < 3 * round_number:
        street, number = road.rsplit(" ", 1)
        road = f"{street} {int(number) + 7}"
    floor = f" {place.floor}" if fate // 80_000 % 3 == 0 else ""
    return f"{name} {dong} {place.lot}{inside}", f"{name} {road}{floor}" if road else ""


def _marked(title: str, words: list[str]) -> str:
    """The title with entities, and <b> around what the query said. Marked before escaping: a word
    may hold an &.
    """
    for word in words:
        title = title.replace(word, f"\x02{word}\x03")
    return html.escape(title).replace("\x02", "<b>").replace("\x03", "</b>")


def _make_katech(item: Item) -> None:
    """Coordinates of the grid used until 2023-08: six digits and no degrees."""
    lng, lat = int(item["mapx"]) / 10**7, int(item["mapy"]) / 10**7
    item["mapx"], item["mapy"] = (
        str(int(400_000 + (lng - 128) * 88_000)),
        str(int(500_000 + (lat - 36.5) * 111_000)),
    )


def _place_name(place: Place, gazetteer: Gazetteer) -> Item:
    """An item that is a place's name and no business."""
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
