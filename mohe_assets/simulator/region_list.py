"""Rows of the region list with well-formed 10-digit codes, from the bundled names. No HTTP.

The bundled dongs have no codes; their last five digits are generated, equal in every process.
"""

import csv
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from itertools import groupby

PARENTLESS_SIDO = "36"  # Sejong has a sigungu row only


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRow:
    """A row; `origin` of a dong or ri is its sigungu and number in the unedited list."""

    code: str
    name: str
    origin: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigungu:
    code: str
    name: str
    is_leaf: bool
    lat: float
    lng: float


def _records(file_name: str) -> list[dict[str, str]]:
    text = resources.files("mohe_assets.data").joinpath(file_name).read_text(encoding="utf-8-sig")
    return list(csv.DictReader(text.splitlines()))


@functools.cache
def base_sigungu() -> dict[str, Sigungu]:
    """Return the 269 sigungu of the unedited list by their first five digits."""
    points = {row["region_cd"]: row for row in _records("sigungu_centroids.csv")}
    return {
        row["region_cd"][:5]: Sigungu(
            code=row["region_cd"],
            name=row["full_name"],
            is_leaf=row["is_leaf"] == "true",
            lat=float(points[row["region_cd"]]["lat"]),
            lng=float(points[row["region_cd"]]["lng"]),
        )
        for row in _records("sigungu.csv")
    }


@functools.cache
def base_dongs() -> dict[str, tuple[str, ...]]:
    """Return the dong names of the unedited list by the first five digits of the sigungu."""
    rows = _records("legal_dong_names.csv")
    grouped = groupby(rows, key=lambda row: row["sigungu_cd"])
    return {code: tuple(row["dong_name"] for row in group) for code, group in grouped}


def dong_codes(names: Iterable[str]) -> list[str]:
    """Return the last five digits for the names of a sigungu's dongs.

    Dongs are numbered from 101, eups from 250, myeons from 310, ris from 21.
    """
    names = list(names)
    heads: dict[str, int] = {}
    taken: set[int] = set()
    for head in dict.fromkeys(name.split()[0] for name in names):
        number = {"읍": 250, "면": 310}.get(head[-1], 101)
        while number in taken:
            number += 1
        taken.add(number)
        heads[head] = number
    ris: dict[str, int] = {}
    codes: list[str] = []
    for name in names:
        head = name.split()[0]
        if name == head:
            # Merged districts can both have a dong of this name.
            while f"{heads[head]:03}00" in codes:
                heads[head] += 400
            codes.append(f"{heads[head]:03}00")
        else:
            ris[head] = ris.get(head, 20) + 1
            codes.append(f"{heads[head]:03}{ris[head]:02}")
    return codes


@functools.cache
def base_rows() -> tuple[RegionRow, ...]:
    """Return all 20,560 rows, ordered by code."""
    rows = [RegionRow(code=each.code, name=each.name) for each in base_sigungu().values()]
    sidos = {code[:2]: each.name.split()[0] for code, each in base_sigungu().items()}
    rows += [
        RegionRow(code=f"{code}00000000", name=name)
        for code, name in sidos.items()
        if code != PARENTLESS_SIDO
    ]
    for code, names in base_dongs().items():
        rows += dong_rows(
            code, base_sigungu()[code].name, [(name, (code, at)) for at, name in enumerate(names)]
        )
    return tuple(sorted(rows, key=lambda row: row.code))


def dong_rows(
    sigungu: str, full_name: str, dongs: list[tuple[str, tuple[str, int] | None]]
) -> list[RegionRow]:
    """Return rows of dongs below a sigungu (first five digits) with new codes."""
    codes = dong_codes(name for name, _ in dongs)
    return [
        RegionRow(code=sigungu + code, name=f"{full_name} {name}", origin=origin)
        for code, (name, origin) in zip(codes, dongs, strict=True)
    ]
