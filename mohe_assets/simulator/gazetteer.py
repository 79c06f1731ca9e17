"""Which places of the world a word of a query can mean, under the names of the current region list.
Pure look-ups.
"""

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
    """A leaf sigungu of the current list, made of whole base districts (None) or some of their
    dongs.
    """

    code: str
    name: str
    parts: dict[str, set[int] | None] = field(default_factory=dict)


class Gazetteer:
    """Words to districts and dongs, and back from a place to the name its district has now."""

    def __init__(self, rows: Iterable[RegionRow]) -> None:
        rows = list(rows)
        self.districts = _districts(rows)
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
        """Codes (five digits) of the districts whose name bears the word; None when it is no
        district's word.
        """
        return self._words.get(word)

    def code_of(self, base: str, dong: int) -> str:
        return self._owner.get((base, dong), base)

    def name_of(self, base: str, dong: int) -> str:
        district = self.districts.get(self._owner.get((base, dong), ""))
        return base_sigungu()[base].name if district is None else district.name


@functools.cache
def dongs_by_word() -> dict[str, dict[str, set[int]]]:
    """Word of a dong's name -> base district -> numbers of the dongs that bear it; an eup's word
    means all its ris.
    """
    found: dict[str, dict[str, set[int]]] = {}
    for base, names in base_dongs().items():
        for at, name in enumerate(names):
            for word in name.split():
                for form in {word, word.split("(")[0]}:
                    found.setdefault(form, {}).setdefault(base, set()).add(at)
    return found


def _districts(rows: list[RegionRow]) -> dict[str, District]:
    sigungu = [row for row in rows if row.code[2:5] != "000" and row.code[5:] == "00000"]
    # A parent is told by name: another sigungu's full name starts with its own and a space.
    parents = {name.rsplit(" ", 1)[0] for name in (row.name for row in sigungu) if " " in name}
    leaves = {
        row.code[:5]: District(row.code[:5], row.name) for row in sigungu if row.name not in parents
    }
    for row in rows:
        if row.origin is not None and row.code[:5] in leaves:
            base, at = row.origin
            numbers = leaves[row.code[:5]].parts.setdefault(base, set())
            if numbers is not None:
                numbers.add(at)
    for district in leaves.values():
        for base, numbers in district.parts.items():
            if numbers is not None and len(numbers) == len(base_dongs()[base]):
                district.parts[base] = None
    return leaves
