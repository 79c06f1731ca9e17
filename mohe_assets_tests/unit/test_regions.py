"""The region list: levels, parents and leaves, partition keys, and what may change between two
lists.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mohe_assets.domain.regions import (
    LegalDong,
    Level,
    Region,
    RegionList,
    build_region_list,
    bundled_snapshot,
    code_of_partition_key,
    compare,
    fingerprint,
    level_of,
)
from mohe_assets.errors import AnswerChanged

TODAY = dt.date(2026, 11, 23)
SNAPSHOT = bundled_snapshot()
BY_CODE = {region.region_code: region for region in SNAPSHOT.regions}
KNOWN = {region.region_code: region.region_name for region in SNAPSHOT.leaves}

GYEONGGI = [
    ("4100000000", "경기도 "),
    ("4111000000", "경기도 수원시"),
    ("4111100000", "경기도 수원시  장안구"),
    ("4111110100", "경기도 수원시 장안구 파장동"),
    ("4182000000", "경기도 가평군"),
    ("4182025000", "경기도 가평군 가평읍"),
    ("4182025021", "경기도 가평군 가평읍 읍내리"),
    ("3611000000", "세종특별자치시"),
    ("3611010100", "세종특별자치시 반곡동"),
]


def listed(rows: Sequence[tuple[str, str]]) -> RegionList:
    return build_region_list(rows, as_of=TODAY, source="api")


def leaves_of(names: dict[str, str]) -> RegionList:
    """A list with exactly these leaves."""
    one = BY_CODE["11680"]
    regions = tuple(
        replace(one, region_code=code, region_name=name) for code, name in names.items()
    )
    return RegionList(regions=regions, dongs=(), as_of=TODAY, source="api", rows=len(regions))


class TestLevels:
    @pytest.mark.parametrize(
        ("code", "level"),
        [
            ("1100000000", Level.SIDO),
            ("1168000000", Level.SIGUNGU),
            ("3611000000", Level.SIGUNGU),
            ("1168010100", Level.DONG),
            ("4182025000", Level.DONG),
            ("4182025021", Level.DONG),
        ],
    )
    def test_the_zeros_of_a_code_tell_its_level(self, code: str, level: Level) -> None:
        assert level_of(code) is level

    def test_a_city_with_gu_is_no_leaf_and_its_gu_is_one(self) -> None:
        regions = {region.region_code: region for region in listed(GYEONGGI).regions}
        assert not regions["41110"].is_leaf
        assert regions["41111"].is_leaf

    def test_the_parent_of_a_gu_is_its_city_by_name_and_that_of_a_county_its_province(self) -> None:
        regions = {region.region_code: region for region in listed(GYEONGGI).regions}
        assert regions["41111"].parent_code == "41110"
        assert regions["41110"].parent_code == "41"
        assert regions["41820"].parent_code == "41"

    def test_sejong_without_a_province_of_its_own_is_both(self) -> None:
        sejong = next(
            region for region in listed(GYEONGGI).regions if region.region_code == "36110"
        )
        assert sejong == Region(
            region_code="36110",
            region_name="세종특별자치시",
            sido_name="세종특별자치시",
            sigungu_name="세종특별자치시",
            parent_code="36",
            is_leaf=True,
        )

    def test_white_space_in_names_is_folded(self) -> None:
        gu = next(region for region in listed(GYEONGGI).regions if region.region_code == "41111")
        assert (gu.region_name, gu.sido_name, gu.sigungu_name) == (
            "경기도 수원시 장안구",
            "경기도",
            "수원시 장안구",
        )

    def test_a_region_whose_name_only_begins_like_another_is_not_below_it(self) -> None:
        rows = [
            ("4800000000", "경상남도"),
            ("4812000000", "경상남도 창원"),
            ("4813000000", "경상남도 창원시"),
        ]
        assert [region.is_leaf for region in listed(rows).regions] == [True, True]

    def test_dongs_and_ris_belong_to_their_sigungu_by_their_name_below_it(self) -> None:
        assert listed(GYEONGGI).dongs == (
            LegalDong(region_code="36110", dong_name="반곡동", dong_code="3611010100"),
            LegalDong(region_code="41111", dong_name="파장동", dong_code="4111110100"),
            LegalDong(region_code="41820", dong_name="가평읍", dong_code="4182025000"),
            LegalDong(region_code="41820", dong_name="가평읍 읍내리", dong_code="4182025021"),
        )

    @pytest.mark.parametrize(
        "row",
        [
            ("116800000", "서울특별시 강남구"),
            ("11680000000", "서울특별시 강남구"),
            ("1168000000", " "),
            ("116800000a", "x"),
            ("", ""),
        ],
    )
    def test_a_row_without_a_proper_code_or_name_is_refused(self, row: tuple[str, str]) -> None:
        with pytest.raises(AnswerChanged):
            listed([*GYEONGGI, row])

    def test_a_dong_of_no_sigungu_is_refused(self) -> None:
        with pytest.raises(AnswerChanged, match="9999910100"):
            listed([*GYEONGGI, ("9999910100", "어디도 어디구 어디동")])

    def test_a_list_without_any_sigungu_is_refused(self) -> None:
        with pytest.raises(AnswerChanged, match="no sigungu"):
            listed([("1100000000", "서울특별시")])


class TestSnapshot:
    def test_the_snapshot_has_256_leaves_of_269_sigungu_and_all_dongs(self) -> None:
        assert (len(SNAPSHOT.regions), len(SNAPSHOT.leaves), len(SNAPSHOT.dongs)) == (
            269,
            256,
            20_276,
        )
        assert SNAPSHOT.source == "snapshot"

    def test_the_thirteen_cities_with_gu_are_no_leaves(self) -> None:
        cities = {region.sigungu_name for region in SNAPSHOT.regions if not region.is_leaf}
        assert cities == {
            f"{name}시"
            for name in [
                "수원",
                "성남",
                "안양",
                "부천",
                "안산",
                "고양",
                "용인",
                "화성",
                "청주",
                "천안",
                "포항",
                "창원",
                "전주",
            ]
        }

    def test_every_parent_is_a_province_or_the_city_whose_name_the_region_bears(self) -> None:
        for region in SNAPSHOT.regions:
            if len(region.parent_code) == 2:
                assert region.region_code.startswith(region.parent_code)
            else:
                assert region.region_name.startswith(BY_CODE[region.parent_code].region_name + " ")

    @pytest.mark.parametrize(
        ("code", "name"), [("36110", "세종특별자치시"), ("50110", "제주특별자치도 제주시")]
    )
    def test_sejong_and_jeju_city_are_leaves(self, code: str, name: str) -> None:
        assert BY_CODE[code].is_leaf
        assert BY_CODE[code].region_name == name

    def test_the_snapshot_is_what_its_own_rows_would_make(self) -> None:
        rows = [(f"{region.region_code}00000", region.region_name) for region in SNAPSHOT.regions]
        sidos = {
            (f"{region.region_code[:2]}00000000", region.sido_name) for region in SNAPSHOT.regions
        }
        rebuilt = listed([*rows, *(row for row in sidos if not row[0].startswith("36"))])
        assert {region.region_code: region for region in rebuilt.regions} == BY_CODE


class TestPartitionKeys:
    def test_the_key_of_gangnam_is_the_one_people_type(self) -> None:
        assert BY_CODE["11680"].partition_key == "11680_서울특별시_강남구"
        assert code_of_partition_key("11680_서울특별시_강남구") == "11680"

    def test_no_key_needs_quotes_or_breaks_a_range_and_keys_sort_by_code(self) -> None:
        keys = [region.partition_key for region in SNAPSHOT.leaves]
        assert len(set(keys)) == 256
        assert not [key for key in keys if set(" ,\t'\"$&;|") & set(key)]
        assert sorted(keys) == sorted(keys, key=code_of_partition_key)

    def test_spaces_and_commas_of_a_name_become_one_underscore(self) -> None:
        assert (
            replace(BY_CODE["11680"], region_name=" 가 ,  나\t다 ").partition_key
            == "11680_가_나_다"
        )


class TestChanges:
    def test_the_same_list_changes_nothing(self) -> None:
        changes = compare(KNOWN, SNAPSHOT)
        assert (changes.added, changes.abolished, changes.renamed) == ((), (), ())

    def test_the_first_list_adds_everything(self) -> None:
        assert compare({}, SNAPSHOT).added == tuple(sorted(KNOWN))

    def test_added_abolished_and_renamed_regions_are_told_apart(self) -> None:
        names = {**KNOWN, "11999": "서울특별시 한강구", "11680": "서울특별시 새강남구"}
        del names["50110"]
        changes = compare(KNOWN, leaves_of(names))
        assert (changes.added, changes.abolished, changes.renamed) == (
            ("11999",),
            ("50110",),
            ("11680",),
        )

    def test_a_city_that_got_gu_is_no_leaf_any_more(self) -> None:
        rows = [("4100000000", "경기도"), ("4159000000", "경기도 화성시")]
        known = {region.region_code: region.region_name for region in listed(rows).leaves}
        changes = compare(known, listed([*rows, ("4159100000", "경기도 화성시 만세구")]))
        assert (changes.added, changes.abolished) == (("41591",), ("41590",))

    def test_the_same_list_has_the_same_fingerprint_on_any_day(self) -> None:
        later = replace(SNAPSHOT, as_of=dt.date(2027, 1, 1), regions=SNAPSHOT.regions[::-1])
        assert fingerprint(later) == fingerprint(SNAPSHOT)
        fewer_dongs = replace(SNAPSHOT, dongs=SNAPSHOT.dongs[1:])
        fewer_regions = replace(SNAPSHOT, regions=SNAPSHOT.regions[1:])
        assert len({fingerprint(one) for one in (SNAPSHOT, fewer_dongs, fewer_regions)}) == 3
