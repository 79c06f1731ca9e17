"""The simulated region list behaves as the real one was recorded, over a socket."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import requests

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator, running

KEY = "demo-govt-key+/=="
PATH = "/1741000/StanReginCd/getStanReginCdList"
BARE_NO_DATA = {"RESULT": {"resultCode": "INFO-3", "resultMsg": "데이터없음 에러"}}
UNEDITED = {
    "region_edits": [],
    "region_short_by": 0,
    "region_duplicates": 0,
    "region_totals_disagree": False,
}

Row = dict[str, Any]


@pytest.fixture(scope="module")
def process() -> Iterator[Simulator]:
    with running(SimulatorConfig(calls_per_second=None, region_calls_per_second=None)) as simulator:
        yield simulator


@pytest.fixture
def simulator(process: Simulator) -> Simulator:
    process.reset()
    process.configure(**UNEDITED, region_calls_per_second=None, region_daily_quota=10_000)
    return process


@pytest.fixture(scope="module")
def rows(process: Simulator) -> list[Row]:
    process.configure(**UNEDITED)
    return whole_list(process)


def ask(simulator: Simulator, **parameters: Any) -> requests.Response:
    asked = {"ServiceKey": KEY, "type": "json", **parameters}
    return requests.get(simulator.url + PATH, params=asked, timeout=10)


def page(simulator: Simulator, number: int) -> tuple[int, list[Row]]:
    head, rows = ask(simulator, pageNo=number, numOfRows=1000).json()["StanReginCd"]
    return head["head"][0]["totalCount"], rows["row"]


def whole_list(simulator: Simulator) -> list[Row]:
    return [row for number in range(1, 22) for row in page(simulator, number)[1]]


def names(simulator: Simulator, part: str) -> dict[str, str]:
    answer = ask(simulator, locatadd_nm=part, numOfRows=1000).json()
    if "RESULT" in answer:
        return {}
    return {row["region_cd"]: row["locatadd_nm"].strip() for row in answer["StanReginCd"][1]["row"]}


def test_the_whole_list_is_20560_rows_on_21_pages(rows: list[Row]) -> None:
    assert len(rows) == 20_560
    assert len({row["region_cd"] for row in rows}) == 20_560


def test_it_has_15_sido_269_sigungu_and_256_leaves(rows: list[Row]) -> None:
    sido = [row for row in rows if row["sgg_cd"] == "000"]
    sigungu = [
        row["locatadd_nm"].strip()
        for row in rows
        if row["sgg_cd"] != "000" and row["umd_cd"] == "000"
    ]
    parents = [name for name in sigungu if any(other.startswith(f"{name} ") for other in sigungu)]
    assert (len(sido), len(sigungu), len(parents)) == (15, 269, 13)


def test_a_success_has_three_head_objects_and_says_that_it_is_html(simulator: Simulator) -> None:
    answer = ask(simulator, pageNo=2, numOfRows=3)
    assert answer.headers["content-type"] == "text/html;charset=UTF-8"
    assert answer.json()["StanReginCd"][0] == {
        "head": [
            {"totalCount": 20560},
            {"numOfRows": "3", "pageNo": "2", "type": "JSON"},
            {"RESULT": {"resultCode": "INFO-0", "resultMsg": "NOMAL SERVICE"}},
        ]
    }


def test_a_sigungu_row_has_the_recorded_fields(rows: list[Row]) -> None:
    gangnam = next(row for row in rows if row["region_cd"] == "1168000000")
    assert {
        name: gangnam[name] for name in ("sido_cd", "sgg_cd", "umd_cd", "ri_cd", "locallow_nm")
    } == {
        "sido_cd": "11",
        "sgg_cd": "680",
        "umd_cd": "000",
        "ri_cd": "00",
        "locallow_nm": "강남구",
    }
    assert gangnam["locathigh_cd"] == "1100000000"
    assert len(gangnam) == 13


def test_all_values_are_strings_but_the_order(rows: list[Row]) -> None:
    assert {name for row in rows for name, value in row.items() if not isinstance(value, str)} == {
        "locat_order"
    }


def test_some_names_end_in_a_space_and_some_fields_are_one_space(rows: list[Row]) -> None:
    assert 100 < sum(row["locatadd_nm"].endswith(" ") for row in rows) < 2_000
    assert any(row["locat_rm"] == " " for row in rows)
    assert any(row["locathigh_cd"] == " " for row in rows)


def test_a_general_gu_points_at_its_sido_and_not_at_its_city(rows: list[Row]) -> None:
    assert (
        next(row for row in rows if row["region_cd"] == "4127100000")["locathigh_cd"]
        == "4100000000"
    )


def test_sejong_is_one_sigungu_row_without_a_sido(rows: list[Row]) -> None:
    sejong = [row["region_cd"] for row in rows if row["locatadd_nm"].strip() == "세종특별자치시"]
    assert sejong == ["3611000000"]


def test_a_ri_stands_below_its_eup(rows: list[Row]) -> None:
    codes = {row["locatadd_nm"].strip(): row["region_cd"] for row in rows}
    eup = codes["전남광주통합특별시 여수시 돌산읍"]
    ri = codes["전남광주통합특별시 여수시 돌산읍 군내리"]
    assert eup[8:] == "00"
    assert ri[:8] == eup[:8]
    assert ri[8:] != "00"


def test_levels_add_up(rows: list[Row]) -> None:
    levels = Counter(
        "ri" if row["ri_cd"] != "00" else "umd" if row["umd_cd"] != "000" else "top" for row in rows
    )
    assert levels == {"ri": 15_209, "umd": 5_067, "top": 284}


def test_xml_and_ten_rows_are_the_defaults(simulator: Simulator) -> None:
    answer = requests.get(simulator.url + PATH, params={"serviceKey": KEY}, timeout=10)
    root = ET.fromstring(answer.content)  # noqa: S314 - our own process wrote it
    as_json = ask(simulator).json()["StanReginCd"][1]["row"]
    as_xml = [{field.tag: field.text or "" for field in row} for row in root.findall("row")]
    assert root.findtext("head/totalCount") == "20560"
    assert root.findtext("head/RESULT/resultMsg") == "NOMAL SERVICE"
    assert as_xml == [{name: str(value) for name, value in row.items()} for row in as_json]
    assert len(as_xml) == 10


def test_a_page_past_the_end_answers_bare_info_3(simulator: Simulator) -> None:
    assert ask(simulator, pageNo=22, numOfRows=1000).json() == BARE_NO_DATA
    assert ask(simulator, locatadd_nm="없는곳").json() == BARE_NO_DATA


def test_an_unknown_path_is_no_api(simulator: Simulator) -> None:
    answer = requests.get(f"{simulator.url}/1741000/StanReginCd/nothing", timeout=10)
    assert (answer.status_code, answer.text) == (404, "API not found")


def test_names_match_by_substring(simulator: Simulator) -> None:
    found = names(simulator, "안산").values()
    assert "경기도 안산시" in found
    assert "대전광역시 유성구 안산동" in found


def test_more_than_a_thousand_rows_a_page_are_refused(simulator: Simulator) -> None:
    assert ask(simulator, numOfRows=1001).json()["RESULT"]["resultCode"] == "ERROR-336"
    assert ask(simulator, pageNo="x").json()["RESULT"]["resultCode"] == "ERROR-333"


@pytest.mark.parametrize("key", ["wrong", "", "demo-govt-key%2B%2F%3D%3D"])
def test_a_wrong_key_answers_the_gateways_envelope_with_403(simulator: Simulator, key: str) -> None:
    answer = ask(simulator, ServiceKey=key)
    header = answer.json()["OpenAPI_ServiceResponse"]["cmmMsgHeader"]
    assert answer.status_code == 403
    assert header["errMsg"] == "SERVICE_KEY_IS_NOT_REGISTERED_ERROR"
    assert header["returnReasonCode"] == "30"


def test_a_key_whose_plus_was_not_encoded_is_wrong(simulator: Simulator) -> None:
    assert (
        requests.get(f"{simulator.url}{PATH}?serviceKey={KEY}&type=json", timeout=10).status_code
        == 403
    )


def test_a_wrong_key_asked_for_xml_answers_the_same_as_xml(simulator: Simulator) -> None:
    root = ET.fromstring(ask(simulator, ServiceKey="wrong", type="xml").content)  # noqa: S314 - as above
    assert root.findtext("cmmMsgHeader/returnReasonCode") == "30"


def test_the_thirty_first_call_within_a_second_is_refused_in_plain_text(
    simulator: Simulator,
) -> None:
    simulator.configure(region_calls_per_second=30)
    with requests.Session() as session:
        asked = {"ServiceKey": KEY, "type": "json"}
        answers = [session.get(simulator.url + PATH, params=asked, timeout=10) for _ in range(60)]
    statuses = [answer.status_code for answer in answers]
    refused = statuses.index(429)
    assert statuses[:30] == [200] * 30
    assert answers[refused].text == "API rate limit exceeded"


def test_the_days_quota_ends_in_plain_text_and_returns_at_midnight(simulator: Simulator) -> None:
    simulator.set_clock("2026-11-02T23:59:00+09:00")
    simulator.configure(region_daily_quota=1)
    assert ask(simulator).status_code == 200
    assert (ask(simulator).status_code, ask(simulator).text) == (429, "API token quota exceeded")
    simulator.advance_clock(seconds=120)
    assert ask(simulator).status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ("unauthorized", 401, "Unauthorized"),
        ("forbidden", 403, "Forbidden"),
        ("not_found", 404, "API not found"),
        ("bad_gateway", 502, "Error forwarding request to backend server"),
        ("rate", 429, "API rate limit exceeded"),
        ("quota", 429, "API token quota exceeded"),
        ("unexpected", 500, "Unexpected errors"),
        ("blank", 200, ""),
    ],
)
def test_plain_text_refusals_can_be_scripted(
    simulator: Simulator, fault: str, status: int, text: str
) -> None:
    simulator.add_faults([{"api": "regions", "fault": fault}])
    answer = ask(simulator)
    assert (answer.status_code, answer.text) == (status, text)


def test_each_envelope_can_be_scripted_with_its_code(simulator: Simulator) -> None:
    faults = ("gateway_json", "gateway_xml", "legacy_xml")
    simulator.add_faults(
        [{"api": "regions", "fault": fault, "code": "22", "times": 1} for fault in faults]
    )
    as_json, as_xml, legacy = ask(simulator), ask(simulator), ask(simulator)
    assert as_json.json()["OpenAPI_ServiceResponse"]["cmmMsgHeader"]["returnReasonCode"] == "22"
    assert as_xml.text.startswith("<OpenAPI_ServiceResponse>")
    assert legacy.status_code == 200
    assert "<errMsg>SERVICE ERROR</errMsg>" in legacy.text
    assert (
        "<returnAuthMsg>LIMITED_NUMBER_OF_SERVICE_REQUESTS_EXCEEDS_ERROR</returnAuthMsg>"
        in legacy.text
    )


def test_a_result_code_can_be_scripted_for_one_page(simulator: Simulator) -> None:
    simulator.add_faults([{"api": "regions", "fault": "result", "code": "INFO-300", "page": 2}])
    assert ask(simulator, pageNo=2).json()["RESULT"]["resultCode"] == "INFO-300"
    assert "StanReginCd" in ask(simulator, pageNo=1).json()


def test_a_cut_off_answer_is_no_json(simulator: Simulator) -> None:
    simulator.add_faults([{"api": "regions", "fault": "garbage"}])
    with pytest.raises(json.JSONDecodeError):
        json.loads(ask(simulator).text)


def test_a_short_table_still_claims_every_row(simulator: Simulator) -> None:
    simulator.configure(region_short_by=100)
    total, rows = page(simulator, 21)
    assert (total, len(rows)) == (20_560, 460)


def test_totals_can_disagree_between_pages(simulator: Simulator) -> None:
    simulator.configure(region_totals_disagree=True)
    assert [page(simulator, number)[0] for number in (1, 2, 3)] == [20_560, 20_559, 20_560]


def test_rows_can_be_served_twice_while_the_count_is_right(simulator: Simulator) -> None:
    simulator.configure(region_duplicates=7)
    codes = [row["region_cd"] for row in whole_list(simulator)]
    assert (len(codes), len(set(codes))) == (20_560, 20_553)


def test_a_renamed_city_renames_its_districts_and_dongs(simulator: Simulator) -> None:
    simulator.configure(
        region_edits=[{"op": "rename", "code": "4111000000", "name": "경기도 화홍시"}]
    )
    assert names(simulator, "수원시") == {}
    assert names(simulator, "화홍시")["4111100000"] == "경기도 화홍시 장안구"


def test_a_recoded_province_takes_everything_below_along(simulator: Simulator) -> None:
    edit = {"op": "recode", "code": "5200000000", "to": "5300000000", "name": "전북도"}
    simulator.configure(region_edits=[edit])
    found = names(simulator, "전북도 전주시 완산구")
    assert found["5311100000"] == "전북도 전주시 완산구"
    assert all(code.startswith("53") for code in found)


def test_merged_districts_keep_their_dongs_under_new_codes(simulator: Simulator) -> None:
    before = len(names(simulator, "서울특별시 종로구")) + len(names(simulator, "서울특별시 중구"))
    merge = {
        "op": "merge",
        "codes": ["1111000000", "1114000000"],
        "to": "1199000000",
        "name": "서울특별시 한양구",
    }
    simulator.configure(region_edits=[merge])
    merged = names(simulator, "서울특별시 한양구")
    assert len(merged) == before - 1
    assert names(simulator, "서울특별시 종로구") == {}
    assert all(code.startswith("11990") for code in merged)


def test_a_district_can_be_split_dropped_or_added(simulator: Simulator) -> None:
    parts = [
        {"code": "1168100000", "name": "서울특별시 강남구 동구", "dongs": ["역삼동"]},
        {"code": "1168300000", "name": "서울특별시 강남구 서구"},
    ]
    edits = [
        {"op": "split", "code": "1168000000", "into": parts},
        {"op": "drop", "code": "4794000000"},
        {"op": "add", "code": "1199000000", "name": "서울특별시 한강구"},
    ]
    simulator.configure(region_edits=edits)
    assert "서울특별시 강남구 동구 역삼동" in names(simulator, "역삼동").values()
    assert names(simulator, "울릉군") == {}
    assert names(simulator, "한강구") == {"1199000000": "서울특별시 한강구"}


def test_an_edit_that_cannot_be_applied_changes_nothing(simulator: Simulator) -> None:
    with pytest.raises(ValueError, match="cannot be applied"):
        simulator.configure(region_edits=[{"op": "drop", "code": "9999900000"}])
    assert page(simulator, 1)[0] == 20_560
