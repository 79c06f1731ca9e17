"""The simulated place search behaves as the real one was recorded, in both generations, over a
socket.
"""

import html
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator, running

CLASSIC = "/v1/search/local.json"
HUB = "/search/v1/local"
CLASSIC_KEYS = {
    "X-Naver-Client-Id": "demo-client-id",
    "X-Naver-Client-Secret": "demo-client-secret",
}
HUB_KEYS = {"X-NCP-APIGW-API-KEY-ID": "demo-hub-key-id", "X-NCP-APIGW-API-KEY": "demo-hub-key"}
KEYWORDS = (
    *("카페", "레스토랑", "음식점", "베이커리", "디저트", "공원", "박물관", "미술관"),
    *("서점", "영화관", "헬스장", "요가", "필라테스", "갤러리", "문화센터"),
)
AS_STARTED: dict[str, Any] = {
    "calls_per_second": None,
    "daily_quota": None,
    "monthly_quota": None,
    "refused_calls_count": False,
    "quota_reset_delay_seconds": 0,
    "round": 0,
    "region_edits": [],
    "stray_share": 0.12,
    "katech_share": 0.025,
    "place_name_share": 0.03,
}

Item = dict[str, str]


@pytest.fixture(scope="module")
def process() -> Iterator[Simulator]:
    with running(SimulatorConfig(calls_per_second=None, daily_quota=None)) as simulator:
        yield simulator


@pytest.fixture
def simulator(process: Simulator) -> Simulator:
    process.reset()
    process.configure(**AS_STARTED)
    return process


@pytest.fixture(scope="module")
def base_plan(process: Simulator) -> dict[tuple[str, str], list[Item]]:
    """The places that a first collection of the country sees: every leaf district with all fifteen
    keywords.
    """
    process.configure(**AS_STARTED)
    with requests.Session() as session:
        session.headers.update(CLASSIC_KEYS)
        return {
            (name, keyword): session.get(
                process.url + CLASSIC,
                params={"query": f"{name} {keyword}", "display": "5"},
                timeout=10,
            ).json()["items"]
            for name in leaf_names(process)
            for keyword in KEYWORDS
        }


def leaf_names(simulator: Simulator) -> list[str]:
    asked = {"ServiceKey": "demo-govt-key+/==", "type": "json", "numOfRows": "1000"}
    found = {}
    for page in range(1, 22):
        answer = requests.get(
            f"{simulator.url}/1741000/StanReginCd/getStanReginCdList",
            params=asked | {"pageNo": page},
            timeout=10,
        )
        for row in answer.json()["StanReginCd"][1]["row"]:
            found[row["region_cd"]] = row["locatadd_nm"].strip()
        time.sleep(0.035)  # the region list takes thirty calls a second
    return [found[f"{code}00000"] for code in simulator.universe()]


def classic(simulator: Simulator, query: str, **parameters: Any) -> requests.Response:
    asked = {"query": query, "display": 5, **parameters}
    return requests.get(simulator.url + CLASSIC, params=asked, headers=CLASSIC_KEYS, timeout=10)


def hub(simulator: Simulator, query: str, **parameters: Any) -> requests.Response:
    asked = {"query": query, "display": 5, **parameters}
    return requests.get(simulator.url + HUB, params=asked, headers=HUB_KEYS, timeout=10)


def items(simulator: Simulator, query: str, **parameters: Any) -> list[Item]:
    return list(classic(simulator, query, **parameters).json()["items"])


def identity(item: Item) -> tuple[str, str, str]:
    return html.unescape(re.sub("</?b>", "", item["title"])), item["mapx"], item["mapy"]


def is_business(item: Item) -> bool:
    return len(item["mapx"]) == 10 and not item["category"].startswith("지명")


