import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from mohe_assets.clients.exchange import Response
from mohe_assets.clients.response_body import sniff
from mohe_assets.domain.kst import KST
from mohe_assets.errors import (
    AnswerChanged,
    ApiBlocked,
    ApiError,
    BadQuery,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    TransientApiError,
    UnusableAnswer,
)
from mohe_assets.sources.naver_local.client import CLASSIC, HUB, ApiVersion
from mohe_assets.sources.naver_local.responses import read_search

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=KST)
ITEM = {
    "title": "중화요리<b>본가</b>",
    "link": "",
    "category": "중식>중식당",
    "description": "",
    "telephone": "",
    "address": "전북특별자치도 남원시 주천면 장안리 145-1",
    "roadAddress": "",
    "mapx": "1273000000",
    "mapy": "354000000",
}
FOUND = {
    "lastBuildDate": "Tue, 02 Sep 2025 12:39:06 +0900",
    "total": 1,
    "start": 1,
    "display": 1,
    "items": [ITEM],
}
EMPTY = {
    "lastBuildDate": "Tue, 02 Sep 2025 12:39:06 +0900",
    "total": 0,
    "start": 1,
    "display": 0,
    "items": [],
}

RATE_CLASSIC = {
    "errorMessage": "Rate limit exceeded. (속도 제한을 초과했습니다.)",
    "errorCode": "012",
}
QUOTA_CLASSIC = {
    "errorMessage": "Query limit exceeded. (쿼리 한도를 초과했습니다.)",
    "errorCode": "010",
}
KEY_CLASSIC = {"errorMessage": "Scope Status Invalid : Authentication failed.", "errorCode": "024"}
RATE_HUB = {"errorCode": "420", "message": "Rate Limited"}
QUOTA_HUB = {
    "error": {"errorCode": "400", "message": "Quota Exceeded", "details": "Quota Exceeded."}
}
KEY_HUB = {
    "error": {"errorCode": "200", "message": "Authentication Failed", "details": "Invalid key."}
}
KEY_HUB_NUMBER = {"error": {"errorCode": 401, "message": "Unauthorized"}}


def read(
    status: int,
    body: object,
    api_version: ApiVersion = CLASSIC,
    now: datetime = NOON,
    **fields: Any,
) -> dict[str, object]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = Response(status=status, body=raw, **fields)
    return read_search(answer, errors=api_version.errors, now=now)


def fault(code: object, message: str = "Something.") -> dict[str, object]:
    return {"errorMessage": message, "errorCode": code}


def error_of(
    status: int, body: object, api_version: ApiVersion = CLASSIC, **fields: Any
) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(status, body, api_version, **fields)
    assert caught.value.api == api_version.api
    return caught.value


def test_a_search_is_handed_on_as_it_came() -> None:
    assert read(200, FOUND) == FOUND


def test_a_search_without_results_is_an_empty_list_and_no_error() -> None:
    assert read(200, EMPTY)["items"] == []


def test_fields_that_nobody_uses_may_be_missing_or_strings() -> None:
    assert read(200, {"total": "7", "items": [ITEM] * 6})["items"] == [ITEM] * 6


def test_escaped_slashes_and_a_byte_order_mark_are_read() -> None:
    assert read(200, b'\xef\xbb\xbf{"items":[{"title":"<b>a<\\/b>"}]}')["items"] == [
        {"title": "<b>a</b>"}
    ]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (rb'"x\u0000y"', "xy"),
        (rb'"\uD800z"', "z"),
        (rb'"\udfffz"', "z"),
        (b"NaN", None),
        (b"-Infinity", None),
        (b"1e999", None),
        (b"1" * 400 + b".0", None),
        (rb'"\ud83d\ude00 NaN 1e9"', "\U0001f600 NaN 1e9"),
    ],
)
def test_each_thing_that_jsonb_refuses_is_taken_out_by_itself(told: bytes, kept: object) -> None:
    assert sniff(b'{"a":' + told + b"}").value == {"a": kept}


def test_what_jsonb_refuses_is_taken_out() -> None:
    body = (
        rb'{"a\u0000":"x\u0000y\ud800z","n":NaN,"f":1e999,"items":[{"title":"\u0000\ud83d\ude00"}]}'
    )
    assert read(200, body) == {
        "a": "xyz",
        "n": None,
        "f": None,
        "items": [{"title": "\N{GRINNING FACE}"}],
    }


