"""An address belongs to the region it names: now, before a reform, shortened, or by its dong where
the name says too little.
"""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohe_assets.domain.attribution import RegionIndex, short_sidos
from mohe_assets.domain.regions import bundled_snapshot
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
        old_code=old_code, old_name=old_name, new_code=new_code, new_name=NAMES.get(new_code, ""), shared_dongs=1,
        share_of_old=1.0, share_of_new=1.0,
    )  # fmt: skip


REFORM = [
    became("29110", "광주광역시 동구", "12210"),
    became("28110", "인천광역시 중구", "28125"),
    became("28110", "인천광역시 중구", "28155"),
    became("28140", "인천광역시 동구", "28125"),
    became("28260", "인천광역시 서구", "28275"),
    became("28260", "인천광역시 서구", "28290"),
]
INDEX = RegionIndex(SNAPSHOT.regions, dongs_of, REFORM)


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

    def test_a_short_form_of_two_provinces_is_not_understood(self) -> None:
        one = next(region for region in SNAPSHOT.regions if region.region_code == "11680")
        index = RegionIndex(
            [one],
            successions=[
                became("1", "서울광역시 강남구", "11680"),
                became("2", "서울도 강남구", "11680"),
            ],
        )
        assert index.region_of("서울 강남구 1") is None
        assert index.region_of("서울특별시 강남구 1") == "11680"

    def test_provinces_are_shortened_as_people_do(self) -> None:
        assert short_sidos("서울특별시") == ("서울", "서울시")
        assert short_sidos("경상북도") == ("경북",)
        assert short_sidos("제주특별자치도") == ("제주",)
        assert short_sidos("전남광주통합특별시") == ("전남광주", "전남광주시")


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


@given(st.text(alphabet="서울경기도광주시중구동 1", max_size=30))
def test_no_text_breaks_it_and_what_it_answers_is_a_leaf(address: str) -> None:
    found = INDEX.region_of(address)
    assert found is None or found in {region.region_code for region in SNAPSHOT.leaves}
