"""Nationwide files of places: Parquet, CSV and GeoJSON with the same rows in the same order.

`COLUMNS` is the contract with consumers, documented in docs/place_catalog.md.
"""

import csv
import datetime as dt
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mohe_assets.domain.columns import Column
from mohe_assets.domain.places import web_address
from mohe_assets.publishing.atomic_files import locked, read_plain, replacing, size_of
from mohe_assets.store.database import Database
from mohe_assets.store.reads.places import Batches, PlacesDigest, read_digest, read_places

MANIFEST = "catalog.json"
# Version of columns and formats, in the manifest: a change rebuilds the files.
CONTRACT = 2
# A spreadsheet evaluates a cell that begins with any of these as a formula, which can start a
# program; Asian versions also with the fullwidth forms. An apostrophe in front makes it text. An
# original apostrophe gets another, so that removing the first character restores every value.
_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠'")
CATEGORY_LEVELS = 3

Place = Mapping[str, Any]


COLUMNS = (
    Column(
        name="naver_place_id",
        type="string",
        description="our own stable key, unique; the files are in its order",
    ),
    Column(name="name", type="string", description="without tags and entities"),
    Column(name="category", type="string", description="one to three levels, split by >"),
    Column(name="category_1", type="string", description="first level of the category"),
    Column(name="category_2", type="string", nullable=True, description="second level"),
    Column(name="category_3", type="string", nullable=True, description="third level"),
    Column(name="address", type="string", description="lot-number address"),
    Column(name="road_address", type="string", description="may be empty"),
    Column(name="latitude", type="double", description="WGS84 degrees"),
    Column(name="longitude", type="double", description="WGS84 degrees"),
    Column(name="phone", type="string", description="empty: the API no longer returns it"),
    Column(
        name="website_url",
        type="string",
        description="the place's own page, http or https, or empty",
    ),
    Column(
        name="region_code",
        type="string",
        nullable=True,
        description="region of the address, not of the query; null: no known region",
    ),
    Column(
        name="region_name",
        type="string",
        nullable=True,
        description="full name, such as 경기도 수원시 장안구",
    ),
    Column(name="sido_name", type="string", nullable=True, description="province of the region"),
    Column(name="first_seen_at", type="timestamp", description="UTC"),
    Column(name="last_seen_at", type="timestamp", description="UTC"),
)
NAMES = tuple(column.name for column in COLUMNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """The current files; `rebuilt` is False if they already had the current places."""

    folder: Path
    rebuilt: bool
    places: int
    built_at: dt.datetime
    file_bytes: dict[str, int]


def build_catalog(database: Database, folder: Path, *, now: dt.datetime) -> Catalog:
    """Write the files if the places have changed since the last build. `now` is aware."""
    with locked(folder):
        digest = read_digest(database)
        # A missing or damaged manifest or file means that the catalog is outdated.
        with suppress(OSError, ValueError, KeyError, TypeError):
            manifest = json.loads(read_plain(folder, MANIFEST))
            is_current = (manifest["contract"], manifest["digest"]) == (CONTRACT, digest.digest)
            sizes = {name: size_of(folder, name) for name in WRITERS}
            if is_current and sizes == manifest["file_bytes"]:
                return Catalog(
                    folder=folder,
                    rebuilt=False,
                    places=digest.places,
                    built_at=dt.datetime.fromisoformat(manifest["built_at"]),
                    file_bytes=sizes,
                )
        return read_places(database, partial(_write, folder, now))


def _write(folder: Path, now: dt.datetime, digest: PlacesDigest, batches: Batches) -> Catalog:
    with replacing(folder, (*WRITERS, MANIFEST)) as files:
        with ExitStack() as opened:
            writers = [
                opened.enter_context(closing(writer(files[name])))
                for name, writer in WRITERS.items()
            ]
            for batch in batches:
                places = [published(row) for row in batch]
                for writer in writers:
                    writer.write(places)
        sizes = {name: files[name].tell() for name in WRITERS}
        manifest = {
            "contract": CONTRACT,
            "built_at": _iso(now),
            "places": digest.places,
            "last_change": _iso(digest.last_change) if digest.last_change else None,
            "digest": digest.digest,
            "file_bytes": sizes,
        }
        files[MANIFEST].write(json.dumps(manifest, indent=2).encode() + b"\n")
    return Catalog(
        folder=folder, rebuilt=True, places=digest.places, built_at=now, file_bytes=sizes
    )


def published(row: Mapping[str, Any]) -> Place:
    """Return a stored place in the format of the files: category levels, UTC, columns in order."""
    levels = [level.strip() for level in row["category"].split(">", CATEGORY_LEVELS - 1)]
    levels += [None] * (CATEGORY_LEVELS - len(levels))
    seen = {name: row[name].astimezone(dt.UTC) for name in ("first_seen_at", "last_seen_at")}
    # A row of an earlier version may have a link that is no http(s) URL.
    kept = {"website_url": web_address(row["website_url"]), **seen}
    place = {
        **row,
        **{f"category_{number}": level for number, level in enumerate(levels, 1)},
        **kept,
    }
    return {name: place[name] for name in NAMES}


def _iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _plain(place: Place) -> dict[str, Any]:
    """Return the place with times as text, for formats without a time type."""
    return {
        name: _iso(value) if isinstance(value, dt.datetime) else value
        for name, value in place.items()
    }


class ParquetWriter:
    """Parquet with a row group per batch."""

    def __init__(self, file: BinaryIO) -> None:
        # Imported here: it takes 0.3 s, and every run and code server imports the definitions.
        import pyarrow as pa  # noqa: PLC0415 - see above
        from pyarrow import parquet  # noqa: PLC0415 - see above

        kinds = {
            "string": pa.string(),
            "double": pa.float64(),
            "timestamp": pa.timestamp("us", tz="UTC"),
        }
        fields = [
            pa.field(
                column.name,
                kinds[column.type],
                nullable=column.nullable,
                metadata={"description": column.description},
            )
            for column in COLUMNS
        ]
        self._schema = pa.schema(fields)
        self._table = pa.Table.from_pylist
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, places: Sequence[Place]) -> None:
        self._writer.write_table(self._table(places, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class CsvWriter:
    """CSV with a header and a byte order mark, without which Excel misreads Korean."""

    def __init__(self, file: BinaryIO) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        self._rows = csv.DictWriter(self._text, NAMES)
        self._rows.writeheader()

    def write(self, places: Sequence[Place]) -> None:
        for place in places:
            cells = _plain(place)
            for name, value in cells.items():
                if isinstance(value, str) and (value.lstrip() or value).startswith(_FORMULA_STARTS):
                    cells[name] = f"'{value}"
            self._rows.writerow(cells)

    def close(self) -> None:
        self._text.detach()


class GeoJsonWriter:
    """A FeatureCollection of points (RFC 7946), a feature per line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(b'{"type":"FeatureCollection","features":[')
        self._separator = b"\n"

    def write(self, places: Sequence[Place]) -> None:
        for place in places:
            self._file.write(self._separator + _feature(place).encode())
            self._separator = b",\n"

    def close(self) -> None:
        self._file.write(b"\n]}\n")


def _feature(place: Place) -> str:
    properties = _plain(place)
    point = [properties.pop("longitude"), properties.pop("latitude")]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": point},
        "properties": properties,
    }
    return json.dumps(feature, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


WRITERS: dict[str, type[ParquetWriter | CsvWriter | GeoJsonWriter]] = {
    "places.parquet": ParquetWriter,
    "places.csv": CsvWriter,
    "places.geojson": GeoJsonWriter,
}
