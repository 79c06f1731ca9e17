"""Every error the project raises, arranged by what the caller does next.

    MoheError
    ├── SettingsError            never retry: a person fixes the named variable
    ├── DatabaseUnavailable      never retry here: the database cannot be reached or its schema is not current
    │   └── NotPermitted         never retry: the role that connected may not do this
    ├── ApiError                 an API did not give what was asked for
    │   ├── TransientApiError    retry soon (the HTTP client does), then the region fails and its back-off decides
    │   │   └── RateLimited      retry soon, and everybody slows down
    │   ├── QuotaExhausted       stop until `reset_at`
    │   ├── ApiBlocked           never retry: wrong or refused credentials; names the variable to look at
    │   ├── BadQuery             never retry this query: skip it and go on
    │   └── AnswerChanged        their answer does not have the documented shape; the region fails, a person looks
    ├── RegionListRefused        the region list was read but must not be believed; the old one stays
    ├── ReplayRefused            a run is alive: replay later
    ├── LeaseLost                another run holds the region now: drop it and write nothing
    └── StopRequested            the process is ending: release what is held

No message of these errors ever contains a key, or a URL with one.
"""

from datetime import datetime
from enum import StrEnum


class FailureKind(StrEnum):
    """Why a region failed, as kept in `batch_checkpoint.failure_kind`."""

    TRANSIENT = "transient"
    ANSWER_CHANGED = "answer_changed"
    CALL_BUDGET = "call_budget"
    INTERNAL = "internal"


class MoheError(Exception):
    """Root of the tree; `str(error)` is one sentence for a person."""


class SettingsError(MoheError):
    """A setting is missing or malformed; the sentence names the variable and what is allowed."""


class DatabaseUnavailable(MoheError):
    """The database cannot be reached, or its schema is not the one this version needs."""


class NotPermitted(DatabaseUnavailable):
    """The role that connected lacks a right, see sql/roles.sql."""


class ApiError(MoheError):
    """An API did not give what was asked for. `api` is its short name, `calls` how many calls were
    sent for it.
    """

    def __init__(self, message: str, *, api: str, calls: int = 1) -> None:
        super().__init__(message)
        self.api = api
        self.calls = calls


class TransientApiError(ApiError):
    """5xx, time-out, reset, blank or HTML body: worth another try, not before `retry_after`
    seconds.
    """

    def __init__(self, message: str, *, api: str, retry_after: float = 0.0, calls: int = 1) -> None:
        super().__init__(message, api=api, calls=calls)
        self.retry_after = retry_after


class RateLimited(TransientApiError):
    """The per-second limit was hit. `retry_after` is in seconds."""

    def __init__(self, message: str, *, api: str, retry_after: float = 1.0, calls: int = 1) -> None:
        super().__init__(message, api=api, retry_after=retry_after, calls=calls)


class QuotaExhausted(ApiError):
    """No calls are left. `reset_at` is aware, or None when only the server knows (then the next KST
    midnight holds).
    """

    def __init__(
        self, message: str, *, api: str, reset_at: datetime | None = None, calls: int = 1
    ) -> None:
        super().__init__(message, api=api, calls=calls)
        self.reset_at = reset_at


class ApiBlocked(ApiError):
    """The API refuses these credentials. `variables` names the settings to look at."""

    def __init__(
        self, message: str, *, api: str, variables: tuple[str, ...], calls: int = 1
    ) -> None:
        super().__init__(message, api=api, calls=calls)
        self.variables = variables


class BadQuery(ApiError):
    """This one query is refused (classic SE01): asking again cannot help."""


class AnswerChanged(ApiError):
    """The body parses but does not have the documented shape."""


class RegionListRefused(MoheError):
    """A complete download that differs too much from what is known to be accepted unasked."""


class ReplayRefused(MoheError):
    """A run is alive, whose answers a replay would miss; the sentence names it."""


class LeaseLost(MoheError):
    """The region's lease was taken by another run; nothing may be written for it any more."""


class StopRequested(MoheError):
    """The process was asked to stop while it waited."""
