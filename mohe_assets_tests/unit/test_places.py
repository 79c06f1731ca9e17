"""Items of an answer become place records, or are set aside with the reason; one bad item never
costs the others.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from mohe_assets.domain.attribution import RegionIndex
from mohe_assets.domain.columns import PLACES
from mohe_assets.domain.places import PlaceRecord, RejectionReason, clean_title, place_key
from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.sources.naver_local import items as items_module
from mohe_assets.sources.naver_local.items import MAX_LENGTHS, clean_address, parse_items

ITEM = {
    "title": "중화요리<b>본가</b>",
    "link": "http://example.com",
    "category": "중식>중식당",
    "description": "",
    "telephone": "",
    "address": "전북특별자치도 남원시 주천면 장안리 145-1",
    "roadAddress": "전북특별자치도 남원시 정령치로 9",
    "mapx": "1273800123",
    "mapy": "354100456",
}
(WEBSITE_PATTERN,) = [column.pattern or "" for column in PLACES if column.name == "website_url"]
INDEX = RegionIndex(bundled_snapshot().regions)


def item(**changes: Any) -> dict[str, Any]:
    return {**ITEM, **changes}


def parsed(**changes: Any) -> PlaceRecord:
    (place,), aside = parse_items([item(**changes)])
    assert aside == ()
    return place


def reason(given: object) -> RejectionReason:
    places, (aside,) = parse_items([given])
    assert places == ()
    return aside.reason


class TestTitles:
    @pytest.mark.parametrize(
        ("title", "clean"),
        [
            ("중화요리<b>본가</b>", "중화요리본가"),
            ("<B>가</B>나", "가나"),
            ("A&amp;B", "A&B"),
            ("A&amp;amp;B", "A&amp;B"),
            ("&lt;b&gt;굵게&lt;/b&gt;", "<b>굵게</b>"),
            ("가 <b> 나</b>\t다 ", "가 나 다"),
            ("1 &lt; 2", "1 < 2"),
            ("카페 ☕ 100% '맛'", "카페 ☕ 100% '맛'"),
        ],
    )
    def test_tags_go_first_and_entities_are_read_once(self, title: str, clean: str) -> None:
        assert clean_title(title) == clean

    @pytest.mark.parametrize("title", ["", " ", "<b></b>", "&nbsp;"])
    def test_an_item_without_a_title_is_set_aside(self, title: str) -> None:
        assert reason(item(title=title)) is RejectionReason.NO_TITLE


class TestCategories:
    @pytest.mark.parametrize("category", ["지명", "지명>산"])
    def test_names_of_mountains_and_villages_are_no_places(self, category: str) -> None:
        assert reason(item(category=category)) is RejectionReason.PLACE_NAME

    @pytest.mark.parametrize(
        "category", ["", "카페,디저트", "음식점>카페,디저트>베이커리", "서비스>지명수배"]
    )
    def test_other_categories_are_kept_as_they_are(self, category: str) -> None:
        assert parsed(category=category).category == category


class TestCoordinates:
    def test_degrees_times_ten_millions_become_exact_degrees(self) -> None:
        place = parsed()
        assert (place.longitude, place.latitude) == (Decimal("127.3800123"), Decimal("35.4100456"))

    def test_numbers_do_as_well_as_texts(self) -> None:
        assert parsed(mapx=1273800123, mapy=354100456) == parsed()

    @pytest.mark.parametrize(
        ("mapx", "mapy"), [("313277", "552050"), ("0313277", "0552050"), ("1273800123", "552050")]
    )
    def test_katech_coordinates_are_refused_and_never_divided(self, mapx: str, mapy: str) -> None:
        assert reason(item(mapx=mapx, mapy=mapy)) is RejectionReason.KATECH

    @pytest.mark.parametrize(
        ("mapx", "mapy", "expected"),
        [
            ("127.0314467", "37.4980952", RejectionReason.DEGREES),
            (127.0314467, 37.4980952, RejectionReason.DEGREES),
            ("127", "37", RejectionReason.DEGREES),
            ("127031446", "37498095", RejectionReason.MICRODEGREES),
            ("1270314", "374980", RejectionReason.OTHER_SCALE),
            ("12703144670", "3749809520", RejectionReason.OTHER_SCALE),
            ("1270314467.0", "374980952.0", RejectionReason.OTHER_SCALE),
            ("313277.5", "552050.25", RejectionReason.KATECH),
            ("127.0314467", "374980952", RejectionReason.BAD_COORDINATES),
            ("0", "0", RejectionReason.OUTSIDE_KOREA),
            ("9" * 5_000, "9" * 5_000, RejectionReason.BAD_COORDINATES),
        ],
    )
    def test_coordinates_of_another_format_are_refused_by_the_name_of_the_format(
        self, mapx: object, mapy: object, expected: RejectionReason
    ) -> None:
        assert reason(item(mapx=mapx, mapy=mapy)) is expected

    @pytest.mark.parametrize(
        ("mapx", "mapy"),
        [
            ("1396917000", "356895000"),
            ("1273800123", "-354100456"),
            ("354100456", "1273800123"),
            ("1240000000", "354100456"),
        ],
    )
    def test_a_point_outside_of_korea_is_refused(self, mapx: str, mapy: str) -> None:
        assert reason(item(mapx=mapx, mapy=mapy)) is RejectionReason.OUTSIDE_KOREA

    @pytest.mark.parametrize("bad", ["", "127.38", "1.27e9", "abc", None, True, [], {}, 127.38])
    def test_what_is_no_whole_number_is_refused(self, bad: object) -> None:
        assert reason(item(mapx=bad)) is RejectionReason.BAD_COORDINATES


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "clean"),
        [
            ("세종특별자치시 세종특별자치시 어진동 572", "세종특별자치시 어진동 572"),
            ("세종특별자치시 어진동 572", "세종특별자치시 어진동 572"),
            ("  서울특별시  강남구 ", "서울특별시 강남구"),
            ("서울 서울 강남구", "서울 서울 강남구"),
            ("", ""),
        ],
    )
    def test_only_the_doubled_name_of_sejong_is_said_once(self, address: str, clean: str) -> None:
        assert clean_address(address) == clean

    def test_an_empty_road_address_stays_empty(self) -> None:
        assert parsed(roadAddress="").road_address == ""

    def test_the_road_address_stands_in_for_a_missing_one(self) -> None:
        assert parsed(address="").address == ITEM["roadAddress"]

    def test_an_item_without_any_address_is_set_aside(self) -> None:
        assert reason(item(address="", roadAddress=" ")) is RejectionReason.NO_ADDRESS


class TestGarbage:
    @pytest.mark.parametrize("given", [None, "text", 7, [], [ITEM]])
    def test_what_is_no_object_is_set_aside(self, given: object) -> None:
        assert reason(given) is RejectionReason.NOT_AN_OBJECT

    @pytest.mark.parametrize(
        "field", ["title", "category", "address", "roadAddress", "telephone", "link"]
    )
    def test_a_field_that_is_no_text_is_set_aside(self, field: str) -> None:
        assert reason(item(**{field: 7})) is RejectionReason.BAD_TEXT
        assert reason(item(**{field: {"a": 1}})) is RejectionReason.BAD_TEXT

    @pytest.mark.parametrize(
        "field", ["category", "roadAddress", "telephone", "link", "description"]
    )
    def test_a_missing_field_is_an_empty_one(self, field: str) -> None:
        without = {name: value for name, value in ITEM.items() if name != field}
        assert parse_items([without]) == parse_items([item(**{field: None})])
        assert len(parse_items([without])[0]) == 1

    def test_an_empty_object_is_set_aside(self) -> None:
        assert reason({}) is RejectionReason.NO_TITLE

    def test_one_bad_item_costs_no_other_and_is_counted_by_its_position(self) -> None:
        places, aside = parse_items(
            [item(), None, item(title="둘"), item(mapx="313277"), item(title="셋")]
        )
        assert [place.name for place in places] == ["중화요리본가", "둘", "셋"]
        assert [(one.position, one.reason) for one in aside] == [
            (1, RejectionReason.NOT_AN_OBJECT),
            (3, RejectionReason.KATECH),
        ]

    def test_the_same_place_twice_in_one_answer_is_kept_once(self) -> None:
        places, aside = parse_items([item(), item(title="중화요리 본가")])
        assert len(places) == 1
        assert aside == ()


class TestIdentity:
    @pytest.mark.parametrize(
        "changes",
        [
            {"title": "중화요리본가"},
            {"title": "<b>중화요리</b> 본가"},
            {"roadAddress": "전북특별자치도 남원시 다른길 1"},
            {"roadAddress": ""},
            {"address": "전북특별자치도 남원시 주천면 장안리 145-1 한국빌딩 B1"},
            {"address": "전라북도 남원시 주천면 장안리 145-1"},
            {"category": "한식"},
            {"link": ""},
        ],
    )
    def test_a_year_of_changes_leaves_a_place_the_same(self, changes: dict[str, str]) -> None:
        assert parsed(**changes).place_key == parsed().place_key

    def test_width_and_case_of_letters_make_no_other_place(self) -> None:
        assert parsed(title="ＣＡＦＥ 8").place_key == parsed(title="cafe8").place_key

    def test_two_shops_at_one_point_are_two_places(self) -> None:
        assert parsed(title="본가 별관").place_key != parsed().place_key

    def test_two_branches_of_one_name_are_two_places(self) -> None:
        assert parsed(mapx="1273800124").place_key != parsed().place_key

    def test_the_key_is_what_the_database_has_had_from_the_beginning(self) -> None:
        assert (
            place_key("중화요리본가", Decimal("35.4100456"), Decimal("127.3800123"))
            == "c02aefc80357b696ceb60ecfe225bb24"
        )


class TestAttribution:
    @pytest.mark.parametrize(
        ("address", "code"),
        [
            ("서울특별시 중구 명동2가 1", "11140"),
            ("부산광역시 중구 광복동 1", "26110"),
            ("대구광역시 중구 동인동1가 1", "27110"),
            ("대전광역시 중구 은행동 1", "30140"),
            ("울산광역시 중구 성남동 1", "31110"),
            ("강원특별자치도 고성군 간성읍 1", "51820"),
            ("경상남도 고성군 고성읍 1", "48820"),
            ("세종특별자치시 어진동 572", "36110"),
            ("경기도 수원시 장안구 파장동 1", "41111"),
            ("제주특별자치도 제주시 연동 1", "50110"),
            ("서울특별시   강남구", "11680"),
        ],
    )
    def test_the_leading_words_of_an_address_name_its_region(self, address: str, code: str) -> None:
        assert INDEX.region_of(address) == code

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "경기도 수원시",
            "경기도 수원시 파장동 1",
            "중구 명동",
            "미국 뉴욕",
            "서울특별시 강남구청",
        ],
    )
    def test_an_address_that_names_no_leaf_has_no_region(self, address: str) -> None:
        assert INDEX.region_of(address) is None

    def test_every_leaf_finds_itself(self) -> None:
        leaves = bundled_snapshot().leaves
        assert [INDEX.region_of(f"{region.region_name} 1-1") for region in leaves] == [
            region.region_code for region in leaves
        ]

    def test_an_index_of_nothing_finds_nothing(self) -> None:
        assert RegionIndex([]).region_of("서울특별시 강남구") is None


class TestHostileItems:
    @pytest.mark.parametrize("field", ["title", "category", "address", "roadAddress"])
    @pytest.mark.parametrize(
        "control", ["\x1b[31m", "\u202e", "\x7f", "\ud800", "&#x202e;", "\u200b"]
    )
    def test_no_text_of_a_place_holds_a_control_character(self, field: str, control: str) -> None:
        place = parsed(**{field: f"{ITEM[field]}{control}9"})
        texts = (place.name, place.category, place.address, place.road_address)
        assert all(text.isprintable() for text in texts)

    def test_an_invisible_character_in_a_title_makes_no_other_place_than_before(self) -> None:
        place = parsed(title="본\u200b가")
        assert place.name == "본가"
        assert place.place_key == place_key("본\u200b가", place.latitude, place.longitude)

    @pytest.mark.parametrize("title", ["\u200b", "&#x202e;", "<b>\x7f</b>"])
    def test_a_title_of_invisible_characters_is_no_title(self, title: str) -> None:
        assert reason(item(title=title)) is RejectionReason.NO_TITLE

    @pytest.mark.parametrize("field", MAX_LENGTHS)
    def test_a_text_is_set_aside_when_it_is_longer_than_any_title_or_address(
        self, field: str
    ) -> None:
        longest = MAX_LENGTHS[field]
        parsed(**{field: "1" * longest})
        for length in (longest + 1, 5_000_000):
            assert reason(item(**{field: "세종 " * length})) is RejectionReason.TOO_LONG

    @pytest.mark.parametrize(
        "digits",
        ["1" * 1_000_000, "9" * 13, "-" + "1" * 50, 10**13, 10**4000, -(10**4000), "1" * 41],
    )
    def test_a_number_with_too_many_digits_is_no_coordinate(self, digits: object) -> None:
        for name in ("mapx", "mapy"):
            assert reason(item(**{name: digits})) is RejectionReason.BAD_COORDINATES

    def test_a_tree_instead_of_a_number_is_no_coordinate(self) -> None:
        deep: list[object] = []
        for _ in range(100_000):
            deep = [deep]
        assert reason(item(mapx=deep)) is RejectionReason.BAD_COORDINATES

    def test_an_entity_of_many_digits_stays_readable(self) -> None:
        assert parsed(title=f"가&#{'9' * 400};").name == "가\ufffd"

    def test_fullwidth_digits_are_digits(self) -> None:
        wide = parsed(
            mapx="１２７３８００１２３",
            mapy=" ３５４１００４５６ ",
            address="서울특별시 중구 명동２가 １-９",
            telephone="０２-１",
        )
        assert (wide.longitude, wide.latitude) == (parsed().longitude, parsed().latitude)
        assert (wide.address, wide.phone) == ("서울특별시 중구 명동2가 1-9", "02-1")
        assert INDEX.region_of("서울특별시 중구 명동２가 １-９") == "11140"

    @pytest.mark.parametrize(
        ("link", "kept"),
        [
            ("http://example.com", "http://example.com"),
            ("HTTPS://Example.com/A?b=c#d", "https://Example.com/A?b=c#d"),
            ("https://예시.한국/길", "https://예시.한국/길"),
            (" https://example.com\u200b ", "https://example.com"),
            ("https://example.com/" + "a" * 1_980, "https://example.com/" + "a" * 1_980),
            ("https://example.com/" + "a" * 1_981, ""),
            ("javascript:alert(1)", ""),
            ("java\tscript:alert(1)", ""),
            ("data:text/html,x", ""),
            ("ftp://example.com", ""),
            ("//example.com", ""),
            ("https://", ""),
            ("https:///path", ""),
            ("https://example.com/ a", ""),
            ('https://example.com/"onclick=', ""),
            ("https://example.com/<b>", ""),
            ("example.com", ""),
            ("", ""),
        ],
    )
    def test_a_link_that_is_no_web_address_is_dropped_and_the_place_kept(
        self, link: str, kept: str
    ) -> None:
        assert parsed(link=link).website_url == kept
        assert re.fullmatch(WEBSITE_PATTERN, kept)

    def test_a_text_of_megabytes_is_never_worked_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lengths: list[int] = []

        def noting(work: Callable[[str], str], text: str) -> str:
            lengths.append(len(text))
            return work(text)

        for name in ("clean_address", "clean_title", "one_line"):
            monkeypatch.setattr(items_module, name, partial(noting, getattr(items_module, name)))
        for field in ("title", "category", "address", "roadAddress", "telephone", "link"):
            parse_items([item(**{field: "세종 " * 1_500_000})])
        assert max(lengths) <= max(MAX_LENGTHS.values())

    def test_the_words_of_an_address_are_never_moved_one_by_one(self) -> None:
        # Moving all that follow for each took minutes for this one.
        assert clean_address("세종 " * 1_000_000 + "어진동") == "세종 어진동"


def test_white_space_in_a_category_a_phone_or_a_link_is_made_one_line() -> None:
    place = parsed(
        category=" 카페,  디저트\n>빵 ", telephone=" 02\t123-4567 ", link="\nhttps://a.example/b "
    )
    assert place.category == "카페, 디저트 >빵"
    assert place.phone == "02 123-4567"
    assert place.website_url == "https://a.example/b"
