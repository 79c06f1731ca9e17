"""What many tasks ask for at the same time, done by one call: a group commit, as databases know it
for their own log.
"""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Done = TypeVar("Done")


@dataclass(kw_only=True)
class GroupCommit(Generic[Asked, Done]):
    """Calls `work`, in a thread, with all that was asked for while its last call was under way;
    each asker gets its own result.

    `work` returns a result for each, in order; an exception among them is raised for whoever asked,
    one it raises for all. `gather_seconds` are waited for more to come before each call, if the one
    before was for at least `gather_from`. Belongs to one event loop.
    """

    work: Callable[[Sequence[Asked]], Sequence[Done | Exception]]
    most: int = 128
    gather_seconds: float = 0.0
    gather_from: int = 0
    _last: int = 0
    _waiting: list[tuple[Asked, asyncio.Future[Done]]] = field(default_factory=list)
    _working: asyncio.Task[None] | None = None
    # Of the run, not of whoever happened to ask first: what is logged meanwhile concerns all.
    _context: contextvars.Context = field(default_factory=contextvars.copy_context)

    async def __call__(self, asked: Asked) -> Done:
        result: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, result))
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
                await self._do(batch)
        finally:
            self._working = None

    async def _do(self, batch: list[tuple[Asked, asyncio.Future[Done]]]) -> None:
        found: Sequence[Done | Exception]
        try:
            found = await asyncio.to_thread(self.work, [asked for asked, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to everybody who asked, who raise it
            found = [error] * len(batch)
        for (_, result), one in zip(batch, found, strict=True):
            if result.done():  # whoever asked was cancelled meanwhile
                continue
            if isinstance(one, Exception):
                result.set_exception(one)
            else:
                result.set_result(one)
