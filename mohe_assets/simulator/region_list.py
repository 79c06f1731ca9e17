"""The rows of the region list with structurally right 10-digit codes, from the bundled names. Knows
nothing of HTTP.

The bundled names of dongs carry no codes, so the last five digits are made here: the same ones in
every process.
"""

import csv
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import groupby

PARENTLESS_SIDO = "36"  # Sejong has a sigungu row only


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRow:
    """One row. `origin` is, for a dong or ri, the sigungu and the number it has in the unedited
    list.
    """

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
    """The 269 sigungu of the unedited list by their first five digits."""
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
    """Names of dongs, eups, myeons and ris of the unedited list by the first five digits of their
    sigungu.
    """
    rows = _records("legal_dong_names.csv")
    grouped = groupby(rows, key=lambda row: row["sigungu_cd"])
    return {code: tuple(row["dong_name"] for row in group) for code, group in grouped}


def dong_codes(names: Iterable[str]) -> list[str]:
    """The last five digits for names of one sigungu: dongs from 101, eups from 250, myeons from
    310, ris from 21.
    """
    names = list(names)
    heads = _head_numbers(dict.fromkeys(name.split()[0] for name in names))
    ris: dict[str, int] = {}
    codes: list[str] = []
    for name in names:
        head = name.split()[0]
        if name == head:
            # Two districts that merge may each bring a dong of this name.
            while f"{heads[head]:03}00" in codes:
                heads[head] += 400
            codes.append(f"{heads[head]:03}00")
        else:
            ris[head] = ris.get(head, 20) + 1
            codes.append(f"{heads[head]:03}{ris[head]:02}")
    return codes


def _head_numbers(heads: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    taken: set[int] = set()
    for head in heads:
        number = {"읍": 250, "면": 310}.get(head[-1], 101)
        while number in taken:
            number += 1
        taken.add(number)
        numbers[head] = number
    return numbers


@functools.cache
def base_rows() -> tuple[RegionRow, ...]:
    """All 20,560 rows in the order of their codes."""
    rows = [
        *_sido_rows(),
        *(RegionRow(code=each.code, name=each.name) for each in base_sigungu().values()),
    ]
    for code, names in base_dongs().items():
        rows += dong_rows(
            code, base_sigungu()[code].name, [(name, (code, at)) for at, name in enumerate(names)]
        )
    return tuple(sorted(rows, key=lambda row: row.code))


def _sido_rows() -> Iterator[RegionRow]:
    sidos = {code[:2]: each.name.split()[0] for code, each in base_sigungu().items()}
    for code, name in sidos.items():
        if code != PARENTLESS_SIDO:
            yield RegionRow(code=f"{code}00000000", name=name)


def dong_rows(
    sigungu: str, full_name: str, dongs: list[tuple[str, tuple[str, int] | None]]
) -> list[RegionRow]:
    """Rows below one sigungu (first five digits), codes made anew."""
    codes = dong_codes(name for name, _ in dongs)
    return [
        RegionRow(code=sigungu + code, name=f"{full_name} {name}", origin=origin)
        for code, (name, origin) in zip(codes, dongs, strict=True)
    ]
