"""Every error the project raises, arranged by what the caller does next.

    MoheError
    ├── SettingsError            never retry: a person fixes the named variable
    ├── DatabaseUnavailable      never retry here: the database cannot be reached or its schema is not current
    │   └── NotPermitted         never retry: the role that connected may not do this
    ├── ApiError                 an API did not give what was asked for
    │   ├── TransientApiError    retry soon (the HTTP client does), then the region fails and its back-off decides
    │   │   ├── UnusableAnswer   retried; each time the answer was unreadable or contradictory
    │   │   └── RateLimited      retry soon, and everybody slows down
    │   ├── QuotaExhausted       stop until `reset_at`
    │   ├── ApiUnavailable       stop: no request gets a usable answer; probed until one does
    │   ├── ApiBlocked           never retry: wrong or refused credentials; names the variable to look at
    │   ├── RequestRefused       never retry: the API as such refuses our requests; see `advice`
    │   ├── BadQuery             never retry this query: skip it and go on
    │   └── AnswerChanged        their answer does not have the documented shape; the region fails, a person looks
    ├── OriginMismatch           never retry: the data is the simulator's and the keys are not
    ├── RegionListRefused        the region list was read but must not be believed; the old one stays
    ├── ReplayRefused            a run is alive: replay later
    ├── LeaseLost                another run holds the region now: drop it and write nothing
    └── StopRequested            the process is ending: release what is held

No message of these errors ever contains a key, or a URL with one.
"""

from datetime import datetime
from enum import StrEnum

from mohe_assets.text.cleaning import one_line


class FailureKind(StrEnum):
    """Why a region failed, as kept in `batch_checkpoint.failure_kind`."""

    TRANSIENT = "transient"
    ANSWER_CHANGED = "answer_changed"
    CALL_BUDGET = "call_budget"
    NO_PLACES = "no_places"
    INTERNAL = "internal"


class MoheError(Exception):
    """Root of the tree; `str(error)` is one sentence for a person."""


class SettingsError(MoheError):
    """A setting is missing or malformed; the sentence names the variable and what is allowed."""


class DatabaseUnavailable(MoheError):
    """The database cannot be reached, or its schema is not the one this version needs.

    `advice` is what a person can do about it; it is a part of the message, too.
    """

    def __init__(self, state: str, advice: str = "") -> None:
        super().__init__(f"{state} {advice}".rstrip())
        self.state = state
        self.advice = advice


class NotPermitted(DatabaseUnavailable):
    """The role that connected lacks a right, see sql/roles.sql."""


class ApiError(MoheError):
    """An API did not return a usable answer.

    `api` is its short name, `calls` the number of calls sent. `signature` is equal for failures
    with the same cause, whatever their words: "http-503", "timeout", "html", "SE05", "hub-300".
    `advice` is the action for a person, "" when waiting is enough; it is part of the message.
    """

    def __init__(
        self,
        message: str,
        *,
        api: str,
        calls: int = 1,
        signature: str = "",
        advice: str = "",
    ) -> None:
        sentence = f"{message}; {advice}" if advice else message
        super().__init__(one_line(sentence))  # it quotes the server
        self.api = api
        self.calls = calls
        self.signature = signature or type(self).__name__
        self.advice = advice


class TransientApiError(ApiError):
    """5xx, time-out, reset, blank or HTML body: retry, but not before `retry_after` seconds."""

    def __init__(
        self,
        message: str,
        *,
        api: str,
        retry_after: float = 0.0,
        calls: int = 1,
        signature: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(message, api=api, calls=calls, signature=signature, advice=advice)
        self.retry_after = retry_after


class UnusableAnswer(TransientApiError):
    """An answer that cannot be read, or that contradicts itself (a total without items).

    The client retries it. Raised at the end, it says that every retry had the same result.
    """


class RateLimited(TransientApiError):
    """The per-second limit was hit; `retry_after` is in seconds.

    `unknown_shape`: the refusal (HTTP 429) could not be read, so it may also mean the quota.
    """

    def __init__(
        self,
        message: str,
        *,
        api: str,
        retry_after: float = 1.0,
        calls: int = 1,
        signature: str = "rate",
        unknown_shape: bool = False,
    ) -> None:
        super().__init__(
            message,
            api=api,
            retry_after=retry_after,
            calls=calls,
            signature=signature,
        )
        self.unknown_shape = unknown_shape


class QuotaExhausted(ApiError):
    """No calls are left.

    `reset_at` is aware, or None when only the server knows (the next KST midnight then holds).
    `if_never_answered` is the other possible cause when these credentials have never had an answer.
    """

    def __init__(
        self,
        message: str,
        *,
        api: str,
        reset_at: datetime | None = None,
        calls: int = 1,
        signature: str = "quota",
        if_never_answered: str = "",
    ) -> None:
        super().__init__(message, api=api, calls=calls, signature=signature)
        self.reset_at = reset_at
        self.if_never_answered = if_never_answered


class ApiUnavailable(ApiError):
    """No request gets a usable answer since `since`; the next probe is due at `next_probe_at`.

    `answers_changed`: answers come, but nothing in them can be used.
    """

    def __init__(
        self,
        message: str,
        *,
        api: str,
        since: datetime | None = None,
        next_probe_at: datetime | None = None,
        answers_changed: bool = False,
        calls: int = 0,
    ) -> None:
        super().__init__(message, api=api, calls=calls, signature="unavailable")
        self.since = since
        self.next_probe_at = next_probe_at
        self.answers_changed = answers_changed


class ApiBlocked(ApiError):
    """The API refuses these credentials. `variables` names the settings to look at."""

    def __init__(
        self,
        message: str,
        *,
        api: str,
        variables: tuple[str, ...],
        calls: int = 1,
        signature: str = "key",
        advice: str = "",
    ) -> None:
        super().__init__(message, api=api, calls=calls, signature=signature, advice=advice)
        self.variables = variables


class RequestRefused(ApiError):
    """The API as such refuses our requests (404, 405, 413, SE02 to SE06, HUB 100 and 300).

    Every other request would be refused alike: no region and no query is at fault.
    """


class BadQuery(ApiError):
    """This one query is refused (SE01): repeating it cannot help."""


class AnswerChanged(ApiError):
    """The body parses but does not have the documented shape."""


class OriginMismatch(MoheError):
    """The data is the simulator's and the keys are not, or the other way round."""


class RegionListRefused(MoheError):
    """A complete download that differs too much from what is known to be accepted unasked."""


class ReplayRefused(MoheError):
    """A run is alive, whose answers a replay would miss; the sentence names it."""


class LeaseLost(MoheError):
    """The region's lease was taken by another run; nothing may be written for it any more."""


class StopRequested(MoheError):
    """The process was asked to stop while it waited."""
