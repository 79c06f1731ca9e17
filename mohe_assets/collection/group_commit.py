"""Group commit: requests that arrive while a call is under way share the next call."""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")


@dataclass(kw_only=True)
class GroupCommit(Generic[Request, Result]):
    """Batch the requests that arrive while the previous batch runs and pass them to `work` in one
    call, in a thread. Each caller gets its own result or exception.

    `work` returns the results in order; an exception among them is raised for its caller, an
    exception that `work` raises for all. Before a call, `gather_seconds` are waited for more
    requests if the call before had at least `gather_from`. Belongs to one event loop.
    """

    work: Callable[[Sequence[Request]], Sequence[Result | Exception]]
    most: int = 128
    gather_seconds: float = 0.0
    gather_from: int = 0
    _last: int = 0
    _waiting: list[tuple[Request, asyncio.Future[Result]]] = field(default_factory=list)
    _working: asyncio.Task[None] | None = None
    # Context of the run, not of the first caller: log lines of a batch concern all callers.
    _context: contextvars.Context = field(default_factory=contextvars.copy_context)

    async def __call__(self, request: Request) -> Result:
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, result))
        if self._working is None:
            self._working = asyncio.create_task(self._work(), context=self._context)
        return await result

    async def _work(self) -> None:
        try:
            while self._waiting:
                if self.gather_seconds and self._last >= self.gather_from:
                    await asyncio.sleep(self.gather_seconds)
                batch = self._waiting[: self.most]
                self._last = len(batch)
                del self._waiting[: self.most]
                found: Sequence[Result | Exception]
                try:
                    found = await asyncio.to_thread(self.work, [request for request, _ in batch])
                except Exception as error:  # noqa: BLE001 - handed to every caller, who raises it
                    found = [error] * len(batch)
                for (_, result), one in zip(batch, found, strict=True):
                    if result.done():  # its caller was cancelled
                        continue
                    if isinstance(one, Exception):
                        result.set_exception(one)
                    else:
                        result.set_result(one)
        finally:
            self._working = None
