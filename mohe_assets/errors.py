"""Errors with a meaning for the caller, arranged by the caller's next action.

    MoheError
    ├── SettingsError            no retry: a person corrects the named variable
    ├── DatabaseUnavailable      no retry: unreachable database, or a schema that is not current
    │   └── NotPermitted         no retry: the database role lacks a right
    ├── ApiError                 no usable answer of an API
    │   ├── TransientApiError    the HTTP client retries; then the region fails and backs off
    │   │   ├── UnusableAnswer   as above; every answer was unreadable or contradictory
    │   │   └── RateLimited      the HTTP client retries, and all processes slow down
    │   ├── QuotaExhausted       stop until `reset_at`
    │   ├── ApiUnavailable       stop until a probe gets a usable answer
    │   ├── ApiBlocked           no retry: refused credentials; names the variables to check
    │   ├── RequestRefused       no retry: the API refuses all our requests; see `advice`
    │   ├── BadQuery             no retry: skip this query
    │   └── AnswerChanged        undocumented shape: the region fails, a person investigates
    ├── OriginMismatch           no retry: data of the simulator with keys of real APIs
    ├── RegionListRefused        the new region list is not accepted; the old list stays
    ├── ReplayRefused            a run is alive: replay later
    ├── LeaseLost                another run holds the region: stop and write nothing
    └── StopRequested            the process is ending: release all regions

Their messages never contain a key, or a URL with a key. Errors that stay inside a module (such as
NoResponse in clients), of libraries and of wrong use (ValueError) are not part of the tree.
"""

from datetime import datetime
from enum import StrEnum

from mohe_assets.text.cleaning import one_line


class FailureKind(StrEnum):
    """The reason a region failed; the values of `batch_checkpoint.failure_kind`."""

    TRANSIENT = "transient"
    ANSWER_CHANGED = "answer_changed"
    CALL_BUDGET = "call_budget"
    NO_PLACES = "no_places"
    INTERNAL = "internal"


class MoheError(Exception):
    """Root of the tree; `str(error)` is a sentence for users."""


class SettingsError(MoheError):
    """A setting is missing or malformed; the message names the variable and the allowed values."""


class DatabaseUnavailable(MoheError):
    """The database cannot be reached, or its schema is not the version that this package needs.

    `advice` is the action for a person; it is part of the message.
    """

    def __init__(self, state: str, advice: str = "") -> None:
        super().__init__(f"{state} {advice}".rstrip())
        self.state = state
        self.advice = advice


class NotPermitted(DatabaseUnavailable):
    """The database role lacks a right, see sql/roles.sql."""


class ApiError(MoheError):
    """An API did not return a usable answer.

    `api` is its short name, `calls` the number of calls sent. `signature` is equal for failures
    with the same cause: "http-503", "timeout", "html", "SE05", "hub-300".
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
        super().__init__(one_line(sentence))  # the message may quote the server
        self.api = api
        self.calls = calls
        self.signature = signature or type(self).__name__
        self.advice = advice


class TransientApiError(ApiError):
    """5xx, time-out, reset, blank or HTML body: retry after at least `retry_after` seconds."""

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

    The client retries it and raises it after the last retry.
    """


class RateLimited(TransientApiError):
    """The limit per second was exceeded; `retry_after` is in seconds.

    `unknown_shape`: the refusal (HTTP 429) could not be read and may mean the quota.
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

    `reset_at` is aware; None: unknown, the next KST midnight is assumed. `if_never_answered` is
    another possible cause if the API has never answered these credentials.
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
    """No usable answer since `since`; the next probe is due at `next_probe_at`.

    `answers_changed`: the API answers, but no answer can be used.
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
    """The API refuses these credentials; `variables` are the settings to check."""

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
    """The API refuses all our requests (404, 405, 413, SE02 to SE06, HUB 100 and 300).

    The cause is no particular region or query.
    """


class BadQuery(ApiError):
    """The API refuses this query only (SE01); a retry cannot help."""


class AnswerChanged(ApiError):
    """The body parses but does not have the documented shape."""


class OriginMismatch(MoheError):
    """The data is from the simulator and the keys are of a real API, or the other way round."""


class RegionListRefused(MoheError):
    """A complete download that differs too much from the known list to be accepted unasked."""


class ReplayRefused(MoheError):
    """A run is alive, and a replay would miss its answers; the message names the run."""


class LeaseLost(MoheError):
    """Another run has taken the region's lease; nothing may be written for the region."""


class StopRequested(MoheError):
    """The process received a request to stop while it waited."""