def test_an_answer_has_the_recorded_shape(simulator: Simulator) -> None:
    answer = classic(simulator, "서울특별시 강남구 카페")
    body = answer.json()
    assert answer.headers["content-type"].startswith("application/json")
    assert list(body) == ["lastBuildDate", "total", "start", "display", "items"]
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0900", body["lastBuildDate"])
    assert (body["total"], body["start"], body["display"], len(body["items"])) == (5, 1, 5, 5)
    fields = "title link category description telephone address roadAddress mapx mapy"
    assert list(body["items"][0]) == fields.split()
    assert all(isinstance(value, str) for item in body["items"] for value in item.values())


def test_the_hub_says_plain_text_and_finds_the_same(simulator: Simulator) -> None:
    answer = hub(simulator, "서울특별시 강남구 서점", format="json")
    assert answer.headers["content-type"] == "text/plain;charset=UTF-8"
    assert answer.json()["items"] == items(simulator, "서울특별시 강남구 서점")


def test_the_total_is_the_number_returned(simulator: Simulator) -> None:
    body = classic(simulator, "서울특별시 강남구 카페", display=2).json()
    assert (body["total"], body["display"], len(body["items"])) == (2, 2, 2)


def test_matched_words_are_marked_and_slashes_escaped_in_the_raw_text(simulator: Simulator) -> None:
    text = classic(simulator, "서울특별시 강남구 스타벅스").text
    assert "<b>스타벅스<\\/b>" in text
    assert re.search(r"[^\\]/", text) is None


def test_one_is_the_default_display(simulator: Simulator) -> None:
    answer = requests.get(
        simulator.url + CLASSIC,
        params={"query": "서울특별시 강남구 카페"},
        headers=CLASSIC_KEYS,
        timeout=10,
    )
    assert len(answer.json()["items"]) == 1


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"query": ""}, "SE01"),
        ({"query": " "}, "SE01"),
        ({"display": 6}, "SE02"),
        ({"display": 0}, "SE02"),
        ({"display": "five"}, "SE02"),
        ({"start": 2}, "SE03"),
        ({"start": 0}, "SE03"),
        ({"sort": "sim"}, "SE04"),
    ],
)
def test_the_classic_api_refuses_bad_parameters(
    simulator: Simulator, parameters: dict[str, Any], code: str
) -> None:
    answer = classic(simulator, parameters.pop("query", "서울특별시 강남구 카페"), **parameters)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, code)


def test_a_query_that_is_not_utf_8_is_refused(simulator: Simulator) -> None:
    answer = requests.get(
        f"{simulator.url}{CLASSIC}?query=%C4%AB%C6%E4", headers=CLASSIC_KEYS, timeout=10
    )
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "SE06")


def test_an_unknown_search_api_is_not_found(simulator: Simulator) -> None:
    answer = requests.get(
        f"{simulator.url}/v1/search/nothing.json", headers=CLASSIC_KEYS, timeout=10
    )
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "SE05")


def test_the_hub_clamps_the_display_and_answers_any_start_with_the_first_five(
    simulator: Simulator,
) -> None:
    first = hub(simulator, "서울특별시 강남구 카페").json()["items"]
    assert hub(simulator, "서울특별시 강남구 카페", display=100).json()["items"] == first
    assert hub(simulator, "서울특별시 강남구 카페", start=6).json()["items"] == first
    assert hub(simulator, "서울특별시 강남구 카페", sort="sim").json()["errorCode"] == "SE04"


def test_keys_are_not_interchangeable(simulator: Simulator) -> None:
    asked = {"query": "서울특별시 강남구 카페"}
    at_classic = requests.get(simulator.url + CLASSIC, params=asked, headers=HUB_KEYS, timeout=10)
    at_hub = requests.get(simulator.url + HUB, params=asked, headers=CLASSIC_KEYS, timeout=10)
    assert (at_classic.status_code, at_classic.json()["errorCode"]) == (401, "024")
    assert (at_hub.status_code, at_hub.json()["error"]["errorCode"]) == (401, "200")


def test_the_hub_answers_a_wrong_key_of_a_known_id_with_a_number(simulator: Simulator) -> None:
    headers = HUB_KEYS | {"X-NCP-APIGW-API-KEY": "wrong"}
    answer = requests.get(
        simulator.url + HUB, params={"query": "카페"}, headers=headers, timeout=10
    )
    assert (answer.status_code, answer.json()["error"]["errorCode"]) == (401, 401)


