"""Place records: titles, coordinates, identity. Pure: no HTTP, no SQL.

An item that cannot become a record is rejected with its reason; nothing is dropped silently.
"""

import hashlib
import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import takewhile

from mohe_assets.text.cleaning import ascii_digits, one_line

MAX_RESULTS = 5  # items in an answer of Naver's search; the API has no second page

# mapx and mapy are WGS84 degrees × 10⁷; Korea lies within these bounds.
_SCALE = Decimal(10_000_000)
KOREAN_LATITUDES = (Decimal(33), Decimal(39))
KOREAN_LONGITUDES = (Decimal(124), Decimal(132))
# KATECH, used until 2023-08, has six or seven digits; a degree × 10⁷ in Korea has nine or ten.
_KATECH = re.compile(r"-?0*[1-9]\d{5,6}(\.\d+)?")

_TAG = re.compile(r"</?b>", re.IGNORECASE)
_INTEGER = re.compile(r"-?[0-9]{1,12}")
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
_WEB_ADDRESS = re.compile(r"(https?)(://[^\s/?#\"<>]+[^\s\"<>]*)", re.IGNORECASE)

# Characters of a field as received; several times the longest value in recordings.
MAX_LENGTHS = {"title": 500, "category": 300, "address": 500, "roadAddress": 500, "telephone": 100}
MAX_NUMBER = 40  # characters, white space around the digits included
MAX_WEB_ADDRESS = 2_000  # characters that browsers and spreadsheets accept


class RejectionReason(StrEnum):
    """The reason an item did not become a place."""

    NOT_AN_OBJECT = "not_an_object"
    NO_TITLE = "no_title"
    NO_ADDRESS = "no_address"
    PLACE_NAME = "place_name"  # 지명: a mountain or a village, not a business
    KATECH = "katech_coordinates"
    DEGREES = "coordinates_in_degrees"
    MICRODEGREES = "coordinates_times_1e6"
    OTHER_SCALE = "coordinates_of_another_scale"
    BAD_COORDINATES = "bad_coordinates"
    OUTSIDE_KOREA = "outside_korea"
    BAD_TEXT = "bad_text"
    TOO_LONG = "text_too_long"


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedItem:
    """A rejected item: its position in the answer (from 0) and the reason."""

    position: int
    reason: RejectionReason


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceRecord:
    """A place of an answer. Coordinates are WGS84 degrees; `place_key` is our stable identity."""

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


def clean_title(title: str) -> str:
    """Return `중화요리본가` for `중화요리<b>본가</b>`.

    Tags are removed before entities are replaced, so that `&lt;b&gt;` stays text.
    """
    return " ".join(html.unescape(_TAG.sub("", title)).split())


def clean_address(address: str) -> str:
    """Return an address on one line with ASCII digits and Sejong's doubled name once."""
    words = ascii_digits(one_line(address)).split()
    repeats = 0
    if words and words[0].startswith("세종"):
        repeats = sum(1 for _ in takewhile(words[0].__eq__, words[1:]))
    return " ".join(words[repeats:])


def web_address(link: str) -> str:
    """Return an http(s) address with its scheme in lower case, and "" for anything else.

    Other schemes (javascript:) could run in a browser.
    """
    match = _WEB_ADDRESS.fullmatch(one_line(link)) if len(link) <= MAX_WEB_ADDRESS else None
    return match[1].lower() + match[2] if match else ""


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


def place_key(name: str, latitude: Decimal, longitude: Decimal) -> str:
    """Return our identity of a place: a hash of its title and exact point; the API has no id.

    In recordings a year apart, addresses changed while title and coordinates stayed. Therefore
    addresses are not part of the key, and a renamed province changes nothing. Coordinates alone are
    not unique (a building has many shops), nor are titles (chains). Known errors: a renamed shop or
    a corrected point becomes a new row; two shops with the same name and point become one row.
    """
    title = unicodedata.normalize("NFKC", name).casefold().replace(" ", "")
    point = f"{latitude:.7f}|{longitude:.7f}"
    key = f"{title}|{point}".encode("utf-8", "ignore")  # "ignore" drops lone surrogates
    return hashlib.sha256(key).hexdigest()[:32]
