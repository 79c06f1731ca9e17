"""The common part of all peers: the searches, the reading of an answer, and the table of places.
Identity and rejection of places are the project's own (`mohe_assets.domain.places`), so that all
collect the same rows.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from mohe_assets.sources.naver_local.items import parse_items

COLUMNS = (
    "naver_place_id",
    "name",
    "category",
    "address",
    "road_address",
    "latitude",
    "longitude",
    "phone",
    "website_url",
    "region_code",
)
_TYPES = """(naver_place_id varchar(64) PRIMARY KEY, name text NOT NULL, category text
              NOT NULL, address text NOT NULL,
    road_address text NOT NULL, latitude numeric(10,8) NOT NULL, longitude numeric(11,8)
    NOT NULL, phone text NOT NULL,
    website_url text NOT NULL, region_code varchar(20) NOT NULL)"""
TABLE = f"CREATE TABLE IF NOT EXISTS places {_TYPES}"
UPSERT = f"""INSERT INTO places ({", ".join(COLUMNS)}) VALUES %s ON CONFLICT (naver_place_id)
               DO UPDATE
    SET {", ".join(f"{column} = excluded.{column}" for column in COLUMNS[1:])}"""
DISPLAY = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """A peer's task, as a file. `settings` are those of the scenario, by the peer's own names."""

    url: str
    headers: Mapping[str, str]
    database_url: str
    regions: tuple[tuple[str, str], ...]  # code and full name
    keywords: tuple[str, ...]
    settings: Mapping[str, Any]

    @classmethod
    def given(cls) -> Self:
        """The file that the environment names: Dagster and Scrapy load a peer in processes of their
        own.
        """
        stack = json.loads(Path(os.environ["PEER_JOB"]).read_text(encoding="utf-8"))
        stack["regions"] = tuple((code, name) for code, name in stack["regions"])
        return cls(**stack)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    def queries(self, name: str) -> list[str]:
        """The searches of one region: its full name with each keyword."""
        return [f"{name} {keyword}" for keyword in self.keywords]

    def searches(self) -> Iterator[tuple[str, str]]:
        """All searches, with the region's code."""
        for code, name in self.regions:
            for query in self.queries(name):
                yield code, query

    def params(self, query: str) -> dict[str, str]:
        return {"query": query, "display": str(DISPLAY), "start": "1", "sort": "random"}

    def address(self, query: str) -> str:
        """The whole URL of a search, for tools that take no parameters."""
        return f"{self.url}?{urlencode(self.params(query))}"


def rows(answer: Mapping[str, Any], region_code: str) -> list[tuple[Any, ...]]:
    """The places of one answer, in the order of COLUMNS."""
    places, _ = parse_items(answer["items"])
    return [
        (
            place.place_key,
            place.name,
            place.category,
            place.address,
            place.road_address,
            place.latitude,
            place.longitude,
            place.phone,
            place.website_url,
            region_code,
        )
        for place in places
    ]
