"""What an answer of Naver's local search says, in whichever of its generations' envelopes it comes.
Pure; no HTTP.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from mohe_assets.clients.exchange import Response
from mohe_assets.clients.response_body import (
    SUCCESSES,
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
    BadQuery,
    QuotaExhausted,
    TransientApiError,
)

RESET_LATE_BY = timedelta(hours=1)  # the quota comes back between 00:00 and 01:00 KST

# Codes lose their leading zeros first: they come as "012" and may come as 12.
RATE_CODES = {"12", "420"}
QUOTA_CODES = {"10"}
HUB_QUOTA_CODE = "400"  # of a 429 only
KEY_CODES = {"24", "200", "401"}
RETRY_CODES = {"SE99", "500", "510"}
BAD_QUERY = "SE01"

TOO_MANY = 429
REFUSED = {401, 403}  # 403 only if the body has an error of the API's own, see bodies.unreadable
SERVER_TROUBLE = {
    *range(300, 400),
    408,
    *range(500, 600),
}  # a redirect leads to a maintenance page, if anywhere


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The code and message of an error body; the code is "" when it has none."""

    code: str
    message: str


def read_search(
    answer: Response, *, api: str, variables: tuple[str, ...], now: datetime
) -> dict[str, object]:
    """Return the body of a search, `items` being a list of objects, or raise the ApiError that the
    answer stands for.

    `variables` are the settings to look at when the keys are refused; `now` is aware.
    """
    body = sniff(answer.body)
    if body.kind is not BodyKind.JSON:
        raise unreadable(answer, body.kind, api=api, variables=variables)
    tree = body.value if isinstance(body.value, dict) else {}
    if fault := find_fault(tree):
        raise _error(answer, fault, api=api, variables=variables, now=now)
    if answer.status not in SUCCESSES:
        raise unreadable(answer, body.kind, api=api, variables=variables)
    return _search(tree, api)


def find_fault(tree: dict[str, object]) -> Fault | None:
    """The error a body describes: flat, wrapped in `error`, or with the message under either of its
    two names.

    A body with both an error code and items is an error: it must not pass as "no places here".
    """
    if wrapped := tree.get("error"):
        fields = (
            cast("dict[str, object]", wrapped)
            if isinstance(wrapped, dict)
            else {"message": wrapped}
        )
    elif "items" in tree:
        fields = {name: tree[name] for name in ("errorCode", "errorMessage") if name in tree}
    else:
        fields = tree
    code = _code(fields.get("errorCode") or fields.get("code"))
    message = quoted(fields.get("errorMessage") or fields.get("message") or "")
    return Fault(code=code, message=message) if code or message else None


def _code(value: object) -> str:
    code = quoted(value or "").upper()
    return code.lstrip("0") or code


def _search(tree: dict[str, object], api: str) -> dict[str, object]:
    items = tree.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise AnswerChanged(
            f"{api}: the answer has no list of items, or items that are no objects", api=api
        )
    return tree


def _error(
    answer: Response, fault: Fault, *, api: str, variables: tuple[str, ...], now: datetime
) -> ApiError:
    """Status before code: the HUB's "400" and "200" are codes of its own, not HTTP's."""
    sentence = (
        f"{api}: HTTP {answer.status}, code {fault.code or '(none)'} {fault.message}".rstrip()
    )
    if answer.status in SERVER_TROUBLE or fault.code in RETRY_CODES:
        return TransientApiError(sentence, api=api, retry_after=answer.retry_after or 0.0)
    if fault.code.startswith("SE"):
        return _request_error(sentence, fault.code, api)
    if _is_quota(answer.status, fault):
        return QuotaExhausted(sentence, api=api, reset_at=quota_reset(now, late_by=RESET_LATE_BY))
    if answer.status == TOO_MANY or fault.code in RATE_CODES:
        return rate_limited(sentence, answer, api=api)
    if answer.status in REFUSED or fault.code in KEY_CODES:
        return ApiBlocked(
            f"{sentence}; look at {' and '.join(variables)}", api=api, variables=variables
        )
    return AnswerChanged(f"{sentence}; not a documented answer", api=api)


def _request_error(sentence: str, code: str, api: str) -> ApiError:
    if code == BAD_QUERY:
        return BadQuery(sentence, api=api)
    return AnswerChanged(f"{sentence}; our bug: the API no longer takes our request", api=api)


def _is_quota(status: int, fault: Fault) -> bool:
    if fault.code in RATE_CODES | KEY_CODES:
        return False
    words = fault.message.lower()
    return (
        fault.code in QUOTA_CODES
        or (status == TOO_MANY and fault.code == HUB_QUOTA_CODE)
        or ("quota" in words or "query limit" in words)
    )
