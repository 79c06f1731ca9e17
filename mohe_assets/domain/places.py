"""Place records: titles, coordinates, identity. Pure: no HTTP, no SQL.

An item that cannot become a record is set aside with its reason; nothing is dropped in silence.
"""

import hashlib
import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

# apis.md: mapx and mapy are WGS84 degrees × 10⁷; everything in Korea lies within these bounds.
_SCALE = Decimal(10_000_000)
KOREAN_LATITUDES = (Decimal(33), Decimal(39))
KOREAN_LONGITUDES = (Decimal(124), Decimal(132))
# KATECH, used until 2023-08, has six or seven digits; a degree × 10⁷ in Korea has nine or ten.
_SHORTEST_WGS84 = 9

_TAG = re.compile(r"</?b>", re.IGNORECASE)
_INTEGER = re.compile(r"-?\d+")


class RejectionReason(StrEnum):
    """Why an item did not become a place."""

    NOT_AN_OBJECT = "not_an_object"
    NO_TITLE = "no_title"
    NO_ADDRESS = "no_address"
    PLACE_NAME = "place_name"  # 지명: a mountain or a village, not a business
    KATECH = "katech_coordinates"
    BAD_COORDINATES = "bad_coordinates"
    OUTSIDE_KOREA = "outside_korea"
    BAD_TEXT = "bad_text"


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedItem:
    """An item that was not kept: its position in the answer (from 0) and the reason."""

    position: int
    reason: RejectionReason


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceRecord:
    """One place as an answer shows it. Coordinates are WGS84 degrees; `place_key` is our own stable
    identity.
    """

    place_key: str
    name: str
    category: str
    address: str
    road_address: str
    latitude: Decimal
    longitude: Decimal
    phone: str
    website_url: str


class _RefusedItem(Exception):
    def __init__(self, reason: RejectionReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def parse_items(
    items: Iterable[object],
) -> tuple[tuple[PlaceRecord, ...], tuple[RejectedItem, ...]]:
    """Places and set-aside items of one Naver answer. The same place twice in one answer is kept
    once.
    """
    places: dict[str, PlaceRecord] = {}
    aside: list[RejectedItem] = []
    for position, item in enumerate(items):
        try:
            place = _parse_item(item)
        except _RefusedItem as refused:
            aside.append(RejectedItem(position=position, reason=refused.reason))
        else:
            places.setdefault(place.place_key, place)
    return tuple(places.values()), tuple(aside)


def _parse_item(item: object) -> PlaceRecord:
    if not isinstance(item, Mapping):
        raise _RefusedItem(RejectionReason.NOT_AN_OBJECT)
    category = _text(item, "category")
    if category == "지명" or category.startswith("지명>"):
        raise _RefusedItem(RejectionReason.PLACE_NAME)
    name = clean_title(_text(item, "title"))
    if not name:
        raise _RefusedItem(RejectionReason.NO_TITLE)
    address = clean_address(_text(item, "address"))
    road_address = clean_address(_text(item, "roadAddress"))
    if not address and not road_address:
        raise _RefusedItem(RejectionReason.NO_ADDRESS)
    longitude, latitude = _coordinates(item)
    return PlaceRecord(
        place_key=place_key(name, latitude, longitude),
        name=name,
        category=category,
        address=address or road_address,
        road_address=road_address,
        latitude=latitude,
        longitude=longitude,
        phone=_text(item, "telephone"),
        website_url=_text(item, "link"),
    )


def _text(item: Mapping[str, object], field: str) -> str:
    value = item.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _RefusedItem(RejectionReason.BAD_TEXT)
    return " ".join(value.split())


def clean_title(title: str) -> str:
    """`중화요리<b>본가</b>` → `중화요리본가`: tags first, then entities once, so that `&lt;b&gt;` stays text."""
    return " ".join(html.unescape(_TAG.sub("", title)).split())


def clean_address(address: str) -> str:
    """White space folded, and the doubled name of Sejong said once."""
    words = address.split()
    while len(words) > 1 and words[0] == words[1] and words[0].startswith("세종"):
        words.pop(0)
    return " ".join(words)


def _coordinates(item: Mapping[str, object]) -> tuple[Decimal, Decimal]:
    x, y = str(item.get("mapx", "")).strip(), str(item.get("mapy", "")).strip()
    if not (_INTEGER.fullmatch(x) and _INTEGER.fullmatch(y)):
        raise _RefusedItem(RejectionReason.BAD_COORDINATES)
    if min(len(x.lstrip("-")), len(y.lstrip("-"))) < _SHORTEST_WGS84:
        raise _RefusedItem(RejectionReason.KATECH)
    longitude, latitude = Decimal(x) / _SCALE, Decimal(y) / _SCALE
    (south, north), (west, east) = KOREAN_LATITUDES, KOREAN_LONGITUDES
    if not (south < latitude < north and west < longitude < east):
        raise _RefusedItem(RejectionReason.OUTSIDE_KOREA)
    return longitude, latitude


def place_key(name: str, latitude: Decimal, longitude: Decimal) -> str:
    """Our own identity of a place, since the API gives none: the title and the point, to the digit.

    Derived from recordings a year apart, in which the road address changed and a building suffix
    appeared in the address while title and coordinates stayed: so no address takes part, and a
    renamed province changes nothing. Coordinates alone would be wrong (a building holds many
    shops), and so would titles alone (chains). Errs when a shop is renamed or its point is
    corrected (it becomes a new row), and when two shops of one name share one building (one row).
    """
    title = unicodedata.normalize("NFKC", name).casefold().replace(" ", "")
    return hashlib.sha256(f"{title}|{latitude:.7f}|{longitude:.7f}".encode()).hexdigest()[:32]
