"""Columns of the tables `region` and `places`: names, types and allowed values. Pure records.

Dagster's column metadata and the validation schema of places are built from these; a test compares
names, types and nullability with the database.
"""

from dataclasses import dataclass

from mohe_assets.domain.places import KOREAN_LATITUDES, KOREAN_LONGITUDES
from mohe_assets.domain.regions import REGION_TYPES

NOT_BLANK = r"\S"
CODE = r"^(?:[0-9]{5}|[0-9]{10})$"
TRIMMED = r"^\S(?:.*\S)?$"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column and its rules.

    `pattern` is a regular expression searched for in a value, `between` a range without its bounds,
    `one_of` the complete list of values.
    """

    name: str
    type: str
    description: str = ""
    nullable: bool = False
    pattern: str | None = None
    between: tuple[float, float] | None = None
    one_of: tuple[str, ...] | None = None


REGION = (
    Column(name="region_type", type="varchar", description="sigungu", one_of=REGION_TYPES),
    Column(
        name="region_code",
        type="varchar",
        description="first five digits of the list's ten",
        pattern=CODE,
    ),
    Column(
        name="region_name",
        type="varchar",
        description="full name, such as 경기도 수원시 장안구",
        pattern=TRIMMED,
    ),
    Column(name="sido_name", type="varchar", pattern=TRIMMED),
    Column(name="sigungu_name", type="varchar", description="without the sido", pattern=TRIMMED),
    Column(
        name="parent_code",
        type="varchar",
        description="the parent city, else the sido's two digits",
        pattern=r"^[0-9]{2,10}$",
    ),
    Column(name="is_leaf", type="bool", description="only leaves are collected"),
    Column(
        name="partition_key",
        type="varchar",
        description="constant while the region exists",
        pattern=r"^[^\s,]+$",
    ),
    Column(
        name="status",
        type="varchar",
        description="ACTIVE or ABOLISHED",
        one_of=("ACTIVE", "ABOLISHED"),
    ),
    Column(name="abolished_at", type="timestamptz", nullable=True),
    Column(
        name="source", type="varchar", description="api or snapshot", one_of=("api", "snapshot")
    ),
    Column(name="as_of", type="date", description="day of the list that last showed it"),
    Column(name="created_at", type="timestamptz"),
    Column(name="updated_at", type="timestamptz"),
    Column(
        name="life",
        type="int4",
        description="generation: +1 when an abolished code returns; 0: never a leaf",
    ),
)

PLACES = (
    Column(name="id", type="int8"),
    Column(name="name", type="text", description="without tags and entities",
           pattern=r"^(?!.*</?b>)\S(?:.*\S)?$"),
    Column(name="category", type="text", description="one to three levels, split by >"),
    Column(name="address", type="text", description="lot-number address", pattern=TRIMMED),
    Column(name="road_address", type="text", description="may be empty", pattern=rf"^$|{TRIMMED}"),
    Column(name="latitude", type="numeric", description="WGS84 degrees",
           between=(float(KOREAN_LATITUDES[0]), float(KOREAN_LATITUDES[1]))),
    Column(name="longitude", type="numeric", description="WGS84 degrees",
           between=(float(KOREAN_LONGITUDES[0]), float(KOREAN_LONGITUDES[1]))),
    Column(name="phone", type="text", description="empty: the API no longer returns it",
           pattern=r"^[0-9\-+() ~,]*$"),
    Column(name="website_url", type="text", description="the shop's own page, or empty",
           pattern=r"^$|^https?://\S+$"),
    Column(name="naver_place_id", type="varchar",
           description="our own stable key, unique; the API returns no id", pattern=NOT_BLANK),
    Column(name="created_at", type="timestamptz"),
    Column(name="updated_at", type="timestamptz"),
    Column(name="source", type="varchar", description="the place source that found it",
           pattern=NOT_BLANK),
    Column(name="region_type", type="varchar", one_of=REGION_TYPES),
    Column(name="region_code", type="varchar", nullable=True, pattern=CODE,
           description="region of its address, not of the query that found it"),
    Column(name="first_seen_at", type="timestamptz"),
    Column(name="last_seen_at", type="timestamptz"),
    Column(name="old_place_id", type="text", nullable=True,
           description="naver_place_id of the previous batch system"),
)  # fmt: skip