@pytest.mark.parametrize(
    "body", [[], {}, {"items": None}, {"items": {}}, {"total": 0, "display": 0}]
)
def test_a_200_without_a_list_of_objects_is_a_changed_answer_and_never_no_places(
    body: object,
) -> None:
    assert type(error_of(200, body)) is AnswerChanged


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (fault("010"), QuotaExhausted),
        (fault("SE99"), TransientApiError),
        (RATE_HUB, RateLimited),
        (QUOTA_HUB, QuotaExhausted),
        (KEY_HUB, ApiBlocked),
        ({**fault("SE06"), "items": []}, RequestRefused),
        ({"error": {"message": "Internal"}, "items": []}, AnswerChanged),
        ({"error": "Internal", "items": []}, AnswerChanged),
    ],
)
def test_an_error_object_with_http_200_is_that_error(body: object, kind: type[ApiError]) -> None:
    assert type(error_of(200, body)) is kind


@pytest.mark.parametrize("api_version", [CLASSIC, HUB])
@pytest.mark.parametrize(
    "body", [QUOTA_CLASSIC, QUOTA_HUB, fault(10), {"error": fault(400, "Quota Exceeded")}]
)
def test_a_spent_quota_stops_until_the_next_korean_midnight(
    body: object, api_version: ApiVersion
) -> None:
    error = error_of(429, body, api_version)
    assert isinstance(error, QuotaExhausted)
    assert error.reset_at == datetime(2026, 11, 4, tzinfo=KST)


def test_a_quota_refusal_soon_after_midnight_means_that_the_reset_is_late() -> None:
    moments = [
        datetime(2026, 11, 3, hour, minute, tzinfo=KST)
        for hour, minute in [(0, 0), (0, 55), (1, 0)]
    ]
    errors = [error_of(429, QUOTA_CLASSIC, now=moment) for moment in moments]
    waits = [error.reset_at - moment for error, moment in zip(errors, moments, strict=True)]  # type: ignore[attr-defined]
    assert waits == [timedelta(minutes=10), timedelta(minutes=5), timedelta(hours=23)]


@pytest.mark.parametrize("api_version", [CLASSIC, HUB])
@pytest.mark.parametrize(
    "body",
    [
        RATE_CLASSIC,
        RATE_HUB,
        fault(12),
        fault(420),
        {"error": RATE_HUB},
        {},
        [],
        b"",
        b"<html>",
        b"Too many",
    ],
)
def test_too_many_calls_a_second_slow_down_for_a_second_at_least(
    body: object, api_version: ApiVersion
) -> None:
    error = error_of(429, body, api_version)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 1.0


def test_a_longer_wait_that_the_server_asks_for_is_kept() -> None:
    limited, busy = (
        error_of(429, RATE_CLASSIC, retry_after=7.0),
        error_of(503, b"", retry_after=3.0),
    )
    assert isinstance(limited, RateLimited)
    assert isinstance(busy, TransientApiError)
    assert (limited.retry_after, busy.retry_after) == (7.0, 3.0)


@pytest.mark.parametrize(
    "body", [KEY_CLASSIC, KEY_HUB, KEY_HUB_NUMBER, fault(24), {}, b"", b"<html>no</html>"]
)
def test_a_refused_key_names_the_variables_of_its_own_generation(body: object) -> None:
    classic, hub = error_of(401, body), error_of(401, body, HUB)
    assert isinstance(classic, ApiBlocked)
    assert isinstance(hub, ApiBlocked)
    assert classic.variables == ("NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET")
    assert hub.variables == ("NCP_APIGW_API_KEY_ID", "NCP_APIGW_API_KEY")
    assert "NAVER_CLIENT_ID and NAVER_CLIENT_SECRET" in str(classic)


@pytest.mark.parametrize("body", [KEY_CLASSIC, KEY_HUB, fault("403", "Forbidden")])
def test_a_403_with_an_error_of_the_api_is_a_refused_key(body: object) -> None:
    assert type(error_of(403, body)) is ApiBlocked


@pytest.mark.parametrize("body", [b"", b"<html>Access denied</html>", b"Access denied", {}])
def test_a_bare_403_is_somebody_in_between_and_worth_another_try(body: object) -> None:
    assert type(error_of(403, body)) is TransientApiError


def test_a_bad_query_concerns_that_query_only() -> None:
    assert type(error_of(400, fault("SE01"))) is BadQuery
    assert type(error_of(400, {"error": fault("SE01")}, HUB)) is BadQuery


@pytest.mark.parametrize(
    ("status", "code"), [(400, "SE02"), (400, "SE03"), (400, "SE04"), (400, "SE06"), (404, "SE05")]
)
def test_a_refusal_of_our_requests_as_such_advises_the_other_generation(
    status: int, code: str
) -> None:
    error = error_of(status, fault(code))
    assert type(error) is RequestRefused
    assert error.signature == code
    assert f"code {code}" in str(error)
    assert "NCP_APIGW_API_KEY_ID and NCP_APIGW_API_KEY" in error.advice
    assert error.advice in str(error)


