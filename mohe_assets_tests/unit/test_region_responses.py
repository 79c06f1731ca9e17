import json
from datetime import datetime
from typing import Any

import pytest

from mohe_assets.clients.exchange import Response
from mohe_assets.clients.region_responses import RegionPage, read_page
from mohe_assets.domain.kst import KST
from mohe_assets.errors import (
    AnswerChanged,
    ApiBlocked,
    ApiError,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    TransientApiError,
    UnusableAnswer,
)

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=KST)
ROW = {
    "region_cd": "1168000000",
    "locatadd_nm": "서울특별시 강남구 ",
    "locat_order": 2,
    "locat_rm": " ",
}
NO_DATA = {"RESULT": {"resultCode": "INFO-3", "resultMsg": "데이터없음 에러"}}
BILLION_LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    b"<RESULT>&b;</RESULT>"
)


def page(code: str = "INFO-0", total: object = 20560, rows: object = (ROW,)) -> dict[str, Any]:
    head = [
        {"totalCount": total},
        {"numOfRows": "1000", "pageNo": "1", "type": "JSON"},
        {"RESULT": {"resultCode": code, "resultMsg": "NOMAL SERVICE"}},
    ]
    return {
        "StanReginCd": [{"head": head}, {"row": list(rows) if isinstance(rows, tuple) else rows}]
    }


def gateway(code: object, words: str = "SERVICE_KEY_IS_NOT_REGISTERED_ERROR") -> dict[str, Any]:
    header = {"errMsg": words, "returnAuthMsg": "등록되지 않은 서비스키", "returnReasonCode": code}
    return {"OpenAPI_ServiceResponse": {"cmmMsgHeader": header}}


def as_xml(code: str, message: str, reason: str) -> bytes:
    return f"""<OpenAPI_ServiceResponse>
  <cmmMsgHeader><errMsg>{message}</errMsg><returnAuthMsg>{reason}</returnAuthMsg>
  <returnReasonCode>{code}</returnReasonCode></cmmMsgHeader></OpenAPI_ServiceResponse>""".encode()


def read(status: int, body: object) -> RegionPage:
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return read_page(Response(status=status, body=raw), now=NOON)


def error_of(status: int, body: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(status, body)
    return caught.value


def test_a_page_is_its_total_and_its_rows() -> None:
    assert read(200, page()) == RegionPage(total_count=20560, rows=(ROW,))
    assert read(200, page(total="20560")).total_count == 20560


def test_a_page_that_comes_as_xml_although_json_was_asked_is_read() -> None:
    row = (
        "<row><region_cd>1168000000</region_cd><locatadd_nm>서울특별시 "
        "강남구</locatadd_nm><adpt_de/></row>"
    )
    head = "<head><totalCount>1</totalCount><RESULT><resultCode>INFO-0</resultCode></RESULT></head>"
    body = f'<?xml version="1.0" encoding="UTF-8"?><StanReginCd>{head}{row}</StanReginCd>'.encode()
    expected = {"region_cd": "1168000000", "locatadd_nm": "서울특별시 강남구", "adpt_de": None}
    assert read(200, body) == RegionPage(total_count=1, rows=(expected,))


@pytest.mark.parametrize(
    "body", [NO_DATA, page("INFO-200"), b"<RESULT><resultCode>INFO-3</resultCode></RESULT>"]
)
def test_no_data_is_a_page_without_rows_which_the_download_must_judge(body: object) -> None:
    assert read(200, body) == RegionPage(total_count=0, rows=())


PERMANENT = ["20", "21", "29", "30", "31", "32", "33"]


@pytest.mark.parametrize("code", PERMANENT)
@pytest.mark.parametrize("status", [200, 403])
def test_a_refused_key_names_its_variable_in_every_envelope(code: str, status: int) -> None:
    bodies = [
        gateway(code),
        gateway(int(code)),
        as_xml(code, "SERVICE_KEY_IS_NOT_REGISTERED_ERROR", "등록되지 않은 서비스키"),
        b'<?xml version="1.0" encoding="UTF-8"?>'
        + as_xml(code, "SERVICE ERROR", "SERVICE_KEY_IS_NOT_REGISTERED_ERROR"),
    ]
    for body in bodies:
        error = error_of(status, body)
        assert isinstance(error, ApiBlocked)
        assert error.variables == ("GOVT_API_KEY",)
        assert "GOVT_API_KEY" in str(error)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, b"Unauthorized"),
        (403, b"Forbidden"),
        (404, b"API not found\n"),
        (401, b""),
        (401, b"{}"),
    ],
)
def test_a_refusal_in_plain_words_is_a_refused_key(status: int, text: bytes) -> None:
    assert type(error_of(status, text)) is ApiBlocked


