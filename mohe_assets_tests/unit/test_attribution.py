"""An address belongs to the region it names: now, before a reform, shortened, or by its dong."""

import datetime as dt
from collections.abc import Collection
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohe_assets.domain.attribution import RegionIndex, regions_named
from mohe_assets.domain.regions import (
    bundled_snapshot,
    bundled_successions,
    region_points,
    sido_spellings,
)
from mohe_assets.domain.succession import Succession

SNAPSHOT = bundled_snapshot()
NAMES = {region.region_code: region.region_name for region in SNAPSHOT.regions}
DONGS: dict[str, list[str]] = {}
for dong in SNAPSHOT.dongs:
    DONGS.setdefault(dong.region_code, []).append(dong.dong_name)


def dongs_of(codes: Collection[str]) -> dict[str, list[str]]:
    return {code: DONGS.get(code, []) for code in codes}


def became(old_code: str, old_name: str, new_code: str) -> Succession:
    return Succession(
        old_code=old_code,
        old_name=old_name,
        new_code=new_code,
        new_name=NAMES.get(new_code, ""),
        shared_dongs=1,
        share_of_old=1.0,
        share_of_new=1.0,
    )


REFORM = [
    became("29110", "광주광역시 동구", "12210"),
    became("28110", "인천광역시 중구", "28125"),
    became("28110", "인천광역시 중구", "28155"),
    became("28140", "인천광역시 동구", "28125"),
    became("28260", "인천광역시 서구", "28275"),
    became("28260", "인천광역시 서구", "28290"),
]
INDEX = RegionIndex(SNAPSHOT.regions, dongs_of, REFORM)
SHIPPED = [
    became(one["old_code"], one["old_name"], one["new_code"])  # the others follow from these
    for one in bundled_successions()
]
FRESH = RegionIndex(SNAPSHOT.regions, dongs_of, SHIPPED, region_points())


class TestNamesOfNow:
    @pytest.mark.parametrize(
        ("address", "code"),
        [
            ("강원특별자치도 고성군 간성읍 1", "51820"),
            ("경남 고성군 고성읍 1", "48820"),
            ("경기도 광주시 경안동 1", "41610"),
            ("서울 강남구 역삼동 1", "11680"),
            ("서울시 중구 명동2가 1", "11140"),
            ("경기 수원시 장안구 파장동 1", "41111"),
            ("충북 청주시 상당구 영동 1", "43111"),
            ("세종특별자치시 어진동 572", "36110"),
            ("세종특별자치시 세종특별자치시 어진동 572", "36110"),
            ("세종 어진동 572", "36110"),
        ],
    )
    def test_full_and_short_names_are_read(self, address: str, code: str) -> None:
        assert INDEX.region_of(address) == code

    @pytest.mark.parametrize(
        "address", ["", "중구 명동", "고성군 간성읍", "미국 뉴욕", "서울특별시 강남구청", "서울"]
    )
    def test_a_name_that_several_provinces_have_says_nothing_alone(self, address: str) -> None:
        assert INDEX.region_of(address) is None

    def test_a_short_form_of_two_provinces_says_nothing_alone(self) -> None:
        two = [region for region in SNAPSHOT.regions if region.region_code in ("11680", "11140")]
        old = [became("1", "서울광역시 새구", "11680"), became("2", "서울도 새구", "11140")]
        index = RegionIndex(two, successions=old)
        assert index.region_of("서울 새구 1") is None
        assert index.region_of("서울도 새구 1") == "11140"

    @pytest.mark.parametrize(
        ("name", "spellings"),
        [
            ("서울특별시", ("서울", "서울시")),
            ("광주광역시", ("광주", "광주시")),
            ("경기도", ("경기",)),
            ("경상북도", ("경북", "경북도")),
            ("충청남도", ("충남", "충남도")),
            ("전북특별자치도", ("전북", "전북도", "전북자치도")),
            ("강원특별자치도", ("강원", "강원도", "강원자치도")),
            ("제주특별자치도", ("제주", "제주도", "제주자치도")),
            ("세종특별자치시", ("세종", "세종시", "세종자치시")),
            ("전남광주통합특별시", ("전남광주", "전남광주시", "전남광주특별시")),
            ("한양", ()),
        ],
    )
    def test_provinces_are_spelt_as_people_do(self, name: str, spellings: tuple[str, ...]) -> None:
        assert sido_spellings(name) == spellings

    @pytest.mark.parametrize(
        "address",
        [
            "대한민국 서울특별시 강남구 역삼동 1",
            "06236 서울특별시 강남구 역삼동 1",
            "(06236) 서울 강남구 역삼동 1",
            "우)06236 서울시 강남구",
            "[135-080] 서울 강남구 역삼동 1",
            "대한민국, 06236, 서울특별시, 강남구, 역삼동 1",
            "서울특별시,강남구,역삼동 1",
        ],
    )
    def test_the_country_a_postcode_and_commas_do_not_matter(self, address: str) -> None:
        assert INDEX.region_of(address) == "11680"


