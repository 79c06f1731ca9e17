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
    TransientApiError,
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
    return read_search(answer, api=api_version.api, variables=api_version.variables, now=now)


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
    [(rb'"x\u0000y"', "xy"), (rb'"\uD800z"', "z"), (rb'"\udfffz"', "z"), (b"NaN", None), (b"-Infinity", None), (b"1e999", None),
     (b"1" * 400 + b".0", None), (rb'"\ud83d\ude00 NaN 1e9"', "\U0001f600 NaN 1e9")],
)  # fmt: skip
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
    "body", [[], {}, {"items": None}, {"items": {}}, {"items": [1]}, {"total": 0, "display": 0}]
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
        ({**fault("SE06"), "items": []}, AnswerChanged),
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
def test_a_request_they_do_not_take_is_called_our_bug(status: int, code: str) -> None:
    error = error_of(status, fault(code))
    assert type(error) is AnswerChanged
    assert f"code {code}" in str(error)
    assert "our bug" in str(error)


def test_an_undocumented_error_is_a_changed_answer() -> None:
    assert type(error_of(400, fault("777"))) is AnswerChanged
    assert type(error_of(404, {"status": 404, "error": "Not Found"})) is AnswerChanged


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
def test_a_200_that_cannot_be_read_is_worth_another_try(body: bytes) -> None:
    assert type(error_of(200, body)) is TransientApiError


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_trouble_on_their_side(status: int) -> None:
    assert type(error_of(status, b"")) is TransientApiError
    assert type(error_of(status, fault("1"))) is TransientApiError


def test_a_long_message_of_the_server_is_quoted_on_one_short_line() -> None:
    sentence = str(error_of(400, fault("777", "very\n long " * 100)))
    assert "\n" not in sentence
    assert len(sentence) < 250
