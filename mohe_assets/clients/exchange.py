"""Records of an HTTP exchange: time-outs, response, and the error without a response."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Time-outs in seconds. `read` limits the silence between two bytes, `total` the whole call."""

    connect: float = 3.0
    read: float = 5.0
    total: float = 8.0


@dataclass(frozen=True, kw_only=True)
class Response:
    """An uninterpreted response, with our keys masked.

    `retry_after` is in seconds, at most MAX_RETRY_AFTER, None without the header.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None = None


class NoResponse(Exception):
    """No complete answer came. The text contains no key; `signature` is that of ApiError."""

    def __init__(self, message: str, *, signature: str) -> None:
        super().__init__(message)
        self.signature = signature
