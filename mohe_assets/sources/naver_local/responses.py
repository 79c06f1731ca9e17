"""Read answers of Naver's local search, classic and HUB, their error envelopes included. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime

from mohe_assets.clients.api_errors import (
    KEY_REFUSED,
    REQUEST_REFUSED,
    SERVER_TROUBLE,
    SUCCESSES,
    TOO_MANY,
    ApiErrors,
    Limit,
    limit_named,
)
from mohe_assets.clients.exchange import Response
from mohe_assets.clients.response_body import BodyKind, first_of, quoted, sniff
from mohe_assets.errors import ApiError, BadQuery

# Without leading zeros: the API sends "012", and may send 12.
RATE_CODES = {"12", "420"}
QUOTA_CODES = {"10"}
HUB_QUOTA_CODE = "400"  # only with HTTP 429
KEY_CODES = {"24", "200", "401"}
PERMISSION_CODES = {"210"}  # valid keys, but local search is not enabled for their application
RETRY_CODES = {"SE99", "500", "510", "900"}
HUB_REFUSED_CODES = {"100", "300", "430"}
BAD_QUERY = "SE01"
_NUMBER = re.compile(r"[0-9]{1,9}")

# 403 only with an error body of the API itself, see ApiErrors.unreadable.
REFUSED = {KEY_REFUSED, 403}
CODE_NAMES = ("errorCode", "code", "returnReasonCode", "resultCode")
MESSAGE_NAMES = (
    "errorMessage",
    "message",
    "errMsg",
    "msg",
    "returnAuthMsg",
    "resultMsg",
    "error",
    "title",
)
DETAIL_NAMES = ("details", "detail", "error_description")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The code and message of an error body; the code is "" when it has none."""

    code: str
    message: str


def read_search(
    answer: Response,
    *,
    errors: ApiErrors,
    now: datetime,
    lenient: bool = False,
) -> dict[str, object]:
    """Return the body of a search, with a list `items`, or raise the ApiError of the answer.

    Bytes that are not UTF-8 make the answer unusable; with `lenient` a few are replaced. `now` is
    aware.
    """
    body = sniff(answer.body)
    tree = body.value if isinstance(body.value, dict) else {}
    is_json = body.kind is BodyKind.JSON
    if (is_json or answer.status not in SUCCESSES) and (fault := find_fault(tree, answer.status)):
        raise _error(answer, fault, errors, now)
    if not is_json or answer.status not in SUCCESSES:
        raise errors.unreadable(answer, body, now=now)
    if not body.exact and (not lenient or body.garbled):
        raise errors.unusable("bytes that are not UTF-8", signature="bytes")
    items, total = tree.get("items"), max(_count(tree.get("total")), _count(tree.get("display")))
    if items is None and tree.keys() >= {"items", "total"}:
        items = []
    if not isinstance(items, list):
        raise errors.changed(f"{errors.api}: the answer has no list of items")
    if total and not items:
        raise errors.unusable(
            f"the answer contradicts itself: total {total}, but no items",
            signature="empty-total",
        )
    return {**tree, "items": items}


def find_fault(tree: dict[str, object], status: int) -> Fault | None:
    """Return the error of a body, flat or wrapped in `error` or another object; None without error.

    A body with an error code and items is an error: it must not be taken for an empty result.
    """
    scope: object = tree
    if wrapped := tree.get("error"):
        scope = wrapped if isinstance(wrapped, dict) else {"message": str(wrapped)}
    elif "items" in tree:
        scope = {name: tree[name] for name in ("errorCode", "errorMessage") if name in tree}
        if not scope:  # the usual case; skips the expensive search for names
            return None
    # In a success other names may hold no error code: {"code": 200, "message": "OK"}.
    names = CODE_NAMES[:1] if status in SUCCESSES else CODE_NAMES
    code = quoted(first_of(scope, names)).upper()
    code = code.lstrip("0") or code
    message = first_of(scope, MESSAGE_NAMES)
    details = first_of(scope, DETAIL_NAMES)
    if details and details not in message:
        message = f"{message} ({details})" if message else details
    return Fault(code=code, message=quoted(message)) if code or message else None


def _count(value: object) -> int:
    text = str(value).strip()
    return int(text) if _NUMBER.fullmatch(text) else 0


def _error(answer: Response, fault: Fault, errors: ApiErrors, now: datetime) -> ApiError:
    """Return the error of an answer; the status precedes the code ("400" can be the HUB's own)."""
    code = fault.code
    sentence = (
        f"{errors.api}: HTTP {answer.status}, code {code or '(none)'} {fault.message}".rstrip()
    )
    if answer.status in SERVER_TROUBLE or code in RETRY_CODES:
        return errors.transient(sentence, answer, code=code)
    if code == BAD_QUERY:
        return BadQuery(sentence, api=errors.api, signature=code)
    if code.startswith("SE"):
        return errors.refused(sentence, signature=code)
    limit = None
    if code in RATE_CODES:
        limit = Limit.RATE
    elif code in QUOTA_CODES or (answer.status == TOO_MANY and code == HUB_QUOTA_CODE):
        limit = Limit.QUOTA
    elif answer.status != KEY_REFUSED and code not in KEY_CODES | PERMISSION_CODES:
        limit = limit_named(fault.message)
    if limit is Limit.QUOTA:
        return errors.quota(sentence, now)
    if limit is Limit.RATE or answer.status == TOO_MANY:
        return errors.rate(sentence, answer, unknown_shape=limit is None)
    return _refusal(answer, fault, sentence, errors)


def _refusal(answer: Response, fault: Fault, sentence: str, errors: ApiErrors) -> ApiError:
    if fault.code in PERMISSION_CODES or "scope status invalid" in fault.message.lower():
        return errors.blocked(sentence, advice=errors.not_enabled_advice)
    if answer.status in REFUSED or fault.code in KEY_CODES:
        return errors.blocked(sentence)
    signature = errors.signature(answer, fault.code)
    is_hub_code = errors.code_prefix == "hub" and fault.code in HUB_REFUSED_CODES
    if answer.status in REQUEST_REFUSED or is_hub_code:
        return errors.refused(sentence, signature=signature)
    return errors.changed(f"{sentence}; not a documented answer", signature=signature)