def test_an_undocumented_error_is_a_changed_answer() -> None:
    assert type(error_of(400, fault("777"))) is AnswerChanged


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize(
    "body", [fault("SE99"), fault("500"), {"error": fault(510)}, {}, b"", b"<html>", b'{"error":']
)
def test_trouble_on_their_side_is_worth_another_try(status: int, body: object) -> None:
    assert type(error_of(status, body)) is TransientApiError


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"<!DOCTYPE html><html></html>",
        json.dumps(FOUND).encode()[:-20],
        json.dumps(FOUND, ensure_ascii=False).encode()[:80],
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"plain words",
    ],
)
def test_a_200_that_cannot_be_read_is_an_unusable_answer(body: bytes) -> None:
    assert type(error_of(200, body)) is UnusableAnswer


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_trouble_on_their_side(status: int) -> None:
    assert type(error_of(status, b"")) is TransientApiError
    assert type(error_of(status, fault("1"))) is TransientApiError


def test_a_long_message_of_the_server_is_quoted_on_one_short_line() -> None:
    sentence = str(error_of(400, fault("777", "very\n long " * 100)))
    assert "\n" not in sentence
    assert len(sentence) < 250


TITLE = json.dumps(FOUND, ensure_ascii=False).encode()


def with_title(title: bytes) -> bytes:
    return TITLE.replace("중화요리<b>본가</b>".encode(), title)


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (with_title(b"a\tb"), "a\tb"),
        (with_title(b"a\x08b"), "a\x08b"),
        (with_title(b"a\r\nb"), "a\r\nb"),
        (with_title(b"a\x00b"), "ab"),
        (TITLE + b"\x00", "중화요리<b>본가</b>"),
        (b"\x00\n" + TITLE + b"\n\x00\n", "중화요리<b>본가</b>"),
        (TITLE.replace(b'"total": 1', b'"total": ' + b"1" * 5_000), "중화요리<b>본가</b>"),
    ],
)
def test_an_answer_is_decoded_as_leniently_as_json_allows(body: bytes, title: str) -> None:
    (found,) = items_of(read(200, body))
    assert isinstance(found, dict)
    assert found["title"] == title


def items_of(body: dict[str, object]) -> list[object]:
    items = body["items"]
    assert isinstance(items, list)
    return items


@pytest.mark.parametrize("bad", [b"\xed\xa0\x80", b"\xec\xa4", b"\xff"])
def test_bytes_that_are_not_utf_8_are_replaced_only_when_the_retries_are_over(bad: bytes) -> None:
    answer = Response(status=200, body=with_title(b"a" + bad + b"b"))
    with pytest.raises(UnusableAnswer) as caught:
        read_search(answer, errors=CLASSIC.errors, now=NOON)
    assert caught.value.signature == "bytes"
    (found,) = items_of(read_search(answer, errors=CLASSIC.errors, now=NOON, lenient=True))
    assert isinstance(found, dict)
    assert set(found["title"]) == {"a", "\N{REPLACEMENT CHARACTER}", "b"}


def test_an_answer_in_another_encoding_is_never_stored_as_replacement_characters() -> None:
    answer = Response(status=200, body=TITLE.decode().encode("euc-kr"))
    with pytest.raises(UnusableAnswer) as caught:
        read_search(answer, errors=CLASSIC.errors, now=NOON, lenient=True)
    assert caught.value.signature == "bytes"


@pytest.mark.parametrize("odd", [None, 7, "text", [], [ITEM]])
def test_an_odd_item_is_handed_on_and_never_costs_the_answer(odd: object) -> None:
    assert items_of(read(200, {"total": 2, "items": [ITEM, odd]})) == [ITEM, odd]


def test_no_items_with_a_total_of_zero_is_an_answer() -> None:
    assert read(200, {"total": 0, "display": 0, "items": None})["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"total": 5, "display": 0, "items": []},
        {"total": "5", "items": []},
        {"total": 5, "items": None},
        {"total": 0, "display": 5, "items": []},
    ],
)
def test_a_total_without_items_is_an_unusable_answer(body: object) -> None:
    error = error_of(200, body)
    assert type(error) is UnusableAnswer
    assert error.signature == "empty-total"
    assert "contradicts itself" in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>nginx</html>", {}, {"message": "gone"}])
@pytest.mark.parametrize("status", [404, 405, 410, 413])
def test_a_status_that_refuses_every_request_alike_is_no_fault_of_a_region(
    status: int, body: object
) -> None:
    error = error_of(status, body)
    assert type(error) is RequestRefused
    assert (error.signature, str(status) in str(error)) == (f"http-{status}", True)
    assert "NCP_APIGW_API_KEY_ID" in error.advice


