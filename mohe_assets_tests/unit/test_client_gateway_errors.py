"""Errors of the data.go.kr gateway in all their envelopes, judged by code or by words."""

import json
from datetime import datetime
from typing import Any

import pytest

from mohe_assets.clients.exchange import Response
from mohe_assets.clients.gateway_errors import Outcome, gateway_error, gateway_errors, judge
from mohe_assets.clients.response_body import sniff
from mohe_assets.domain.kst import KST
from mohe_assets.errors import (
    ApiBlocked,
    ApiError,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    TransientApiError,
)

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=KST)
ERRORS = gateway_errors(api="some-api", title="어떤_API", portal_number="15012005")
NAMES = {
    "22": "LIMITED_NUMBER_OF_SERVICE_REQUESTS_EXCEEDS_ERROR",
    "23": "LIMITED_NUMBER_OF_SERVICE_REQUESTS_PER_SECOND_EXCEEDS_ERROR",
    "30": "SERVICE_KEY_IS_NOT_REGISTERED_ERROR",
    "31": "DEADLINE_HAS_EXPIRED_ERROR",
    "32": "UNREGISTERED_IP_ERROR",
    "20": "SERVICE_ACCESS_DENIED_ERROR",
    "4": "HTTP_ERROR",
    "5": "SERVICETIMEOUT_ERROR",
    "11": "NO_MANDATORY_REQUEST_PARAMETERS_ERROR",
}
KINDS: dict[str, type[ApiError]] = {
    "22": QuotaExhausted,
    "23": RateLimited,
    "4": TransientApiError,
    "5": TransientApiError,
    "11": RequestRefused,
}


def error_of(status: int, body: bytes) -> ApiError:
    judged = judge(sniff(body))
    assert judged is not None
    return gateway_error(judged, Response(status=status, body=body), errors=ERRORS, now=NOON)


def dumped(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def envelopes(code: str, name: str) -> dict[str, bytes]:
    head = {"resultCode": code, "resultMsg": name}
    gateway = {"errMsg": "SERVICE ERROR", "returnAuthMsg": name, "returnReasonCode": code}
    xml_head = f"<resultCode>{code}</resultCode><resultMsg>{name}</resultMsg>"
    return {
        "JSON response": dumped({"response": {"header": head}}),
        "XML response": f"<response><header>{xml_head}</header></response>".encode(),
        "no wrapper": dumped({"header": head, "body": {}}),
        "flat": dumped({"responseTime": "2026-11-03T12:00", **head}),
        "RESULT": dumped({"RESULT": head}),
        "OpenAPI_ServiceResponse": dumped({"OpenAPI_ServiceResponse": {"cmmMsgHeader": gateway}}),
    }


@pytest.mark.parametrize("code", NAMES)
@pytest.mark.parametrize("envelope", envelopes("", ""))
def test_every_envelope_is_judged_by_its_code(envelope: str, code: str) -> None:
    body = envelopes(code.zfill(2), "x")[envelope]
    assert type(error_of(200, body)) is KINDS.get(code, ApiBlocked)


@pytest.mark.parametrize("code", NAMES)
@pytest.mark.parametrize("envelope", envelopes("", ""))
@pytest.mark.parametrize("spaced", [False, True])
def test_without_a_code_every_envelope_is_judged_by_its_words(
    envelope: str, code: str, *, spaced: bool
) -> None:
    name = NAMES[code].replace("_", " ") if spaced else NAMES[code]
    assert type(error_of(200, envelopes("", name)[envelope])) is KINDS.get(code, ApiBlocked)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("등록되지 않은 서비스키", ApiBlocked),
        ("등록되지 않은 IP", ApiBlocked),
        ("활용기간 만료", ApiBlocked),
        ("서비스 접근거부", ApiBlocked),
        ("인증키가 유효하지 않습니다.", ApiBlocked),
        ("서비스 요청제한횟수 초과에러", QuotaExhausted),
        ("일별 트래픽 제한을 넘은 호출입니다.", QuotaExhausted),
        ("초당 서비스 요청제한횟수 초과에러", RateLimited),
        ("서비스 연결실패 에러", TransientApiError),
        ("데이터베이스 연결 오류입니다.", TransientApiError),
        ("잘못된 요청 파라메터 에러", RequestRefused),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_korean_words_are_read_in_utf_8_and_euc_kr(
    words: str, kind: type[ApiError], *, declared: bool
) -> None:
    header = f"<cmmMsgHeader><returnAuthMsg>{words}</returnAuthMsg></cmmMsgHeader>"
    xml = f"<OpenAPI_ServiceResponse>{header}</OpenAPI_ServiceResponse>"
    declaration = '<?xml version="1.0" encoding="EUC-KR"?>' if declared else ""
    for body in (xml.encode(), (declaration + xml).encode("euc-kr")):
        error = error_of(200, body)
        assert type(error) is kind
        assert words in str(error)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("INFO-000", Outcome.SUCCESS),
        ("INFO-0", Outcome.SUCCESS),
        ("00", Outcome.SUCCESS),
        ("0000", Outcome.SUCCESS),
        (0, Outcome.SUCCESS),
        ("03", Outcome.EMPTY),
        ("INFO-200", Outcome.EMPTY),
        ("INFO-100", Outcome.KEY),
        ("ERROR-337", Outcome.QUOTA),
        ("ERROR-500", Outcome.TROUBLE),
        ("ERROR-601", Outcome.TROUBLE),
        ("ERROR-300", Outcome.REFUSED),
        ("ERROR-331", Outcome.REFUSED),
        ("77", Outcome.UNKNOWN),
    ],
)
def test_codes_are_known_with_and_without_leading_zeros(code: object, outcome: Outcome) -> None:
    judged = judge(sniff(dumped({"RESULT": {"resultCode": code}})))
    assert judged is not None
    assert judged.outcome is outcome


