"""What an answer of the region API says: a page, or which error in which of its envelopes. Pure; no
HTTP.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from xml.parsers.expat import ExpatError

import xmltodict

from mohe_assets.clients.exchange import Response
from mohe_assets.clients.response_body import (
    SERVER_ERRORS,
    SUCCESSES,
    Body,
    BodyKind,
    quota_reset,
    quoted,
    rate_limited,
    sniff,
    unreadable,
)
from mohe_assets.errors import (
    AnswerChanged,
    ApiBlocked,
    ApiError,
    QuotaExhausted,
    TransientApiError,
)

REGION_API = "region-api"
KEY_VARIABLES = ("GOVT_API_KEY",)
CLOCK_SKEW = timedelta(minutes=5)  # this API's reset is sharp, our clock need not be

ROOTS = {"StanReginCd", "RESULT", "OpenAPI_ServiceResponse"}
SUCCESS = "INFO-0"
EMPTY = {"3", "INFO-3", "INFO-200"}
BLOCKED = {"20", "21", "29", "30", "31", "32", "33", "INFO-300", "ERROR-290", "ERROR-310"}
SPENT = {"22", "ERROR-337"}
TOO_FAST = {"23"}
TRANSIENT = {"1", "2", "4", "5", "10", "12", "99", "ERROR-500", "ERROR-600"}
OUR_BUG = {"11", "ERROR-333", "ERROR-336"}

# Plain texts of the gateway in front of the API, each standing for a code that is treated alike.
GATEWAY_TEXTS = (
    ("unauthorized", "30"),
    ("forbidden", "20"),
    ("api not found", "20"),
    ("api rate limit exceeded", "23"),
    ("api token quota exceeded", "22"),
    ("error forwarding", "4"),
    ("unexpected error", "99"),
)

Row = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class RegionPage:
    """One page as it came; `total_count` is the size of the whole list. A page past the end has
    neither.
    """

    total_count: int
    rows: tuple[Row, ...]


def read_page(answer: Response, *, now: datetime) -> RegionPage:
    """Return the page, or raise the ApiError that the answer stands for. `now` is aware."""
    body = sniff(answer.body)
    if body.kind is BodyKind.TEXT:
        _refuse_gateway_text(answer, body, now)
    tree = _tree(body)
    if not tree.keys() & ROOTS:
        raise _no_document(answer, body)
    if "StanReginCd" in tree:
        return _page(answer, _merged(tree["StanReginCd"]), now)
    code, words = _error_of(tree)
    if code in EMPTY:
        return RegionPage(total_count=0, rows=())
    raise _error(answer, code, words, now)


def _tree(body: Body) -> dict[str, object]:
    """The body as nested dictionaries, empty when it is neither XML nor a JSON object."""
    value = _xml(body.text) if body.kind is BodyKind.XML else body.value
    return value if isinstance(value, dict) else {}


def _no_document(answer: Response, body: Body) -> ApiError:
    if body.kind is BodyKind.JSON and answer.status in SUCCESSES:
        return AnswerChanged(f"{REGION_API}: HTTP {answer.status} with {body.kind}", api=REGION_API)
    return unreadable(answer, body.kind, api=REGION_API, variables=KEY_VARIABLES)


def _xml(text: str) -> object:
    # Entity declarations are refused, so that no small body can expand to gigabytes; expat itself
    # fetches nothing.
    try:
        return xmltodict.parse(text, disable_entities=True, force_list=("row",))
    except (ExpatError, ValueError):
        return None


def _page(answer: Response, document: Row, now: datetime) -> RegionPage:
    head = _merged(document.get("head"))
    result = _merged(head.get("RESULT"))
    code = _code(result.get("resultCode"))
    if code in EMPTY:
        return RegionPage(total_count=0, rows=())
    if code != SUCCESS:
        raise _error(answer, code, quoted(result.get("resultMsg", "")), now)
    if answer.status not in SUCCESSES:
        raise TransientApiError(f"{REGION_API}: HTTP {answer.status} with a page", api=REGION_API)
    total, rows = _number(head.get("totalCount")), document.get("row")
    if (
        total is None
        or not isinstance(rows, list)
        or not all(isinstance(row, dict) for row in rows)
    ):
        raise AnswerChanged(
            f"{REGION_API}: a page without totalCount or without a list of rows", api=REGION_API
        )
    return RegionPage(total_count=total, rows=tuple(rows))


def _merged(sections: object) -> Row:
    """JSON spreads an object's keys over a list of objects, XML does not; either way one mapping."""
    parts = sections if isinstance(sections, list) else [sections]
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _error_of(tree: Row) -> tuple[str, str]:
    """The code and the words of an error document; the code is "" when there is none."""
    if "RESULT" in tree:
        result = _merged(tree["RESULT"])
        return _code(result.get("resultCode")), quoted(result.get("resultMsg", ""))
    header = _merged(_merged(tree.get("OpenAPI_ServiceResponse")).get("cmmMsgHeader"))
    words = " ".join(
        quoted(header[name]) for name in ("errMsg", "returnAuthMsg") if header.get(name)
    )
    return _code(header.get("returnReasonCode")), quoted(words)


def _code(value: object) -> str:
    """Codes come as numbers or as strings, 1 also as 01."""
    code = quoted(value if value is not None else "").upper()
    return code.lstrip("0") or code


def _number(value: object) -> int | None:
    text = str(value).strip()
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _refuse_gateway_text(answer: Response, body: Body, now: datetime) -> None:
    for start, code in GATEWAY_TEXTS:
        if body.text.lower().startswith(start):
            raise _error(answer, code, quoted(body.text), now)


def _error(answer: Response, code: str, words: str, now: datetime) -> ApiError:
    sentence = f"{REGION_API}: HTTP {answer.status}, code {code or '(none)'} {words}".rstrip()
    if code in BLOCKED:
        return ApiBlocked(
            f"{sentence}; look at GOVT_API_KEY", api=REGION_API, variables=KEY_VARIABLES
        )
    if code in SPENT:
        return QuotaExhausted(
            sentence, api=REGION_API, reset_at=quota_reset(now, late_by=CLOCK_SKEW)
        )
    if code in TOO_FAST:
        return rate_limited(sentence, answer, api=REGION_API)
    if code in TRANSIENT or (not code and answer.status in SERVER_ERRORS):
        return TransientApiError(sentence, api=REGION_API, retry_after=answer.retry_after or 0.0)
    if code in OUR_BUG:
        return AnswerChanged(
            f"{sentence}; our bug: the API no longer takes our request", api=REGION_API
        )
    return AnswerChanged(f"{sentence}; not a documented answer", api=REGION_API)
