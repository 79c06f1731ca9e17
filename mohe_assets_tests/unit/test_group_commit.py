"""Simultaneous requests share few calls, and each caller gets its own result."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from mohe_assets.collection.group_commit import GroupCommit


class Doubling:
    """Doubles numbers, in calls that the test releases one by one."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.called, self.go_on = threading.Event(), threading.Semaphore(0)

    def __call__(self, asked: Sequence[int]) -> Sequence[int | Exception]:
        self.calls.append(list(asked))
        self.called.set()
        assert self.go_on.acquire(timeout=10)
        if 99 in asked:
            raise ConnectionError("for all")
        return [ValueError(f"not {one}") if one == 13 else one * 2 for one in asked]


async def ask(together: GroupCommit[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    asked = [asyncio.create_task(together(number)) for number in numbers]
    await asyncio.sleep(0)
    return asked


async def until_called(doubling: Doubling) -> None:
    assert await asyncio.to_thread(doubling.called.wait, 10)


def test_what_is_asked_for_during_a_call_is_done_by_the_next_one() -> None:
    async def scenario() -> list[int]:
        together = GroupCommit(work=doubling)
        first = await ask(together, 1)
        await until_called(doubling)
        others = await ask(together, 2, 3, 4)
        doubling.go_on.release(2)
        return await asyncio.gather(*first, *others)

    doubling = Doubling()
    assert asyncio.run(scenario()) == [2, 4, 6, 8]
    assert doubling.calls == [[1], [2, 3, 4]]


def test_a_call_takes_no_more_than_it_may() -> None:
    async def scenario() -> list[int]:
        together = GroupCommit(work=doubling, most=2)
        doubling.go_on.release(3)
        return await asyncio.gather(*await ask(together, 1, 2, 3, 4, 5))

    doubling = Doubling()
    assert asyncio.run(scenario()) == [2, 4, 6, 8, 10]
    assert doubling.calls == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(("gather_from", "calls"), [(2, [[1, 2], [3, 4]]), (3, [[1, 2], [3], [4]])])
def test_more_is_waited_for_where_there_were_many_before(
    gather_from: int, calls: list[list[int]]
) -> None:
    async def scenario() -> None:
        together = GroupCommit(work=doubling, gather_seconds=0.2, gather_from=gather_from)
        doubling.go_on.release(4)
        await asyncio.gather(*await ask(together, 1, 2))
        third = await ask(together, 3)
        await asyncio.sleep(0.05)
        await asyncio.gather(*third, *await ask(together, 4))

    doubling = Doubling()
    asyncio.run(scenario())
    assert doubling.calls == calls


def test_an_error_of_one_is_raised_for_that_one_and_an_error_of_the_call_for_all_callers() -> None:
    async def scenario() -> list[int | BaseException]:
        together = GroupCommit(work=doubling)
        doubling.go_on.release(3)
        one = await asyncio.gather(*await ask(together, 1, 13), return_exceptions=True)
        all_ = await asyncio.gather(*await ask(together, 99, 2), return_exceptions=True)
        return [*one, *all_, await together(5)]

    doubling = Doubling()
    found = asyncio.run(scenario())
    assert [str(one) for one in found] == ["2", "not 13", "for all", "for all", "10"]


def test_who_gives_up_waiting_keeps_nobody_from_their_result() -> None:
    async def scenario() -> int:
        together = GroupCommit(work=doubling)
        gives_up, stays = await ask(together, 1, 2)
        await until_called(doubling)
        gives_up.cancel()
        doubling.go_on.release(1)
        with pytest.raises(asyncio.CancelledError):
            await gives_up
        return await stays

    doubling = Doubling()
    assert asyncio.run(scenario()) == 4
