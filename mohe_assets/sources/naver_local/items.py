"""Read the items of Naver's local search as place records. Pure."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import takewhile

from mohe_assets.domain.places import (
    KOREAN_LATITUDES,
    KOREAN_LONGITUDES,
    PlaceRecord,
    RejectedItem,
    RejectionReason,
    clean_title,
    place_key,
    web_address,
)
from mohe_assets.text.cleaning import ascii_digits, one_line

_SCALE = Decimal(10_000_000)  # mapx and mapy are WGS84 degrees × 10⁷
# KATECH, used until 2023-08, has six or seven digits; a degree × 10⁷ in Korea has nine or ten.
_KATECH = re.compile(r"-?0*[1-9]\d{5,6}(\.\d+)?")

_INTEGER = re.compile(r"-?[0-9]{1,12}")
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")

# Characters of a field as received; several times the longest value in recordings.
MAX_LENGTHS = {"title": 500, "category": 300, "address": 500, "roadAddress": 500, "telephone": 100}
MAX_NUMBER = 40  # characters, white space around the digits included


class _RefusedItem(Exception):
    def __init__(self, reason: RejectionReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def parse_items(
    items: Iterable[object],
) -> tuple[tuple[PlaceRecord, ...], tuple[RejectedItem, ...]]:
    """Return the places and the rejected items of a Naver answer; duplicates are kept once."""
    places: dict[str, PlaceRecord] = {}
    rejected: list[RejectedItem] = []
    for position, item in enumerate(items):
        try:
            place = _parse_item(item)
        except _RefusedItem as refused:
            rejected.append(RejectedItem(position=position, reason=refused.reason))
        else:
            places.setdefault(place.place_key, place)
    return tuple(places.values()), tuple(rejected)


def _parse_item(item: object) -> PlaceRecord:
    if not isinstance(item, Mapping):
        raise _RefusedItem(RejectionReason.NOT_AN_OBJECT)
    category = one_line(_text(item, "category"))
    if category == "지명" or category.startswith("지명>"):
        raise _RefusedItem(RejectionReason.PLACE_NAME)
    title = clean_title(_text(item, "title"))
    name = one_line(title)
    if not name:
        raise _RefusedItem(RejectionReason.NO_TITLE)
    address = clean_address(_text(item, "address"))
    road_address = clean_address(_text(item, "roadAddress"))
    if not address and not road_address:
        raise _RefusedItem(RejectionReason.NO_ADDRESS)
    x, y = _number(item.get("mapx")), _number(item.get("mapy"))
    longitude, latitude = _coordinates(x, y)
    return PlaceRecord(
        # From the title with its invisible characters, because stored rows have that key.
        place_key=place_key(title, latitude, longitude),
        name=name,
        category=category,
        address=address or road_address,
        road_address=road_address,
        latitude=latitude,
        longitude=longitude,
        phone=ascii_digits(one_line(_text(item, "telephone"))),
        website_url=web_address(_text(item, "link")),
    )


def _text(item: Mapping[str, object], field: str) -> str:
    value = item.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _RefusedItem(RejectionReason.BAD_TEXT)
    if len(value) > MAX_LENGTHS.get(field, len(value)):
        raise _RefusedItem(RejectionReason.TOO_LONG)
    return " ".join(value.split())


def clean_address(address: str) -> str:
    """Return an address on one line with ASCII digits and Sejong's doubled name once."""
    words = ascii_digits(one_line(address)).split()
    repeats = 0
    if words and words[0].startswith("세종"):
        repeats = sum(1 for _ in takewhile(words[0].__eq__, words[1:]))
    return " ".join(words[repeats:])


def _coordinates(x: str, y: str) -> tuple[Decimal, Decimal]:
    """Return longitude and latitude of degrees × 10⁷; other formats are rejected, not converted."""
    is_whole = _INTEGER.fullmatch(x) and _INTEGER.fullmatch(y)
    if is_whole:
        longitude, latitude = Decimal(x) / _SCALE, Decimal(y) / _SCALE
        if _in_korea(longitude, latitude):
            return longitude, latitude
    if not (_NUMBER.fullmatch(x) and _NUMBER.fullmatch(y)):
        raise _RefusedItem(RejectionReason.BAD_COORDINATES)
    for digits in range(10):
        if _in_korea(Decimal(x).scaleb(-digits), Decimal(y).scaleb(-digits)):
            raise _RefusedItem(_FORMATS.get(digits, RejectionReason.OTHER_SCALE))
    if _KATECH.fullmatch(x) or _KATECH.fullmatch(y):
        raise _RefusedItem(RejectionReason.KATECH)
    raise _RefusedItem(
        RejectionReason.OUTSIDE_KOREA if is_whole else RejectionReason.BAD_COORDINATES
    )


def _in_korea(longitude: Decimal, latitude: Decimal) -> bool:
    (south, north), (west, east) = KOREAN_LATITUDES, KOREAN_LONGITUDES
    return south < latitude < north and west < longitude < east


_FORMATS = {0: RejectionReason.DEGREES, 6: RejectionReason.MICRODEGREES}


def _number(value: object) -> str:
    """Return a coordinate's digits as text; "" for a value that is no number or too long."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**12 else ""  # str() refuses thousands of digits
    return ascii_digits(value.strip()) if len(value) <= MAX_NUMBER else ""