@pytest.mark.parametrize(
    ("status", "code"), [(404, "300"), (404, "100"), (400, "100"), (413, "430")]
)
def test_a_refusal_by_the_hub_of_the_request_as_such_has_the_signature_of_its_code(
    status: int, code: str
) -> None:
    body = {"error": {"errorCode": code, "message": "Not Found", "details": "URL not found."}}
    error = error_of(status, body, HUB)
    assert type(error) is RequestRefused
    assert error.signature == f"hub-{code}"
    assert "Not Found (URL not found.)" in str(error)
    assert "MOHE_NAVER_HUB_URL" in error.advice


@pytest.mark.parametrize("code", ["100", "200", "210", "300", "400", "500"])
@pytest.mark.parametrize("status", [400, 401, 404, 429, 503])
def test_the_details_of_an_error_of_the_hub_are_quoted_everywhere(status: int, code: str) -> None:
    body = {"error": {"errorCode": code, "message": "Something", "details": "In other words."}}
    assert "In other words." in str(error_of(status, body, HUB))


@pytest.mark.parametrize(
    ("api_version", "body"),
    [
        (HUB, {"error": {"errorCode": "210", "message": "Permission Denied"}}),
        (HUB, {"error": {"errorCode": 210, "message": "Permission Denied", "details": "x"}}),
        (CLASSIC, KEY_CLASSIC),
    ],
)
def test_good_keys_of_an_application_without_the_api_are_advised_to_enable_it(
    api_version: ApiVersion, body: object
) -> None:
    error = error_of(401, body, api_version)
    assert isinstance(error, ApiBlocked)
    assert "enable" in error.advice
    assert api_version.variables[0] in error.advice


def test_a_quota_refusal_by_the_hub_names_the_other_cause_for_keys_that_never_had_an_answer() -> (
    None
):
    hub, classic = error_of(429, QUOTA_HUB, HUB), error_of(429, QUOTA_CLASSIC)
    assert isinstance(hub, QuotaExhausted)
    assert isinstance(classic, QuotaExhausted)
    assert "quota" in hub.if_never_answered
    assert "not selected in the application" in hub.if_never_answered
    assert classic.if_never_answered == ""


XML_010 = b"""<?xml version="1.0"?>
<result><errorMessage>Query limit exceeded.</errorMessage><errorCode>010</errorCode></result>"""


@pytest.mark.parametrize(
    "body",
    [
        {"errMsg": "API quota exceeded"},
        {"fault": {"faultstring": "x", "message": "Daily limit of requests"}},
        {"message": "일일 호출 한도를 초과했습니다."},
        b"API quota exceeded",
        b"<html><style>p{}</style><body>API <b>quota</b> exceeded</body></html>",
        XML_010,
        b"<error><msg>limited number of service requests exceeds</msg></error>",
    ],
)
def test_a_quota_refusal_in_another_shape_is_read_by_its_words(body: object) -> None:
    error = error_of(429, body)
    assert type(error) is QuotaExhausted
    assert error.signature == "quota"


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        (RATE_CLASSIC, False),
        (RATE_HUB, False),
        ({"errMsg": "too many requests per second"}, False),
        (b"<html>Throttle limited</html>", False),
        ({}, True),
        (b"", True),
        (b"<html><h1>429 Too Many Requests</h1></html>", True),
        ({"message": "Too Many Requests"}, True),
        (b"\xff\xfe\x00", True),
    ],
)
def test_a_refusal_that_names_no_limit_is_a_rate_of_unknown_shape(
    body: object, *, unknown: bool
) -> None:
    error = error_of(429, body)
    assert isinstance(error, RateLimited)
    assert error.unknown_shape is unknown


@pytest.mark.parametrize("body", [b"", b"<html>", {"message": "Request Timeout"}])
def test_a_request_time_out_of_the_server_is_worth_another_try(body: object) -> None:
    error = error_of(408, body)
    assert type(error) is TransientApiError
    assert error.signature == "http-408"


def test_failures_alike_have_one_signature_whatever_their_words() -> None:
    bodies = [b"", b"<html>nginx</html>", {}, fault("500"), {"error": fault(510, "Endpoint")}]
    assert {error_of(503, body, HUB).signature for body in bodies} == {"http-503"}
    assert error_of(200, b"<html>a</html>").signature == error_of(200, b"<html>b</html>").signature
    kinds = [b"", b"<html>", b"{", b"words"]
    assert [error_of(200, body).signature for body in kinds] == ["blank", "html", "broken", "text"]


def test_a_number_that_is_no_error_code_blocks_no_keys() -> None:
    assert type(error_of(200, {"code": 200, "message": "OK", "data": []})) is AnswerChanged


def test_an_xml_error_page_expands_no_entities() -> None:
    bomb = b'<!DOCTYPE l [<!ENTITY a "quota">]><r><errorMessage>&a;</errorMessage></r>'
    error = error_of(429, b'<?xml version="1.0"?>' + bomb)
    assert type(error) is RateLimited
