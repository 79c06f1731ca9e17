"""HTTP client with short retries; each call is reserved and reported at a rate limiter.

Answers are interpreted by the caller's `read` function; delays of minutes and hours belong to the
checkpoint.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from mohe_assets.clients.credentials import Credentials
from mohe_assets.clients.exchange import Response, Timeouts
from mohe_assets.clients.transport import Transport
from mohe_assets.errors import (
    ApiBlocked,
    ApiError,
    BadQuery,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    TransientApiError,
    UnusableAnswer,
)

T = TypeVar("T")
logger = logging.getLogger(__name__)


class RateLimiter(Protocol):
    """Limits the calls of an API and receives their outcomes. Every reserved call counts."""

    async def reserve(self) -> None:
        """Wait until a call may be sent.

        Raises QuotaExhausted, ApiUnavailable, ApiBlocked or StopRequested instead.
        """

    async def answered(self) -> None:
        """Record a usable answer, or the refusal of a single query."""

    async def refused(self, error: ApiError) -> None:
        """Record a refusal: RateLimited, QuotaExhausted, ApiBlocked or RequestRefused."""

    async def failed(self, error: ApiError) -> None:
        """Record a call without usable answer: TransientApiError or AnswerChanged."""


class LocalRateLimiter:
    """Allows at most `calls_per_second` calls, None: unlimited. For a single event loop."""

    def __init__(
        self,
        *,
        calls_per_second: float | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval = 1 / calls_per_second if calls_per_second else 0.0
        self._sleep = sleep
        self._next = 0.0

    async def reserve(self) -> None:
        now = time.monotonic()
        slot = max(now, self._next)
        self._next = slot + self._interval
        if slot > now:
            await self._sleep(slot - now)

    async def answered(self) -> None:
        pass

    async def refused(self, error: ApiError) -> None:
        pass

    async def failed(self, error: ApiError) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Limits of the short retries, waits in seconds.

    Rate refusals are counted separately from failures: they mean that the API works and we are too
    fast. `sleep` may raise StopRequested.
    """

    attempts: int = 4
    first_wait: float = 0.5
    max_wait: float = 8.0
    jitter: float = 0.5
    rate_attempts: int = 20
    rate_first_wait: float = 1.0
    sleep: Callable[[float], Awaitable[None]] = field(
        default=asyncio.sleep, repr=False, compare=False
    )


@dataclass
class _Tally:
    calls: int = 0
    answer: Response | None = None  # of the last call


class HttpClient:
    """GET requests to an API with keys, rate limit and retries; tasks of an event loop share it."""

    def __init__(
        self,
        *,
        api: str,
        base_url: str,
        credentials: Credentials,
        rate_limiter: RateLimiter,
        retry: RetryPolicy,
        timeouts: Timeouts,
    ) -> None:
        self._api = api
        self._credentials = credentials
        self._rate_limiter = rate_limiter
        self._retry = retry
        self._transport = Transport(
            api=api, base_url=base_url, credentials=credentials, timeouts=timeouts
        )

    async def get(
        self,
        path: str,
        params: Mapping[str, str],
        read: Callable[[Response], T],
        *,
        read_at_last: Callable[[Response], T] | None = None,
    ) -> tuple[T, int]:
        """Return the result of `read` for the answer and the number of calls made.

        `read` raises ApiError for an unusable answer; `calls` of a raised error is the number of
        calls, too. Calls that may not have reached the server are counted. If the retries end with
        an UnusableAnswer, `read_at_last` reads the last answer more leniently.
        """
        tally = _Tally()
        try:
            value = await self._with_retry(lambda: self._attempt(path, params, read, tally))
        except ApiError as error:
            error.calls = tally.calls
            is_unusable = isinstance(error, UnusableAnswer)
            if not is_unusable or read_at_last is None or tally.answer is None:
                raise
        else:
            return value, tally.calls
        # Outside the handler, so that no error has another error as its context.
        try:
            value = read_at_last(tally.answer)
        except ApiError as error:
            error.calls = tally.calls
            raise
        await self._rate_limiter.answered()
        return value, tally.calls

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _with_retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        # Without tenacity in the usual case: its setup takes as long as reading an answer.
        try:
            return await attempt()
        except TransientApiError as error:
            first_error = [error]

        async def attempt_again() -> T:
            if first_error:
                raise first_error.pop()
            return await attempt()

        async def within_rate() -> T:
            return await rate_retries(attempt_again)

        def is_rate_refusal(error: BaseException) -> bool:
            return isinstance(error, RateLimited)

        def is_failure(error: BaseException) -> bool:
            return isinstance(error, TransientApiError) and not is_rate_refusal(error)

        policy = self._retry
        rate_retries = self._retrying(is_rate_refusal, policy.rate_attempts, policy.rate_first_wait)
        failure_retries = self._retrying(is_failure, policy.attempts, policy.first_wait)
        return await failure_retries(within_rate)

    def _retrying(
        self, is_retried: Callable[[BaseException], bool], attempts: int, first_wait: float
    ) -> AsyncRetrying:
        exponential = wait_exponential(multiplier=first_wait, max=self._retry.max_wait)
        back_off = exponential + wait_random(0, self._retry.jitter)

        def wait(state: RetryCallState) -> float:
            error = _outcome(state)
            retry_after = error.retry_after if isinstance(error, TransientApiError) else 0.0
            return max(back_off(state), retry_after)

        def log(state: RetryCallState) -> None:
            seconds = state.next_action.sleep if state.next_action else 0.0
            logger.info("%s; next try in %.1f s", _outcome(state), seconds)

        return AsyncRetrying(
            retry=retry_if_exception(is_retried),
            stop=stop_after_attempt(attempts),
            wait=wait,
            sleep=self._retry.sleep,
            before_sleep=log,
            reraise=True,
        )

    async def _attempt(
        self, path: str, params: Mapping[str, str], read: Callable[[Response], T], tally: _Tally
    ) -> T:
        await self._rate_limiter.reserve()
        tally.calls += 1
        tally.answer = None
        try:
            tally.answer = await self._transport.get(path, params)
            value = read(tally.answer)
        except ApiError as error:
            error.args = (self._credentials.mask(str(error)),)
            error.calls = tally.calls
            match error:
                case RateLimited() | QuotaExhausted() | ApiBlocked() | RequestRefused():
                    await self._rate_limiter.refused(error)
                case BadQuery():
                    await self._rate_limiter.answered()
                case _:
                    await self._rate_limiter.failed(error)
            raise
        await self._rate_limiter.answered()
        return value


def _outcome(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
