"""Bodies of the region list API: rows in its envelope, as JSON or XML, and all known refusals."""

import json
import zlib
from collections.abc import Iterable
from html import escape

from mohe_assets.simulator.http import HTML, JSON, PLAIN, XML, Answer, text_answer
from mohe_assets.simulator.region_list import PARENTLESS_SIDO, RegionRow

NO_DATA = ("INFO-3", "데이터없음 에러")

_GATEWAY_REASONS = {
    "1": ("APPLICATION_ERROR", "어플리케이션 에러"),
    "4": ("HTTP_ERROR", "HTTP 에러"),
    "5": ("SERVICETIMEOUT_ERROR", "서비스 연결실패 에러"),
    "12": ("NO_OPENAPI_SERVICE_ERROR", "해당 오픈API 서비스가 없거나 폐기됨"),
    "20": ("SERVICE_ACCESS_DENIED_ERROR", "서비스 접근거부"),
    "22": ("LIMITED_NUMBER_OF_SERVICE_REQUESTS_EXCEEDS_ERROR", "서비스 요청제한횟수 초과에러"),
    "23": (
        "LIMITED_NUMBER_OF_SERVICE_REQUESTS_PER_SECOND_EXCEEDS_ERROR",
        "초당 서비스 요청제한횟수 초과에러",
    ),
    "30": ("SERVICE_KEY_IS_NOT_REGISTERED_ERROR", "등록되지 않은 서비스키"),
    "31": ("DEADLINE_HAS_EXPIRED_ERROR", "활용기간 만료"),
    "32": ("UNREGISTERED_IP_ERROR", "등록되지 않은 IP"),
    "99": ("UNKNOWN_ERROR", "기타에러"),
}
_RESULTS = {
    "INFO-3": NO_DATA[1],
    "INFO-200": "해당하는 데이터가 없습니다.",
    "INFO-300": "관리자에 의해 인증키 사용이 제한되었습니다.",
    "ERROR-290": "인증키가 유효하지 않습니다.",
    "ERROR-310": "해당하는 서비스를 찾을 수 없습니다.",
    "ERROR-333": "요청위치 값의 타입이 유효하지 않습니다.",
    "ERROR-336": "데이터요청은 한번에 최대 1000건을 넘을 수 없습니다.",
    "ERROR-337": "일별 트래픽 제한을 넘은 호출입니다.",
    "ERROR-500": "서버 오류입니다.",
    "ERROR-600": "데이터베이스 연결 오류입니다.",
    "ERROR-601": "SQL 문장 오류입니다.",
    "INFO-000": "정상 처리되었습니다.",
}
PLAIN_TEXTS = {
    "unauthorized": (401, "Unauthorized"),
    "forbidden": (403, "Forbidden"),
    "not_found": (404, "API not found"),
    "bad_gateway": (502, "Error forwarding request to backend server"),
    "rate": (429, "API rate limit exceeded"),
    "quota": (429, "API token quota exceeded"),
    "unexpected": (500, "Unexpected errors"),
}
ENVELOPES = (
    "gateway_json",
    "gateway_xml",
    "legacy_xml",
    "response_json",
    "response_xml",
    "words",
    "korean_xml",
    "result",
)
REGION_FAULTS = (*(PLAIN_TEXTS.keys() - {"rate", "quota"}), *ENVELOPES)


def plain(name: str) -> Answer:
    status, text = PLAIN_TEXTS[name]
    return text_answer(status, text, PLAIN)


def gateway_json(code: str = "30") -> Answer:
    error, reason = _GATEWAY_REASONS.get(code, _GATEWAY_REASONS["99"])
    header = {"errMsg": error, "returnAuthMsg": reason, "returnReasonCode": code}
    return Answer(403, JSON, _dumped({"OpenAPI_ServiceResponse": {"cmmMsgHeader": header}}))


def gateway_xml(code: str = "30") -> Answer:
    error, reason = _GATEWAY_REASONS.get(code, _GATEWAY_REASONS["99"])
    return text_answer(403, _gateway_xml(error, reason, code), XML)


def legacy_xml(code: str = "30") -> Answer:
    """The old gateway: always HTTP 200 and XML, with the error's name in the other field."""
    error, _ = _GATEWAY_REASONS.get(code, _GATEWAY_REASONS["99"])
    return text_answer(200, _gateway_xml("SERVICE ERROR", error, code), XML)


def response_json(code: str = "30") -> Answer:
    """The envelope of most services behind the gateway, with HTTP 200."""
    error, _ = _GATEWAY_REASONS.get(code, _GATEWAY_REASONS["99"])
    header = {"resultCode": code, "resultMsg": error}
    return Answer(200, JSON, _dumped({"response": {"header": header}}))


def response_xml(code: str = "30") -> Answer:
    """The same as XML."""
    error, _ = _GATEWAY_REASONS.get(code, _GATEWAY_REASONS["99"])
    header = _elements({"resultCode": code, "resultMsg": error})
    return text_answer(200, f"<response><header>{header}</header></response>", XML)