@pytest.mark.parametrize("code", ["INFO-300", "ERROR-290", "ERROR-310"])
def test_a_refused_key_is_known_by_its_result_code_too(code: str) -> None:
    assert (
        type(error_of(200, {"RESULT": {"resultCode": code, "resultMsg": "인증키"}})) is ApiBlocked
    )
    assert type(error_of(200, page(code))) is ApiBlocked


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, gateway("22")),
        (200, as_xml("22", "SERVICE ERROR", "LIMITED_NUMBER_OF_SERVICE_REQUESTS_EXCEEDS_ERROR")),
        (200, {"RESULT": {"resultCode": "ERROR-337"}}),
        (429, b"API token quota exceeded"),
    ],
)
def test_a_spent_quota_stops_until_the_next_korean_midnight(status: int, body: object) -> None:
    error = error_of(status, body)
    assert isinstance(error, QuotaExhausted)
    assert error.reset_at == datetime(2026, 11, 4, tzinfo=KST)


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, gateway("23")), (429, b"API rate limit exceeded"), (429, b""), (429, b"<html>")],
)
def test_too_many_calls_a_second_slow_down_for_a_second_at_least(status: int, body: object) -> None:
    error = error_of(status, body)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 1.0


@pytest.mark.parametrize("code", ["1", "01", 1, "2", "4", "05", "10", "12", "99"])
def test_trouble_on_their_side_is_worth_another_try(code: object) -> None:
    assert type(error_of(200, gateway(code, "APPLICATION_ERROR"))) is TransientApiError


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"RESULT": {"resultCode": "ERROR-500"}}),
        (200, {"RESULT": {"resultCode": "ERROR-600"}}),
        (502, b"Error forwarding request to backend server"),
        (500, b"Unexpected errors"),
        (200, b""),
        (200, b"\r\n"),
        (200, b"<!DOCTYPE html><html><body>check</body></html>"),
        (200, b'<?xml version="1.0"?><!DOCTYPE html><html><head/></html>'),
        (200, b"<p>not closed"),
        (200, json.dumps(page()).encode()[:-9]),
        (200, as_xml("30", "SERVICE ERROR", "X")[:-9]),
        (200, BILLION_LAUGHS),
        (503, page()),
        (503, {"status": 503}),
        (302, b""),
        (403, b"<html>blocked</html>"),
    ],
)
def test_an_answer_that_is_none_is_worth_another_try(status: int, body: object) -> None:
    assert isinstance(error_of(status, body), TransientApiError)


@pytest.mark.parametrize("code", ["11", "ERROR-333", "ERROR-336"])
def test_a_request_they_do_not_take_is_refused_as_such(code: str) -> None:
    error = error_of(200, {"RESULT": {"resultCode": code}})
    assert type(error) is RequestRefused
    assert error.signature == f"gateway-{code}"
    assert "15077871" in error.advice


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"StanReginCd": []},
        page("INFO-1"),
        page(total=None),
        page(total=-1),
        page(rows={}),
        page(rows=[1]),
    ],
)
def test_another_shape_is_a_changed_answer_and_never_an_empty_page(body: object) -> None:
    assert type(error_of(200, body)) is AnswerChanged


@pytest.mark.parametrize("field", ["resultCode", "resultMsg"])
def test_a_deep_tree_instead_of_a_word_is_an_error_of_the_api_like_another(field: str) -> None:
    deep = b"<a>" * 50_000 + b"</a>" * 50_000
    with pytest.raises(ApiError) as refused:
        read(200, b"<RESULT><%s>%s</%s></RESULT>" % (field.encode(), deep, field.encode()))
    assert len(str(refused.value)) < 500


def test_control_characters_of_an_answer_are_in_no_message() -> None:
    with pytest.raises(ApiError) as refused:
        read(
            200,
            {
                "RESULT": {
                    "resultCode": "\x1b[31m\u202e9",
                    "resultMsg": "a\x1b]8;;http://x\x07b\x7f",
                }
            },
        )
    assert str(refused.value).isprintable()


def test_a_page_with_bytes_that_are_not_utf_8_is_unusable() -> None:
    body = json.dumps(page(), ensure_ascii=False).encode()
    error = error_of(200, body.replace("강남".encode(), b"\xed\xa0\x80"))
    assert type(error) is UnusableAnswer
    assert error.signature == "bytes"


def test_a_page_may_say_info_000() -> None:
    assert read(200, page("INFO-000")).total_count == 20560


def test_a_new_key_may_take_an_hour() -> None:
    error = error_of(403, gateway("30"))
    assert "approved within the last hour" in str(error)
    assert "15077871" in str(error)
