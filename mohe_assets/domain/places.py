"""Place records: identity, web addresses, and the reasons an item is rejected. Pure.

An item that cannot become a record is rejected with its reason; nothing is dropped silently.
"""

import hashlib
import html
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from mohe_assets.text.cleaning import one_line

MAX_RESULTS = 5  # places in an answer to a search; more cannot be requested

KOREAN_LATITUDES = (Decimal(33), Decimal(39))
KOREAN_LONGITUDES = (Decimal(124), Decimal(132))

_TAG = re.compile(r"</?b>", re.IGNORECASE)
_WEB_ADDRESS = re.compile(r"(https?)(://[^\s/?#\"<>]+[^\s\"<>]*)", re.IGNORECASE)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """Terms of a source's data; `link` leads to their text."""

    may_store: bool
    may_redistribute: bool
    attribution: str
    link: str


def clean_title(title: str) -> str:
    """Return `중화요리본가` for `중화요리<b>본가</b>`.

    Tags are removed before entities are replaced, so that `&lt;b&gt;` stays text.
    """
    return " ".join(html.unescape(_TAG.sub("", title)).split())


def web_address(link: str) -> str:
    """Return an http(s) address with its scheme in lower case, and "" for anything else.

    Other schemes (javascript:) could run in a browser.
    """
    match = _WEB_ADDRESS.fullmatch(one_line(link)) if len(link) <= MAX_WEB_ADDRESS else None
    return match[1].lower() + match[2] if match else ""


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
