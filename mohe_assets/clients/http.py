"""The one owner of short retries: every call asks the gate first, and tells it how it ended.

What an answer means is the business of the function that reads it; hours are the business of the
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
    """Asked before every HTTP call, told how it ended. A reserved call counts, whatever became of
    it.
    """

    async def reserve(self) -> None:
        """Wait until a call may be sent; raises QuotaExhausted, ApiBlocked or StopRequested
        instead.
        """

    async def answered(self) -> None:
        """A usable answer came, or one that refuses this query only."""

    async def refused(self, error: ApiError) -> None:
        """RateLimited, QuotaExhausted, ApiBlocked or RequestRefused: for all who share the API."""

    async def failed(self, error: ApiError) -> None:
        """No usable answer: a transient failure, an UnusableAnswer or AnswerChanged."""


class LocalRateLimiter:
    """Lets every call through, at most `calls_per_second` of them if that is given. For one event
    loop only.
    """

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
    """Bounds of the short retries, waits in seconds.

    A rate refusal is no failure: it says that the service is well and we are too fast, so it has a
    bound of its own and the failures are not counted together with it. `sleep` may raise
    StopRequested.
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
    """GET requests to one API, with its keys, its gate and its retries. Many tasks of one event
    loop may share one.
    """

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
        self._gate = rate_limiter
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
        """Return what `read` makes of the answer, and how many calls it took; the error's `calls`
        says the same.

        `read` raises an ApiError for an answer that is none. A call that never reached the server
        is counted, too: nobody can tell whether it did. `read_at_last` reads the last answer more
        leniently when the retries ended with an UnusableAnswer.
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
        # Outside of the handler, so that no error has another as its context.
        try:
            value = read_at_last(tally.answer)
        except ApiError as error:
            error.calls = tally.calls
            raise
        await self._gate.answered()
        return value, tally.calls

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _with_retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        # The usual case first, by itself: to set up what follows takes as long as to read an
        # answer.
        try:
            return await attempt()
        except TransientApiError as error:
            met = [error]

        async def again() -> T:
            if met:
                raise met.pop()
            return await attempt()

        async def at_their_pace() -> T:
            return await too_fast(again)

        policy = self._retry
        too_fast = self._retrying(_is_rate_refusal, policy.rate_attempts, policy.rate_first_wait)
        failing = self._retrying(_is_failure, policy.attempts, policy.first_wait)
        return await failing(at_their_pace)

    def _retrying(
        self, worth_it: Callable[[BaseException], bool], attempts: int, first_wait: float
    ) -> AsyncRetrying:
        growing = wait_exponential(multiplier=first_wait, max=self._retry.max_wait) + wait_random(
            0, self._retry.jitter
        )
        return AsyncRetrying(
            retry=retry_if_exception(worth_it),
            stop=stop_after_attempt(attempts),
            wait=lambda state: max(growing(state), _asked_wait(state)),
            sleep=self._retry.sleep,
            before_sleep=self._log_retry,
            reraise=True,
        )

    async def _attempt(
        self, path: str, params: Mapping[str, str], read: Callable[[Response], T], tally: _Tally
    ) -> T:
        await self._gate.reserve()
        tally.calls += 1
        tally.answer = None
        try:
            tally.answer = await self._transport.get(path, params)
            value = read(tally.answer)
        except ApiError as error:
            error.args = (self._credentials.mask(str(error)),)
            error.calls = tally.calls
            await self._tell_rate_limiter(error)
            raise
        await self._gate.answered()
        return value

    async def _tell_rate_limiter(self, error: ApiError) -> None:
        match error:
            case RateLimited() | QuotaExhausted() | ApiBlocked() | RequestRefused():
                await self._gate.refused(error)
            case BadQuery():
                await self._gate.answered()
            case _:
                await self._gate.failed(error)

    def _log_retry(self, state: RetryCallState) -> None:
        wait = state.next_action.sleep if state.next_action else 0.0
        logger.info("%s; next try in %.1f s", _outcome(state), wait)


def _outcome(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _asked_wait(state: RetryCallState) -> float:
    error = _outcome(state)
    return error.retry_after if isinstance(error, TransientApiError) else 0.0


def _is_rate_refusal(error: BaseException) -> bool:
    return isinstance(error, RateLimited)


def _is_failure(error: BaseException) -> bool:
    return isinstance(error, TransientApiError) and not isinstance(error, RateLimited)
