"""One HTTP exchange as plain records: its time-outs, its answer, and why none came."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds. `read` is the longest silence between two bytes, `total` bounds the whole call."""

    connect: float = 3.0
    read: float = 5.0
    total: float = 8.0


@dataclass(frozen=True, kw_only=True)
class Response:
    """What came back, uninterpreted, our keys masked where it echoed them.

    `retry_after` is in seconds, bounded, None when the server did not say.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None = None


class NoResponse(Exception):
    """No whole answer came. The text is ours and safe to show; `signature` is that of ApiError."""

    def __init__(self, message: str, *, signature: str) -> None:
        super().__init__(message)
        self.signature = signature
