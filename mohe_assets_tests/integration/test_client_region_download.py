"""The rules by which a download of the region list is believed."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mohe_assets.clients.http import RetryPolicy
from mohe_assets.clients.region_api import RawRegionRow, RegionApiClient, RegionListDownload
from mohe_assets.errors import AnswerChanged, QuotaExhausted, TransientApiError
from mohe_assets_tests.support.scripted_server import RecordingGate, ScriptedServer, Step, reply
from mohe_assets_tests.support.searches import no_wait

NO_DATA = reply('{"RESULT":{"resultCode":"INFO-3","resultMsg":"데이터없음 에러"}}'.encode())


def row(number: int, **changes: object) -> dict[str, object]:
    code = f"11{number:08d}"
    parts = {"sido_cd": code[:2], "sgg_cd": code[2:5], "umd_cd": code[5:8], "ri_cd": code[8:]}
    return {
        "region_cd": code,
        **parts,
        "locatadd_nm": f"서울특별시 {number} ",
        "locat_order": 2,
        **changes,
    }


def page(rows: list[Any], total: object) -> Step:
    head = [
        {"totalCount": total},
        {"RESULT": {"resultCode": "INFO-0", "resultMsg": "NOMAL SERVICE"}},
    ]
    body = {"StanReginCd": [{"head": head}, {"row": rows}]}
    return reply(json.dumps(body).encode(), 200, "Content-Type: text/html")


def rows(first: int, last: int) -> list[dict[str, object]]:
    return [row(number) for number in range(first, last)]


def whole(total: int) -> list[Step]:
    return [page(rows(start, min(start + 1000, total)), total) for start in range(0, total, 1000)]


def download(
    server: ScriptedServer, rate_limiter: RecordingGate | None = None
) -> RegionListDownload:
    policy = RetryPolicy(attempts=2, sleep=no_wait)
    client = RegionApiClient(
        base_url=server.url,
        service_key="a-key",
        rate_limiter=rate_limiter or RecordingGate(),
        retry=policy,
    )
    return client.download()


def test_every_page_is_fetched_once_and_each_call_asks_the_gate() -> None:
    rate_limiter = RecordingGate()
    with ScriptedServer(*whole(2_500)) as server:
        found = download(server, rate_limiter)
    assert (len(found.rows), found.total_count, found.calls) == (2_500, 2_500, 3)
    assert rate_limiter.events == ["reserve", "answered"] * 3
    asked = [parse_qs(urlsplit(request.split()[1]).query) for request in server.requests]
    assert [query["pageNo"] for query in asked] == [["1"], ["2"], ["3"]]
    assert all(query["type"] == ["json"] and query["numOfRows"] == ["1000"] for query in asked)


def test_values_are_stripped_and_missing_optional_ones_are_empty() -> None:
    full = row(0, locat_order="7", locathigh_cd=" ", locallow_nm="강남구", adpt_de="", locat_rm=" ")
    with ScriptedServer(page([full, row(1, locat_order=None)], 2)) as server:
        first, second = download(server).rows
    assert first == RawRegionRow(
        region_cd="1100000000",
        sido_cd="11",
        sgg_cd="000",
        umd_cd="000",
        ri_cd="00",
        locatadd_nm="서울특별시 0",
        locat_order=7,
        locathigh_cd="",
        locallow_nm="강남구",
        adpt_de="",
    )
    assert (second.locat_order, second.locallow_nm) == (None, "")


CHANGED_MIDWAY: dict[str, list[Step]] = {
    "the totals disagree": [page(rows(0, 1000), 1001), page(rows(1000, 1001), 1002)],
    "rows are missing": [page(rows(0, 1000), 1002), page(rows(1000, 1001), 1002)],
    "there are too many rows": [page(rows(0, 1000), 1001), page(rows(1000, 1002), 1001)],
    "a code came twice": [page(rows(0, 1000), 1001), page(rows(999, 1000), 1001)],
    "the second page is gone": [page(rows(0, 1000), 1001), NO_DATA],
}


@pytest.mark.parametrize("case", CHANGED_MIDWAY)
def test_a_list_that_changed_midway_is_fetched_again_as_a_whole(case: str) -> None:
    with ScriptedServer(*CHANGED_MIDWAY[case], *whole(1_001)) as server:
        found = download(server)
    assert (len(found.rows), found.calls) == (1_001, 4)


@pytest.mark.parametrize("case", CHANGED_MIDWAY)
def test_a_list_that_never_fits_together_is_refused_with_its_numbers(case: str) -> None:
    with (
        ScriptedServer(*CHANGED_MIDWAY[case] * 2) as server,
        pytest.raises(AnswerChanged, match=r"1,?00\d") as caught,
    ):
        download(server)
    assert (caught.value.calls, len(server.requests)) == (4, 4)


@pytest.mark.parametrize(
    "answer", [NO_DATA, page([], 0), page([row(0)], 0), page([row(0)], 999_999_999)]
)
def test_an_empty_or_absurd_list_is_a_failed_read(answer: Step) -> None:
    with ScriptedServer(answer) as server, pytest.raises(AnswerChanged) as caught:
        download(server)
    assert caught.value.calls == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"region_cd": "116800000"},
        {"region_cd": ""},
        {"region_cd": None},
        {"region_cd": "11000010٠1"},
        {"sgg_cd": "999"},
        {"sido_cd": "110", "sgg_cd": "00"},
        {"ri_cd": None},
        {"locatadd_nm": " "},
        {"locatadd_nm": {}},
    ],
)
def test_a_row_that_cannot_be_believed_is_named(changes: dict[str, object]) -> None:
    broken = [row(1000), row(1001, **changes)]
    with (
        ScriptedServer(page(rows(0, 1000), 1002), page(broken, 1002)) as server,
        pytest.raises(AnswerChanged, match="page 2, row 2") as caught,
    ):
        download(server)
    assert caught.value.calls == 2


def test_a_page_that_fails_is_tried_again_alone() -> None:
    with ScriptedServer(*whole(2_000)[:1], reply(b""), *whole(2_000)[1:]) as server:
        assert download(server).calls == 3


def test_an_error_on_a_later_page_counts_all_calls_so_far() -> None:
    spent = reply(b"API token quota exceeded", 429)
    with (
        ScriptedServer(*whole(3_000)[:2], spent) as server,
        pytest.raises(QuotaExhausted) as caught,
    ):
        download(server)
    assert caught.value.calls == 3
    with (
        ScriptedServer(*whole(3_000)[:2], reply(b"")) as server,
        pytest.raises(TransientApiError) as failed,
    ):
        download(server)
    assert failed.value.calls == 4
