"""A stop asked for by any thread ends whatever sleeps."""

import asyncio
import math
import threading
import time
from collections.abc import Callable

import pytest

from mohe_assets.collection.cancellation import Stop
from mohe_assets.errors import StopRequested


def test_a_pause_ends_by_itself_when_nobody_stops_it() -> None:
    asyncio.run(Stop().pause(0.01, "never"))


def test_a_stop_of_another_thread_ends_every_pause_at_once() -> None:
    async def sleepers() -> list[BaseException | None]:
        pauses = [asyncio.create_task(stop.pause(60, f"sleeper {number}")) for number in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=stop.set).start()
        return await asyncio.gather(*pauses, return_exceptions=True)

    stop, began = Stop(), time.monotonic()
    found = asyncio.run(sleepers())
    assert [(type(one), str(one)) for one in found] == [
        (StopRequested, f"sleeper {number}") for number in range(3)
    ]
    assert time.monotonic() - began < 30


def test_nobody_begins_to_sleep_after_a_stop() -> None:
    stop = Stop()
    stop.set()
    for seconds in (0, 60):
        with pytest.raises(StopRequested, match="too late"):
            asyncio.run(stop.pause(seconds, "too late"))


def test_in_doubt_one_waits_until_one_is_sure_or_stopped() -> None:
    async def wait_for(end: Callable[[], None]) -> float:
        stop.sure_until, began = time.monotonic(), time.monotonic()
        threading.Timer(0.2, end).start()
        await stop.be_sure("in doubt")
        return time.monotonic() - began

    stop = Stop()
    asyncio.run(stop.be_sure("never in doubt"))
    assert asyncio.run(wait_for(lambda: setattr(stop, "sure_until", math.inf))) >= 0.2
    with pytest.raises(StopRequested, match="in doubt"):
        asyncio.run(wait_for(stop.set))


def test_who_comes_after_a_stop_is_woken_all_the_same_and_who_has_left_is_not() -> None:
    stop, woken = Stop(), list[str]()
    with stop.waking(lambda: woken.append("left before")):
        pass
    with stop.waking(lambda: woken.append("there")):
        stop.set()
    with stop.waking(lambda: woken.append("late")):
        pass
    assert (woken, stop.is_set()) == (["there", "late"], True)
