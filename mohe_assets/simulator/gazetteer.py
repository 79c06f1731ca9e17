"""Districts and dongs that a word of a query can mean in the current region list. Pure."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

from mohe_assets.simulator.region_list import RegionRow, base_dongs, base_sigungu

_SHORT_SIDO = {
    "서울특별시": "서울",
    "부산광역시": "부산",
    "대구광역시": "대구",
    "인천광역시": "인천",
    "대전광역시": "대전",
    "울산광역시": "울산",
    "세종특별자치시": "세종",
    "경기도": "경기",
    "강원특별자치도": "강원",
    "충청북도": "충북",
    "충청남도": "충남",
    "전북특별자치도": "전북",
    "경상북도": "경북",
    "경상남도": "경남",
    "제주특별자치도": "제주",
}


@dataclass(slots=True)
class District:
    """A leaf sigungu of the current list.

    `parts` are its base districts, whole (None) or with the numbers of the dongs it has.
    """

    code: str
    name: str
    parts: dict[str, set[int] | None] = field(default_factory=dict)


class Gazetteer:
    """Index from words to districts, and from a place to its district's current name."""

    def __init__(self, rows: Iterable[RegionRow]) -> None:
        rows = list(rows)
        sigungu = [row for row in rows if row.code[2:5] != "000" and row.code[5:] == "00000"]
        # A parent is found by name: other sigungu's full names begin with its name and a space.
        parents = {name.rsplit(" ", 1)[0] for name in (row.name for row in sigungu) if " " in name}
        self.districts = {
            row.code[:5]: District(row.code[:5], row.name)
            for row in sigungu
            if row.name not in parents
        }
        for row in rows:
            if row.origin is not None and row.code[:5] in self.districts:
                base, at = row.origin
                numbers = self.districts[row.code[:5]].parts.setdefault(base, set())
                if numbers is not None:
                    numbers.add(at)
        for district in self.districts.values():
            for base, numbers in district.parts.items():
                if numbers is not None and len(numbers) == len(base_dongs()[base]):
                    district.parts[base] = None
        self._words: dict[str, set[str]] = {}
        for code, district in self.districts.items():
            for word in district.name.split():
                for form in {word, _SHORT_SIDO.get(word, word)}:
                    self._words.setdefault(form, set()).add(code)
        self._owner = {
            (base, at): code
            for code, district in self.districts.items()
            for base, some in district.parts.items()
            for at in (range(len(base_dongs()[base])) if some is None else some)
        }

    def districts_named(self, word: str) -> set[str] | None:
        """Return the codes (five digits) of districts with the word in their name, or None."""
        return self._words.get(word)

    def code_of(self, base: str, dong: int) -> str:
        return self._owner.get((base, dong), base)

    def name_of(self, base: str, dong: int) -> str:
        district = self.districts.get(self._owner.get((base, dong), ""))
        return base_sigungu()[base].name if district is None else district.name


@functools.cache
def dongs_by_word() -> dict[str, dict[str, set[int]]]:
    """Return word of a dong's name → base district → numbers of dongs; an eup's has its ris."""
    dongs: dict[str, dict[str, set[int]]] = {}
    for base, names in base_dongs().items():
        for at, name in enumerate(names):
            for word in name.split():
                for form in {word, word.split("(")[0]}:
                    dongs.setdefault(form, {}).setdefault(base, set()).add(at)
    return dongs
