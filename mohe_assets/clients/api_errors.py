"""Errors of one API: their wording, and their classification by status and words."""

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum

from mohe_assets.clients.exchange import Response
from mohe_assets.clients.response_body import Body, BodyKind, quoted, words_of
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

SUCCESSES = range(200, 300)
KEY_REFUSED = 401
TOO_MANY = 429
# A redirect leads to a maintenance page, if anywhere.
SERVER_TROUBLE = {*range(300, 400), 408, 425, *range(500, 600)}
REQUEST_REFUSED = {404, 405, 406, 410, 413, 415}


class Limit(StrEnum):
    """The two limits that a refusal can mean."""

    QUOTA = "quota"
    RATE = "rate"


# The first that fits counts: "daily rate limit" is a quota, "requests per second exceeds" a rate.
_LIMITS = (
    (re.compile(r"per day|daily|per month|monthly|일일|일별|하루|월간"), Limit.QUOTA),
    (re.compile(r"per (second|minute)|rate.?limit|throttl|초당|분당|속도"), Limit.RATE),
    (re.compile(r"quota|query limit|requests? exceeds|한도|제한 ?횟수|트래픽"), Limit.QUOTA),
)
_SIGNATURES = {
    BodyKind.JSON: "shape",
    BodyKind.XML: "xml",
    BodyKind.HTML: "html",
    BodyKind.TEXT: "text",
    BodyKind.BLANK: "blank",
    BodyKind.BROKEN: "broken",
}


def limit_named(words: str) -> Limit | None:
    """The limit that the words of a refusal mean; None when they leave it open."""
    folded = words.replace("_", " ").lower()
    return next((limit for pattern, limit in _LIMITS if pattern.search(folded)), None)


@dataclass(frozen=True, kw_only=True)
class ApiErrors:
    """Makes the errors of one API. `api` is its short name in messages and in the shared budget.

    `code_prefix` begins the signature of an error with a code. `variables` are the settings to look
    at when the keys are refused. The advice texts go into the errors of their kind.
    """

    api: str
    code_prefix: str
    variables: tuple[str, ...]
    key_advice: str
    refused_advice: str
    not_enabled_advice: str = ""
    if_never_answered: str = ""
    reset_late_by: timedelta

    def blocked(self, sentence: str, *, advice: str = "") -> ApiBlocked:
        """Refused credentials."""
        return ApiBlocked(
            sentence,
            api=self.api,
            variables=self.variables,
            advice=advice or self.key_advice,
        )

    def quota(self, sentence: str, now: datetime) -> QuotaExhausted:
        """A used-up quota."""
        return QuotaExhausted(
            sentence,
            api=self.api,
            reset_at=quota_reset(now, late_by=self.reset_late_by),
            if_never_answered=self.if_never_answered,
        )

    def rate(
        self,
        sentence: str,
        answer: Response,
        *,
        unknown_shape: bool = False,
    ) -> RateLimited:
        """Too many calls a second: wait a second at least, because the limits are per second."""
        return RateLimited(
            sentence,
            api=self.api,
            retry_after=max(1.0, answer.retry_after or 0.0),
            unknown_shape=unknown_shape,
        )

    def limited(self, sentence: str, words: str, answer: Response, now: datetime) -> ApiError:
        """A refusal with HTTP 429: quota or rate by its words, else a rate of unknown shape."""
        limit = limit_named(words)
        if limit is Limit.QUOTA:
            return self.quota(sentence, now)
        return self.rate(sentence, answer, unknown_shape=limit is None)

    def transient(self, sentence: str, answer: Response, *, code: str = "") -> TransientApiError:
        """Trouble at the other end. The status tells causes apart better than the code."""
        return TransientApiError(
            sentence,
            api=self.api,
            retry_after=answer.retry_after or 0.0,
            signature=self.signature(answer, "" if answer.status in SERVER_TROUBLE else code),
        )

    def refused(self, sentence: str, *, signature: str) -> RequestRefused:
        """A refusal of our requests as such."""
        return RequestRefused(
            sentence,
            api=self.api,
            signature=signature,
            advice=self.refused_advice,
        )

    def unusable(self, sentence: str, *, signature: str) -> UnusableAnswer:
        """An answer that contradicts itself or cannot be read."""
        return UnusableAnswer(f"{self.api}: {sentence}", api=self.api, signature=signature)

    def changed(self, sentence: str, *, signature: str = "shape") -> AnswerChanged:
        """An answer without the documented shape."""
        return AnswerChanged(sentence, api=self.api, signature=signature)

    def signature(self, answer: Response, code: str) -> str:
        """The code, which is Naver's own where it begins with SE; else the status."""
        if not code:
            return f"http-{answer.status}"
        return code if code.startswith("SE") else f"{self.code_prefix}-{code}"

    def by_status(
        self,
        sentence: str,
        words: str,
        answer: Response,
        now: datetime,
        *,
        code: str = "",
    ) -> ApiError | None:
        """The error of a status that has one meaning whatever the body; None for the others."""
        if answer.status == KEY_REFUSED:
            return self.blocked(sentence)
        if answer.status == TOO_MANY:
            return self.limited(sentence, words, answer, now)
        if answer.status in SERVER_TROUBLE:
            return self.transient(sentence, answer, code=code)
        if answer.status in REQUEST_REFUSED:
            return self.refused(sentence, signature=self.signature(answer, code))
        return None

    def unreadable(self, answer: Response, body: Body, *, now: datetime) -> ApiError:
        """The error for a body that is none of the API's: the status counts, for 429 the words.

        A bare 403 is transient: it comes from a firewall or gateway in front of the API, and to
        call it a wrong key would stop the whole collection until a person came.
        """
        sentence = f"HTTP {answer.status} with {body.kind}"
        if answer.status in SUCCESSES:
            return self.unusable(sentence, signature=_SIGNATURES[body.kind])
        words = words_of(body)
        if answer.status == TOO_MANY and words:
            sentence = f"{sentence}: {quoted(words)}"
        sentence = f"{self.api}: {sentence}"
        return self.by_status(sentence, words, answer, now) or self.transient(sentence, answer)


def quota_reset(now: datetime, *, late_by: timedelta) -> datetime:
    """When to probe again after a quota refusal: the next KST midnight.

    A reset may come up to `late_by` after midnight. A refusal in that time speaks of yesterday's
    quota, and waiting for the next midnight would lose a day: then it is ten minutes, or the end
    of that time.
    """
    today = datetime.combine(now.astimezone(KST).date(), time(), KST)
    if now < today + late_by:
        return min(now.astimezone(KST) + timedelta(minutes=10), today + late_by)
    return today + timedelta(days=1)
