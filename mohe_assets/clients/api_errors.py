"""Wording of the errors of an API, and their classification by status and text."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from mohe_assets.clients.exchange import Response
from mohe_assets.clients.response_body import Body, BodyKind, quoted, words_of
from mohe_assets.domain.kst import KST, day_start
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
# Redirects are included: the APIs redirect to maintenance pages only.
SERVER_TROUBLE = {*range(300, 400), 408, 425, *range(500, 600)}
REQUEST_REFUSED = {404, 405, 406, 410, 413, 415}


class Limit(StrEnum):
    """The two limits that a refusal can mean."""

    QUOTA = "quota"
    RATE = "rate"


# The first match decides: "daily rate limit" is a quota, "requests per second exceeds" a rate.
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
    """Return the limit that the text of a refusal names, or None."""
    folded = words.replace("_", " ").lower()
    return next((limit for pattern, limit in _LIMITS if pattern.search(folded)), None)


@dataclass(frozen=True, kw_only=True)
class ApiErrors:
    """Factory of the errors of an API.

    `api` is its short name in messages and in the shared rate limiter. `code_prefix` begins the
    signature of an error with a code. `variables` hold the keys. The advice texts become part of
    the errors of their kind. `reset_late_by` is the longest delay of a quota reset after midnight.
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
        """Too many calls per second; `retry_after` is at least 1 s, the unit of the limits."""
        return RateLimited(
            sentence,
            api=self.api,
            retry_after=max(1.0, answer.retry_after or 0.0),
            unknown_shape=unknown_shape,
        )

    def limited(self, sentence: str, words: str, answer: Response, now: datetime) -> ApiError:
        """HTTP 429: quota or rate by its text, else a rate refusal of unknown shape."""
        limit = limit_named(words)
        if limit is Limit.QUOTA:
            return self.quota(sentence, now)
        return self.rate(sentence, answer, unknown_shape=limit is None)

    def transient(self, sentence: str, answer: Response, *, code: str = "") -> TransientApiError:
        """A temporary failure of the API. Its status identifies the cause better than a code."""
        return TransientApiError(
            sentence,
            api=self.api,
            retry_after=answer.retry_after or 0.0,
            signature=self.signature(answer, "" if answer.status in SERVER_TROUBLE else code),
        )

    def refused(self, sentence: str, *, signature: str) -> RequestRefused:
        """A refusal of all our requests."""
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
        """Return the prefixed code (codes SE… without prefix), or the status without a code."""
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
        """Return the error of a status whose meaning does not depend on the body, else None."""
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
        """Return the error of a body that is not from the API: by its status, for 429 by its text.

        A 403 without an error of the API is transient: it comes from a firewall or gateway in
        front. As a wrong key it would stop the collection until a person intervenes.
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
    """Return the time of the next probe after a quota refusal: the next KST midnight.

    A reset can be up to `late_by` late. A refusal in that time may concern yesterday's quota, so
    the next probe is then after ten minutes, at the latest at the end of that time.
    """
    today = day_start(now)
    if now < today + late_by:
        return min(now.astimezone(KST) + timedelta(minutes=10), today + late_by)
    return today + timedelta(days=1)
