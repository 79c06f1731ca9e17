"""Edits of the region list: districts renamed, recoded, merged, split, dropped or added.

{"op": "drop",   "code": "1168000000"}      with everything below it
{"op": "rename", "code": "1168000000", "name": "서울특별시 새강남구"}
                 also in all names that begin with the old name
{"op": "recode", "code": "5200000000", "to": "5300000000", "name": "…"}
                 with everything below it; name optional
{"op": "merge",  "codes": ["2811000000", "2814000000"], "to": "2812500000",
                 "name": "인천광역시 제물포구"}
{"op": "split",  "code": "4150000000",
                 "into": [{"code": "…", "name": "…", "dongs": ["장호원읍"]}, …]}
                 all other dongs go to the last part
{"op": "add",    "code": "1199000000", "name": "서울특별시 한강구"}
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from mohe_assets.simulator.region_list import RegionRow, dong_rows

Rows = list[RegionRow]


def edited(rows: Iterable[RegionRow], edits: Iterable[Mapping[str, Any]]) -> tuple[RegionRow, ...]:
    """Return the rows after all edits, ordered by code. Raises ValueError for a malformed edit."""
    current = list(rows)
    for edit in edits:
        try:
            current = _OPERATIONS[edit["op"]](current, edit)
        except (KeyError, StopIteration, TypeError) as error:
            raise ValueError(
                f"the region edit {dict(edit)!r} cannot be applied: {error!r}"
            ) from error
    return tuple(sorted(current, key=lambda row: row.code))


def prefix_of(code: str) -> str:
    """Return the digits of a code that all codes below it begin with."""
    for length in (2, 5, 8):
        if set(code[length:]) == {"0"}:
            return code[:length]
    return code


def _row(rows: Rows, code: str) -> RegionRow:
    return next(row for row in rows if row.code == code)


def _without(rows: Rows, code: str) -> Rows:
    _row(rows, code)
    return [row for row in rows if not row.code.startswith(prefix_of(code))]


def _rename(rows: Rows, edit: Mapping[str, Any]) -> Rows:
    old, new = _row(rows, edit["code"]).name, edit["name"]
    # By name, not by code: the 일반구 of a city have its name but not its digits.
    return [
        replace(row, name=new + row.name[len(old) :])
        if f"{row.name} ".startswith(f"{old} ")
        else row
        for row in rows
    ]


def _recode(rows: Rows, edit: Mapping[str, Any]) -> Rows:
    if "name" in edit:
        rows = _rename(rows, edit)
    old, new = prefix_of(edit["code"]), edit["to"][: len(prefix_of(edit["code"]))]
    return [
        replace(row, code=new + row.code[len(old) :]) if row.code.startswith(old) else row
        for row in rows
    ]


def _below(rows: Rows, code: str) -> list[tuple[str, tuple[str, int] | None]]:
    own = _row(rows, code)
    below = (row for row in rows if row.code.startswith(prefix_of(code)) and row.code != code)
    return [(row.name.removeprefix(f"{own.name} "), row.origin) for row in below]


def _merge(rows: Rows, edit: Mapping[str, Any]) -> Rows:
    dongs = [dong for code in edit["codes"] for dong in _below(rows, code)]
    for code in edit["codes"]:
        rows = _without(rows, code)
    return [*rows, *_district(edit["to"], edit["name"], dongs)]


def _split(rows: Rows, edit: Mapping[str, Any]) -> Rows:
    left = _below(rows, edit["code"])
    rows = _without(rows, edit["code"])
    for part in edit["into"]:
        is_last = part is edit["into"][-1]
        mine = left if is_last else [dong for dong in left if dong[0].split()[0] in part["dongs"]]
        left = [dong for dong in left if dong not in mine]
        rows = [*rows, *_district(part["code"], part["name"], mine)]
    return rows


def _district(code: str, name: str, dongs: list[tuple[str, tuple[str, int] | None]]) -> Rows:
    return [RegionRow(code=code, name=name), *dong_rows(code[:5], name, dongs)]


_OPERATIONS: dict[str, Callable[[Rows, Mapping[str, Any]], Rows]] = {
    "drop": lambda rows, edit: _without(rows, edit["code"]),
    "rename": _rename,
    "recode": _recode,
    "merge": _merge,
    "split": _split,
    "add": lambda rows, edit: [*rows, RegionRow(code=edit["code"], name=edit["name"])],
}