def test_a_parameter_that_was_abolished_is_a_refused_request_and_an_unnamed_code_10_is_not() -> (
    None
):
    words = "INVALID_REQUEST_PARAMETER_ERROR(listYN)"
    named, unnamed = (dumped({"resultCode": "10", "resultMsg": text}) for text in (words, "x"))
    assert type(error_of(200, named)) is RequestRefused
    assert type(error_of(200, unnamed)) is TransientApiError


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (401, "Unauthorized", ApiBlocked),
        (403, "Forbidden", ApiBlocked),
        (404, "API not found", ApiBlocked),
        (429, "API rate limit exceeded", RateLimited),
        (429, "API token quota exceeded", QuotaExhausted),
        (502, "Error forwarding request to backend server", TransientApiError),
        (500, "Unexpected errors", TransientApiError),
    ],
)
def test_plain_texts_of_the_gateway_are_judged(
    status: int, text: str, kind: type[ApiError]
) -> None:
    assert type(error_of(status, text.encode())) is kind


@pytest.mark.parametrize("code", ["30", "20"])
def test_a_refused_key_names_the_api_its_number_and_the_first_hour(code: str) -> None:
    error = error_of(403, envelopes(code, NAMES[code])["OpenAPI_ServiceResponse"])
    assert isinstance(error, ApiBlocked)
    for part in ("GOVT_API_KEY", "어떤_API", "15012005", "approved within the last hour"):
        assert part in error.advice


def test_an_ended_period_and_an_unregistered_address_have_advice_of_their_own() -> None:
    assert "extend" in error_of(403, envelopes("31", NAMES["31"])["RESULT"]).advice
    assert "IP address" in error_of(403, envelopes("32", NAMES["32"])["RESULT"]).advice


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html></html>", b"", b"Hello", b"<a/>"])
def test_what_is_no_envelope_of_the_gateway_is_not_judged(body: bytes) -> None:
    assert judge(sniff(body)) is None


def test_codes_of_rows_are_not_taken_for_the_code_of_the_answer() -> None:
    rows = [{"code": "30", "name": "서울"}]
    body = {"response": {"body": {"items": {"item": rows}}, "header": {"resultCode": "0000"}}}
    judged = judge(sniff(dumped(body)))
    assert judged is not None
    assert judged.outcome is Outcome.SUCCESS


def test_a_status_decides_where_code_and_words_are_unknown() -> None:
    body = dumped({"message": "x"})
    kinds = {401: ApiBlocked, 404: RequestRefused, 429: RateLimited, 500: TransientApiError}
    assert {status: type(error_of(status, body)) for status in kinds} == kinds