class TestNamesOfBeforeOnAFreshInstallation:
    @pytest.mark.parametrize(
        ("address", "code"),
        [
            ("전라남도 담양군 담양읍 1", "12710"),
            ("전남 신안군 압해읍 1", "12870"),
            ("광주광역시 동구 충장로1가 1", "12210"),
            ("광주 광산구 1", "12330"),
            ("인천광역시 서구 청라동 1", "28275"),
            ("인천광역시 서구 마전동 1", "28290"),
            ("인천 중구 운서동 1", "28155"),
            ("인천광역시 중구 신포동 1", "28125"),
            ("인천광역시 동구", "28125"),
            ("강원도 춘천시 효자동 1", "51110"),
            ("강원도 고성군 1", "51820"),
            ("강원자치도 원주시 1", "51130"),
            ("전라북도 전주시 완산구 1", "52111"),
            ("전라북도 전주시 덕진동1가 1", "52113"),
            ("전북자치도 군산시 1", "52130"),
            ("제주도 제주시 1", "50110"),
            ("제주 서귀포시 1", "50130"),
            ("경상북도 군위군 군위읍 1", "27720"),
            ("경북 군위군 1", "27720"),
            ("경기도 부천시 소사본동 1", "41194"),
            ("경기도 화성시 향남읍 1", "41591"),
        ],
    )
    def test_they_mean_the_region_of_now(self, address: str, code: str) -> None:
        assert FRESH.region_of(address) == code

    def test_every_shipped_succession_leads_to_the_region_it_names(self) -> None:
        for row in bundled_successions():
            assert NAMES[row["new_code"]] == row["new_name"]
            near = region_points()[row["new_code"]]
            assert FRESH.region_of("", formerly=row["old_code"], point=near)
            assert dt.date(2023, 1, 1) <= dt.date.fromisoformat(row["date"]) <= SNAPSHOT.as_of
            assert row["old_code"] not in {leaf.region_code for leaf in SNAPSHOT.leaves}
            assert "code.go.kr" in row["source"]

    def test_every_code_that_the_reform_of_2026_07_01_ended_is_known(self) -> None:
        olds = [row["old_code"] for row in bundled_successions() if row["date"] == "2026-07-01"]
        assert len(set(olds)) == 30
        assert {row["new_code"] for row in bundled_successions()} >= {
            code
            for code in NAMES
            if code[:2] in ("12", "51", "52")  # parent cities, too
        }


class TestTheThreeWitnesses:
    def test_the_lot_address_comes_first(self) -> None:
        assert (
            FRESH.region_of(
                "서울특별시 강남구 역삼동 1", road_address="서울특별시 서초구 반포대로 1"
            )
            == "11680"
        )

    def test_the_road_address_helps_a_lot_address_that_names_no_region_or_several(self) -> None:
        assert (
            FRESH.region_of("서울 역삼동 815", road_address="서울특별시 강남구 강남대로 358")
            == "11680"
        )
        assert (
            FRESH.region_of("경기도 화성시 능동 1", road_address="경기도 화성시 동탄구 동탄대로 1")
            == "41597"
        )
        assert FRESH.region_of("", road_address="서울특별시 강남구 강남대로 358") == "11680"

    @pytest.mark.parametrize("code", ["41595", "41597"])
    def test_of_several_leaves_that_fit_the_nearest_is_taken(self, code: str) -> None:
        address, near = (
            "경기도 화성시 능동 1",
            region_points()[code],
        )  # 병점구 and 동탄구 have a 능동
        assert FRESH.region_of(address, point=near) == code
        assert FRESH.region_of(address) is None

    @pytest.mark.parametrize("code", ["41111", "41113", "41115", "41117"])
    def test_a_road_of_a_parent_city_is_in_the_nearest_gu(self, code: str) -> None:
        latitude, longitude = region_points()[code]
        near = Decimal(str(latitude)), Decimal(str(longitude))
        assert (
            FRESH.region_of(
                "경기도 수원시 효원로 1", road_address="경기도 수원시 효원로 1", point=near
            )
            == code
        )

    def test_a_split_district_without_a_dong_is_decided_by_the_point(self) -> None:
        assert (
            FRESH.region_of("인천광역시 서구 백범로 1", point=region_points()["28290"]) == "28290"
        )

    def test_both_addresses_together_may_leave_one(self) -> None:
        road = "경기도 화성시 경기대로 1 (반송동)"
        assert FRESH.region_of("경기도 화성시 능동 1", road_address=road) == "41597"

    def test_a_point_decides_only_among_leaves_whose_points_are_all_known(self) -> None:
        some = {code: point for code, point in region_points().items() if code != "41597"}
        index = RegionIndex(SNAPSHOT.regions, dongs_of, SHIPPED, some)
        assert index.region_of("경기도 화성시 능동 1", point=some["41595"]) is None

    def test_a_point_alone_says_nothing(self) -> None:
        assert FRESH.region_of("중구 명동", point=region_points()["11140"]) is None


