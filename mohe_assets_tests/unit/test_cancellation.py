"""A stop requested by any thread ends every sleep."""

import asyncio
import math
import threading
import time
from collections.abc import Callable

import pytest

from mohe_assets.collection.cancellation import CancellationToken, LeaseClock
from mohe_assets.errors import StopRequested


def test_a_pause_ends_by_itself_when_nobody_stops_it() -> None:
    asyncio.run(CancellationToken().pause(0.01, "never"))


def test_a_stop_of_another_thread_ends_every_pause_at_once() -> None:
    async def sleepers() -> list[BaseException | None]:
        pauses = [asyncio.create_task(stop.pause(60, f"sleeper {number}")) for number in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=stop.cancel).start()
        return await asyncio.gather(*pauses, return_exceptions=True)

    stop, began = CancellationToken(), time.monotonic()
    found = asyncio.run(sleepers())
    assert [(type(one), str(one)) for one in found] == [
        (StopRequested, f"sleeper {number}") for number in range(3)
    ]
    assert time.monotonic() - began < 30


def test_nobody_begins_to_sleep_after_a_stop() -> None:
    stop = CancellationToken()
    stop.cancel()
    for seconds in (0, 60):
        with pytest.raises(StopRequested, match="too late"):
            asyncio.run(stop.pause(seconds, "too late"))


def test_in_doubt_x_until_one_is_sure_or_stopped() -> None:
    async def wait_for(end: Callable[[], None]) -> float:
        clock.confirmed_until, began = time.monotonic(), time.monotonic()
        threading.Timer(0.2, end).start()
        await clock.wait_until_confirmed(stop, "in doubt")
        return time.monotonic() - began

    stop, clock = CancellationToken(), LeaseClock()
    asyncio.run(clock.wait_until_confirmed(stop, "never in doubt"))
    assert asyncio.run(wait_for(lambda: setattr(clock, "confirmed_until", math.inf))) >= 0.2
    with pytest.raises(StopRequested, match="in doubt"):
        asyncio.run(wait_for(stop.cancel))


def test_who_comes_after_a_stop_is_woken_all_the_same_and_who_has_left_is_not() -> None:
    stop, woken = CancellationToken(), list[str]()
    with stop.waking(lambda: woken.append("left before")):
        pass
    with stop.waking(lambda: woken.append("there")):
        stop.cancel()
    with stop.waking(lambda: woken.append("late")):
        pass
    assert (woken, stop.is_cancelled()) == (["there", "late"], True)