def test_one_call_more_than_the_rate_is_refused_until_the_second_is_over(
    simulator: Simulator,
) -> None:
    simulator.configure(calls_per_second=3)
    answers = [classic(simulator, "서울특별시 강남구 카페") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json() == {
        "errorMessage": "Rate limit exceeded. (속도 제한을 초과했습니다.)",
        "errorCode": "012",
    }
    assert hub(simulator, "서울특별시 강남구 카페").json() == {
        "errorCode": "420",
        "message": "Rate Limited",
    }
    time.sleep(1.01)
    assert classic(simulator, "서울특별시 강남구 카페").status_code == 200


def test_the_days_quota_is_per_client_and_returns_with_the_kst_day(simulator: Simulator) -> None:
    simulator.set_clock("2026-11-02T23:50:00+09:00")
    simulator.configure(daily_quota=2)
    assert [classic(simulator, "강남구 카페").status_code for _ in range(3)] == [200, 200, 429]
    assert classic(simulator, "강남구 카페").json()["errorCode"] == "010"
    assert [hub(simulator, "강남구 카페").status_code for _ in range(3)] == [200, 200, 429]
    assert hub(simulator, "강남구 카페").json()["error"]["errorCode"] == "400"
    simulator.advance_clock(seconds=660)
    assert classic(simulator, "강남구 카페").status_code == 200


def test_the_reset_can_come_later_than_midnight(simulator: Simulator) -> None:
    simulator.set_clock("2026-11-02T23:50:00+09:00")
    simulator.configure(daily_quota=1, quota_reset_delay_seconds=1800)
    assert classic(simulator, "강남구 카페").status_code == 200
    simulator.advance_clock(seconds=1200)
    assert classic(simulator, "강남구 카페").status_code == 429
    simulator.advance_clock(seconds=1200)
    assert classic(simulator, "강남구 카페").status_code == 200


def test_the_hub_has_a_monthly_quota_besides(simulator: Simulator) -> None:
    simulator.set_clock("2026-11-29T12:00:00+09:00")
    simulator.configure(monthly_quota=1)
    assert [hub(simulator, "강남구 카페").status_code for _ in range(2)] == [200, 429]
    simulator.advance_clock(seconds=86_400)
    assert hub(simulator, "강남구 카페").status_code == 429
    simulator.advance_clock(seconds=86_400)
    assert hub(simulator, "강남구 카페").status_code == 200


@pytest.mark.parametrize(("refused_calls_count", "used"), [(False, 1), (True, 3)])
def test_refused_calls_count_against_the_quota_only_if_told_so(
    simulator: Simulator, refused_calls_count: bool, used: int
) -> None:
    simulator.configure(
        calls_per_second=1, daily_quota=100, refused_calls_count=refused_calls_count
    )
    for _ in range(3):
        classic(simulator, "강남구 카페")
    (counted,) = simulator.stats()["quota_used"].values()
    assert counted == used


def test_a_dong_narrows_a_search_to_its_own_places(simulator: Simulator) -> None:
    simulator.configure(stray_share=0, place_name_share=0, katech_share=0)
    wide = {identity(item) for item in items(simulator, "서울특별시 강남구 카페")}
    narrow = items(simulator, "서울특별시 강남구 역삼동 카페")
    assert len(narrow) == 5
    assert all(item["address"].startswith("서울특별시 강남구 역삼동 ") for item in narrow)
    assert len({identity(item) for item in narrow} - wide) >= 3


def test_the_second_sort_order_shows_other_places(simulator: Simulator) -> None:
    by_accuracy = {
        identity(item) for item in items(simulator, "서울특별시 마포구 카페", sort="random")
    }
    by_reviews = {
        identity(item) for item in items(simulator, "서울특별시 마포구 카페", sort="comment")
    }
    assert len(by_reviews - by_accuracy) >= 3


def test_a_partial_name_means_every_region_that_bears_it(simulator: Simulator) -> None:
    keywords = ("카페", "음식점", "헬스장", "서점", "요가")
    found = [
        item["address"] for keyword in keywords for item in items(simulator, f"중구 {keyword}")
    ]
    assert len({address.split()[0] for address in found if " 중구 " in address}) >= 3


def test_unknown_words_find_nothing(simulator: Simulator) -> None:
    body = classic(simulator, "서울특별시 강남구 우주정거장").json()
    assert (body["total"], body["items"]) == (0, [])


def test_any_word_of_a_title_or_category_finds(simulator: Simulator) -> None:
    assert all(
        "치과" in item["category"] + item["title"]
        for item in items(simulator, "서울특별시 서초구 치과")
    )
    assert items(simulator, "경기도 수원시 장안구 국밥")


def test_the_base_plan_finds_more_than_ten_thousand_places(
    base_plan: dict[tuple[str, str], list[Item]],
) -> None:
    distinct = {
        identity(item) for found in base_plan.values() for item in found if is_business(item)
    }
    full = sum(len(found) == 5 for found in base_plan.values())
    assert len(base_plan) == 256 * 15
    assert len(distinct) > 10_000
    assert 0.35 < full / len(base_plan) < 0.85


def test_rare_keywords_run_out_where_common_ones_do_not(
    base_plan: dict[tuple[str, str], list[Item]],
) -> None:
    full = Counter(keyword for (_, keyword), found in base_plan.items() if len(found) == 5)
    assert full["카페"] > 240
    assert full["미술관"] < 40


def test_quirks_have_their_shares(base_plan: dict[tuple[str, str], list[Item]]) -> None:
    pairs = [(name, item) for (name, _), found in base_plan.items() for item in found]
    strays = sum(not item["address"].startswith(name) for name, item in pairs)
    everything = [item for _, item in pairs]
    count = len(everything)
    assert 0.01 < strays / count < 0.06
    assert (
        0.002
        < sum(len(item["mapx"]) == len(item["mapy"]) == 6 for item in everything) / count
        < 0.015
    )
    assert 0.003 < sum(item["category"].startswith("지명") for item in everything) / count < 0.02
    assert 0.02 < sum(item["roadAddress"] == "" for item in everything) / count < 0.12
    assert 0.2 < sum(item["link"] != "" for item in everything) / count < 0.6
    assert any("&amp;" in item["title"] for item in everything)
    assert {item["telephone"] + item["description"] for item in everything} == {""}
    assert {item["category"].count(">") for item in everything} >= {1, 2}


def test_sejong_has_no_sigungu_and_sometimes_its_name_twice(
    base_plan: dict[tuple[str, str], list[Item]],
) -> None:
    sejong = [
        item["address"]
        for (name, _), found in base_plan.items()
        if name == "세종특별자치시"
        for item in found
        if is_business(item) and item["address"].startswith(name)
    ]
    assert any(re.match(r"세종특별자치시 \S+[동리읍면] ", address) for address in sejong)
    assert any(address.startswith("세종특별자치시 세종특별자치시 ") for address in sejong)


def test_an_answer_is_found_in_the_truth_but_never_names_its_id(simulator: Simulator) -> None:
    truth = {
        (place["title"], round(place["lng"] * 10**7)): place
        for place in simulator.universe("1168000000")
    }
    answers = [
        item
        for item in items(simulator, "서울특별시 강남구 갤러리")
        if " 강남구 " in item["address"]
    ]
    places = [truth[identity(item)[0], int(item["mapx"])] for item in answers if is_business(item)]
    assert places
    assert {place["region"] for place in places} == {"11680"}
    assert not any(
        place["id"] in classic(simulator, "서울특별시 강남구 갤러리").text for place in places
    )


def test_a_building_holds_several_shops_and_a_chain_many_buildings(simulator: Simulator) -> None:
    places = simulator.universe("11680")
    at = Counter((place["lat"], place["lng"]) for place in places)
    assert sum(count > 1 for count in at.values()) > 500
    assert len({(place["title"], place["lat"], place["lng"]) for place in places}) == len(places)
    assert Counter(place["title"] for place in places).most_common(1)[0][1] > 1


def test_regions_are_long_tailed(simulator: Simulator) -> None:
    counts = simulator.universe()
    assert len(counts) == 256
    assert 120_000 < sum(counts.values()) < 160_000
    assert counts["11680"] > 3_000
    assert counts["47940"] < 100


def test_two_processes_make_the_same_country(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0" if os.environ.get("PYTHONHASHSEED") == "1" else "1")
    queries = [f"부산광역시 {name} {word}" for name in ("중구", "해운대구") for word in KEYWORDS]
    with running(SimulatorConfig(calls_per_second=None)) as other:
        assert [items(other, query) for query in queries] == [
            items(simulator, query) for query in queries
        ]
    with running(SimulatorConfig(calls_per_second=None, seed=2)) as another:
        assert items(another, queries[0]) != items(simulator, queries[0])


def test_later_rounds_drift_but_titles_lots_and_coordinates_stay(simulator: Simulator) -> None:
    queries = [
        f"서울특별시 {name} {word}" for name in ("강남구", "마포구", "종로구") for word in KEYWORDS
    ]
    before = {
        identity(item): item
        for query in queries
        for item in items(simulator, query)
        if is_business(item)
    }
    rank_before = [identity(item) for query in queries for item in items(simulator, query)]
    simulator.configure(round=3)
    after = {
        identity(item): item
        for query in queries
        for item in items(simulator, query)
        if is_business(item)
    }
    assert rank_before != [identity(item) for query in queries for item in items(simulator, query)]
    both = before.keys() & after.keys()
    assert len(both) > len(before) * 0.6
    assert all(after[key]["address"].startswith(before[key]["address"]) for key in both)
    assert any(after[key]["address"] != before[key]["address"] for key in both)
    assert any(after[key]["roadAddress"] != before[key]["roadAddress"] for key in both)


def test_places_follow_their_dongs_when_a_district_is_split(simulator: Simulator) -> None:
    whole = simulator.universe()["11680"]
    parts = [
        {"code": "1168100000", "name": "서울특별시 동강구", "dongs": ["역삼동", "대치동"]},
        {"code": "1168300000", "name": "서울특별시 서강구"},
    ]
    simulator.configure(region_edits=[{"op": "split", "code": "1168000000", "into": parts}])
    counts = simulator.universe()
    assert "11680" not in counts
    assert counts["11681"] + counts["11683"] == whole
    addresses = [item["address"] for item in items(simulator, "서울특별시 동강구 헬스장")]
    assert any(
        address.startswith(("서울특별시 동강구 역삼동", "서울특별시 동강구 대치동"))
        for address in addresses
    )
    assert not any(address.startswith("서울특별시 강남구") for address in addresses)


def test_a_dong_of_the_same_name_elsewhere_leaks_in(simulator: Simulator) -> None:
    simulator.configure(stray_share=1)
    found = [
        item["address"]
        for word in KEYWORDS
        for item in items(simulator, f"부산광역시 해운대구 중동 {word}")
    ]
    strays = [address for address in found if not address.startswith("부산광역시 해운대구")]
    assert strays
    assert all(" 중동" in address for address in strays)


def test_a_new_region_list_moves_the_places_under_its_names(simulator: Simulator) -> None:
    before = {
        identity(item) for item in items(simulator, "서울특별시 강남구 갤러리") if is_business(item)
    }
    simulator.configure(
        region_edits=[
            {"op": "recode", "code": "1168000000", "to": "1199900000", "name": "서울특별시 새남구"}
        ]
    )
    moved = [item for item in items(simulator, "서울특별시 새남구 갤러리") if is_business(item)]
    assert any(item["address"].startswith("서울특별시 새남구 ") for item in moved)
    assert simulator.universe()["11999"] > 3_000
    assert before & {identity(item) for item in moved}
