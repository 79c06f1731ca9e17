"""Errors of the data.go.kr gateway and the APIs behind it, classified by code or text.

A single key and gateway serve all APIs of the portal. Their envelopes differ: JSON, XML and plain
text; `OpenAPI_ServiceResponse`, `response`, `RESULT` and a bare object. They may ignore the
requested format, and give a reason without a code.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from mohe_assets.clients.api_errors import KEY_REFUSED, TOO_MANY, ApiErrors, Limit, limit_named
from mohe_assets.clients.exchange import Response
from mohe_assets.clients.response_body import Body, BodyKind, first_of, quoted
from mohe_assets.errors import ApiError

KEY_VARIABLE = "GOVT_API_KEY"
CLOCK_SKEW = timedelta(minutes=5)  # of our clock; the gateway resets quotas exactly at midnight
MAX_TEXT = 500  # characters of a plain-text error; the gateway's have a single line


class Outcome(StrEnum):
    """The meaning of a gateway's answer."""

    SUCCESS = "success"
    EMPTY = "empty"
    KEY = "key"
    QUOTA = "quota"
    RATE = "rate"
    TROUBLE = "trouble"  # a temporary failure: a retry may help
    REFUSED = "refused"  # the request itself
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """The classified answer; `code` is "" without a code, `words` are quoted from the answer."""

    outcome: Outcome
    code: str
    words: str


_CODES = {
    **dict.fromkeys(("0", "INFO-0"), Outcome.SUCCESS),
    **dict.fromkeys(("3", "INFO-3", "INFO-200"), Outcome.EMPTY),
    **dict.fromkeys(
        (
            "20",
            "21",
            "29",
            "30",
            "31",
            "32",
            "33",
            "INFO-100",
            "INFO-300",
            "ERROR-290",
            "ERROR-310",
        ),
        Outcome.KEY,
    ),
    **dict.fromkeys(("22", "ERROR-337"), Outcome.QUOTA),
    "23": Outcome.RATE,
    **dict.fromkeys(
        ("1", "2", "4", "5", "10", "12", "99", "ERROR-500", "ERROR-600", "ERROR-601"),
        Outcome.TROUBLE,
    ),
    **dict.fromkeys(
        ("11", *(f"ERROR-{number}" for number in (300, 301, *range(331, 337)))),
        Outcome.REFUSED,
    ),
}
# The first match decides. Underscores, which the old gateway sends, are replaced by spaces first.
_WORDS = (
    (r"not registered|unregistered|service key|등록되지 않은|서비스 ?키|인증 ?키", Outcome.KEY),
    (r"access denied|접근 ?거부|deadline has expired|활용 ?기간|만료|unsigned call", Outcome.KEY),
    (r"temporarily disable the service|^unauthorized|^forbidden|^api not found", Outcome.KEY),
    (r"no ?data|데이터 ?없음|데이터가 없|데이터가 존재하지", Outcome.EMPTY),
    (
        r"invalid request parameter|no mandatory request|invalid value|파라[미메]터|필수",
        Outcome.REFUSED,
    ),
    (r"요청 ?위치|최대 ?1,?000건", Outcome.REFUSED),
    (r"application error|db error|http error|service ?time ?out|unknown error", Outcome.TROUBLE),
    (
        r"error forwarding|unexpected error|no openapi service|서버|데이터베이스|sql",
        Outcome.TROUBLE,
    ),
    (r"에러|연결 ?실패|시스템", Outcome.TROUBLE),
    (r"^no?r?mal service|^ok$|정상", Outcome.SUCCESS),
)
_WORDS_COMPILED = tuple((re.compile(pattern), outcome) for pattern, outcome in _WORDS)
_CODE_NAMES = ("returnReasonCode", "resultCode", "errorCode", "code")
_WORD_NAMES = ("errMsg", "returnAuthMsg", "resultMsg", "errorMessage", "message", "msg")
_NUMBERED = re.compile(r"([A-Z]+-)?0*([0-9]+)")
# By code: more precise than the API's own advice.
_KEY_ADVICE = {
    "31": f"look at {KEY_VARIABLE}: its period of use has ended; extend it on data.go.kr",
    "32": f"look at {KEY_VARIABLE}: this machine's IP address is not registered for it",
}


def gateway_errors(*, api: str, title: str, portal_number: str) -> ApiErrors:
    """Return the error factory of an API; title and number are those of its data.go.kr page."""
    return ApiErrors(
        api=api,
        code_prefix="gateway",
        variables=(KEY_VARIABLE,),
        key_advice=(
            f"look at {KEY_VARIABLE}: it has to be approved for {title} "
            f"(data.go.kr number {portal_number}); a key approved within the last hour may not be "
            "active yet"
        ),
        refused_advice=(
            "look at MOHE_GOVERNMENT_API_URL; if it is right, the API has changed: "
            f"see number {portal_number} on data.go.kr"
        ),
        reset_late_by=CLOCK_SKEW,
    )


def judge(body: Body) -> CheckOutcome | None:
    """Classify a body by its code, else by its text; None if it is no gateway envelope."""
    if body.kind is BodyKind.TEXT and len(body.text) <= MAX_TEXT:
        outcome = _by_words(body.text)
        if outcome is None or outcome in {Outcome.SUCCESS, Outcome.EMPTY}:
            return None
        return CheckOutcome(outcome=outcome, code="", words=quoted(body.text))
    if not isinstance(body.value, dict):
        return None
    # Codes are numbers or strings, 1 is also sent as 01 and INFO-0 as INFO-000.
    code = quoted(first_of(body.value, _CODE_NAMES)).upper()
    if match := _NUMBERED.fullmatch(code):
        code = f"{match[1] or ''}{match[2]}"
    words = " ".join(filter(None, (first_of(body.value, (name,)) for name in _WORD_NAMES)))
    if not code and not words:
        return None
    outcome = _CODES.get(code) or _by_words(f"{code} {words}") or Outcome.UNKNOWN
    if code == "10" and "INVALID_REQUEST_PARAMETER" in words:
        outcome = Outcome.REFUSED
    return CheckOutcome(outcome=outcome, code=code, words=quoted(words))


def _by_words(words: str) -> Outcome | None:
    folded = " ".join(words.replace("_", " ").lower().split())
    if limit := limit_named(folded):
        return Outcome.QUOTA if limit is Limit.QUOTA else Outcome.RATE
    return next((outcome for pattern, outcome in _WORDS_COMPILED if pattern.search(folded)), None)


def gateway_error(
    judged: CheckOutcome, answer: Response, *, errors: ApiErrors, now: datetime
) -> ApiError:
    """Return the ApiError of an answer that is neither a page nor empty; `now` is aware."""
    code = judged.code
    sentence = (
        f"{errors.api}: HTTP {answer.status}, code {code or '(none)'} {judged.words}".rstrip()
    )
    match judged.outcome:
        case Outcome.KEY:
            return errors.blocked(sentence, advice=_KEY_ADVICE.get(code, ""))
        case Outcome.QUOTA:
            return errors.quota(sentence, now)
        case Outcome.RATE:
            return errors.rate(sentence, answer)
        case Outcome.TROUBLE if answer.status not in {KEY_REFUSED, TOO_MANY}:
            return errors.transient(sentence, answer, code=code)
        case Outcome.REFUSED:
            return errors.refused(sentence, signature=errors.signature(answer, code))
    error = errors.by_status(sentence, judged.words, answer, now, code=code)
    return error or errors.changed(
        f"{sentence}; not a documented answer",
        signature=errors.signature(answer, code),
    )