def words(code: str = "30") -> Answer:
    """The reason as text without a code."""
    error, _ = _GATEWAY_REASONS.get(code, _GATEWAY_REASONS["99"])
    header = f"<cmmMsgHeader><errMsg>{error}</errMsg></cmmMsgHeader>"
    text = f"<OpenAPI_ServiceResponse>{header}</OpenAPI_ServiceResponse>"
    return text_answer(200, text, XML)


def korean_xml(code: str = "30") -> Answer:
    """The reason as Korean text in EUC-KR, without a code."""
    _, reason = _GATEWAY_REASONS.get(code, _GATEWAY_REASONS["99"])
    header = f"<cmmMsgHeader><returnAuthMsg>{reason}</returnAuthMsg></cmmMsgHeader>"
    text = f"<OpenAPI_ServiceResponse>{header}</OpenAPI_ServiceResponse>"
    declaration = '<?xml version="1.0" encoding="EUC-KR"?>'
    return Answer(200, b"text/xml;charset=EUC-KR", f"{declaration}{text}".encode("euc-kr"))


def _gateway_xml(error: str, reason: str, code: str) -> str:
    return (
        f"<OpenAPI_ServiceResponse>\n\t<cmmMsgHeader>\n\t\t<errMsg>{error}</errMsg>\n"
        f"\t\t<returnAuthMsg>{reason}</returnAuthMsg>\n"
        f"\t\t<returnReasonCode>{code}</returnReasonCode>\n"
        "\t</cmmMsgHeader>\n</OpenAPI_ServiceResponse>"
    )


def result(code: str, *, as_xml: bool = False) -> Answer:
    """A RESULT without the outer object of rows."""
    message = _RESULTS.get(code, "알 수 없는 오류입니다.")
    if as_xml:
        return text_answer(
            200, f"<RESULT>{_elements({'resultCode': code, 'resultMsg': message})}</RESULT>", XML
        )
    return Answer(200, HTML, _dumped({"RESULT": {"resultCode": code, "resultMsg": message}}))


def rows_answer(
    rows: Iterable[RegionRow], *, total: int, size: int, page: int, as_xml: bool
) -> Answer:
    served = [served_row(row) for row in rows]
    kind = "XML" if as_xml else "JSON"
    success = {"resultCode": "INFO-0", "resultMsg": "NOMAL SERVICE"}
    paging = {"numOfRows": str(size), "pageNo": str(page), "type": kind}
    if not as_xml:
        head = [{"totalCount": total}, paging, {"RESULT": success}]
        return Answer(200, HTML, _dumped({"StanReginCd": [{"head": head}, {"row": served}]}))
    head_xml = (
        f"<totalCount>{total}</totalCount>{_elements(paging)}<RESULT>{_elements(success)}</RESULT>"
    )
    rows_xml = "".join(f"<row>{_elements(row)}</row>" for row in served)
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<StanReginCd><head>{head_xml}</head>{rows_xml}</StanReginCd>"
    )
    return text_answer(200, text, XML)


def named_answers(code: str, *, as_xml: bool) -> dict[str, Answer]:
    """Return the answers of all faults by name; `code` is "" for the default."""
    known = code or "30"
    return {
        **{name: plain(name) for name in PLAIN_TEXTS},
        "auth": gateway_xml() if as_xml else gateway_json(),
        "gateway_json": gateway_json(known),
        "gateway_xml": gateway_xml(known),
        "legacy_xml": legacy_xml(known),
        "response_json": response_json(known),
        "response_xml": response_xml(known),
        "words": words(known),
        "korean_xml": korean_xml(known),
        "result": result(code or "INFO-300", as_xml=as_xml),
    }


def served_row(row: RegionRow) -> dict[str, str | int]:
    """Return a row as served: all strings but the order, with the odd spaces of the original."""
    oddity = zlib.crc32(row.code.encode())
    # The code of the row above; of a 일반구 its sido's, as in the original.
    above, own = " ", next((size for size in (8, 5, 2) if set(row.code[size:]) != {"0"}), 0)
    if own and not (row.code[:2] == PARENTLESS_SIDO and row.code[5:] == "00000"):
        above = row.code[:own].ljust(10, "0")
    return {
        "region_cd": row.code,
        "sido_cd": row.code[:2],
        "sgg_cd": row.code[2:5],
        "umd_cd": row.code[5:8],
        "ri_cd": row.code[8:],
        "locatjumin_cd": row.code,
        "locatjijuk_cd": row.code,
        "locatadd_nm": f"{row.name} " if oddity % 40 == 0 else row.name,
        "locat_order": oddity % 97 + 1,
        "locat_rm": " " if oddity % 3 == 0 else "",
        "locathigh_cd": above,
        "locallow_nm": row.name.split()[-1],
        "adpt_de": "19880423" if oddity % 5 == 0 else "",
    }


def _elements(values: dict[str, str] | dict[str, str | int]) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in values.items())


def _dumped(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