class TestTheDongDecides:
    @pytest.mark.parametrize(
        ("address", "code"),
        [
            ("경기도 화성시 향남읍 구문천리 1", "41591"),
            ("경기 화성시 봉담읍 1", "41593"),
            ("경기도 화성시 여울동 1", "41597"),
            ("경기도 화성시 능동 1", None),  # 병점구 and 동탄구 have one
            ("경기도 화성시 없는동 1", None),
            ("경기도 화성시", None),
        ],
    )
    def test_which_gu_a_parent_citys_address_is_in(self, address: str, code: str | None) -> None:
        assert INDEX.region_of(address) == code

    @pytest.mark.parametrize(
        ("address", "code"),
        [
            ("광주광역시 동구 충장로1가 1", "12210"),
            ("광주 동구 충장로1가 1", "12210"),
            ("인천광역시 동구 만석동 1", "28125"),
            ("인천광역시 중구 신포동 1", "28125"),
            ("인천광역시 중구 운서동 1", "28155"),
            ("인천 서구 청라동 1", "28275"),
            ("인천 서구 금곡동 1", "28290"),
            ("인천광역시 서구 백범로 1", None),
        ],
    )
    def test_what_became_of_an_old_name(self, address: str, code: str | None) -> None:
        assert INDEX.region_of(address) == code

    def test_a_name_of_now_wins_over_the_same_name_of_before(self) -> None:
        index = RegionIndex(SNAPSHOT.regions, dongs_of, [became("1", "서울특별시 중구", "11680")])
        assert index.region_of("서울특별시 중구 명동2가 1") == "11140"

    def test_the_region_before_helps_an_address_that_names_none(self) -> None:
        assert INDEX.region_of("운서동 1", formerly="28110") == "28155"
        assert INDEX.region_of("어딘가 1", formerly="28110") is None
        assert INDEX.region_of("어딘가 1", formerly="28140") == "28125"

    def test_successors_of_successors_are_followed_and_circles_end(self) -> None:
        chain = [
            became("1", "가도 나시", "2"),
            became("2", "가도 다시", "11680"),
            became("3", "x", "4"),
            became("4", "y", "3"),
        ]
        index = RegionIndex(SNAPSHOT.regions, dongs_of, chain)
        assert index.region_of("가도 나시 1") == "11680"
        assert index.region_of("x 1") is None


def test_only_dongs_that_tell_regions_of_one_name_apart_are_asked_for() -> None:
    asked: list[str] = []

    def dongs(codes: Collection[str]) -> dict[str, list[str]]:
        asked.extend(codes)
        return dongs_of(codes)

    RegionIndex(SNAPSHOT.regions, dongs, REFORM)
    assert {"41111", "28125", "28155"} <= set(asked)
    assert not {"12210", "11680", "28245"} & set(asked)
    assert len(asked) == len(set(asked)) < len(SNAPSHOT.leaves) / 4


@given(leaf=st.sampled_from(SNAPSHOT.leaves), data=st.data())
def test_every_dong_of_every_leaf_is_found_in_it(leaf: object, data: st.DataObject) -> None:
    code, name = leaf.region_code, leaf.region_name  # type: ignore[attr-defined]
    dong = data.draw(st.sampled_from(DONGS[code]))
    assert INDEX.region_of(f"{name} {dong} 1-1") == code


@given(
    st.text(alphabet="서울경기도광주시중구동 1,(", max_size=30),
    st.text(alphabet="경기도화성시능동 1", max_size=20),
)
def test_no_text_breaks_it_and_what_it_answers_is_a_leaf(address: str, road: str) -> None:
    found = FRESH.region_of(address, road_address=road, point=(37.2, 127.0))
    assert found is None or found in {region.region_code for region in SNAPSHOT.leaves}


LEAF_NAMES = {leaf.region_code: leaf.region_name for leaf in bundled_snapshot().leaves}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("강남구", ["11680"]),
        ("서울 강남구", ["11680"]),
        ("서울특별시_강남구", ["11680"]),
        ("충북 단양군", ["43800"]),
        ("장안구", ["41111"]),
        ("경기 수원시 장안구", ["41111"]),
        ("수원 장안구", []),
        ("수원시", ["41111", "41113", "41115", "41117"]),
        ("고성군", ["48820", "51820"]),
        ("경남 고성군", ["48820"]),
        ("강남", []),
        ("강남구 서울", []),
        ("", []),
    ],
)
def test_a_region_is_named_as_people_name_it(words: str, found: list[str]) -> None:
    assert sorted(regions_named(words, LEAF_NAMES)) == found


def test_every_region_is_named_by_its_full_name_and_by_its_province_shortened() -> None:
    for code, name in LEAF_NAMES.items():
        assert regions_named(name, LEAF_NAMES) == [code]
        province, *rest = name.split()
        for short in sido_spellings(province):
            assert regions_named(" ".join((short, *rest)), LEAF_NAMES) == [code], name
