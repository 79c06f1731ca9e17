"""The calls all processes share. The clock is the test database's own, moved by replacing
budget_clock().

A loop in a thread of its own stands for a process, a Task for a search.
"""

import asyncio
import base64
import datetime as dt
import hashlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar
from unittest.mock import Mock

import pytest
from sqlalchemy import Connection, text

from mohe_assets.collection import rate_limiter as api_budget
from mohe_assets.collection.cancellation import CancellationToken
from mohe_assets.collection.rate_limiter import (
    AGAIN_AT,
    MOST_AHEAD,
    RECHECK_SECONDS,
    SharedRateLimiter,
)
from mohe_assets.errors import (
    ApiBlocked,
    ApiError,
    QuotaExhausted,
    RateLimited,
    StopRequested,
    TransientApiError,
)
from mohe_assets.store import api_state
from mohe_assets.store.api_calls import HEADROOM, PROBE_SECONDS, Slot
from mohe_assets.store.api_state import ApiAccount, ApiState, read_state, unblock
from mohe_assets.store.database import Database, rows

KST = dt.timezone(dt.timedelta(hours=9))
NOON = dt.datetime(2026, 12, 30, 12, tzinfo=KST)
MIDNIGHT = dt.datetime(2026, 12, 31, tzinfo=KST)
ACCOUNT = ApiAccount.of("naver-local", "id", "secret", rate=100_000, daily=1_000, monthly=None)
OTHER_SECRET = ApiAccount.of(
    "naver-local", "id", "another secret", rate=100_000, daily=1_000, monthly=None
)
RATE = RateLimited("too fast", api="naver-local")
BLOCKED = ApiBlocked("look at NAVER_CLIENT_ID", api="naver-local", variables=("NAVER_CLIENT_ID",))
TRANSIENT = TransientApiError("HTTP 500", api="naver-local")

NewBudget = Callable[..., SharedRateLimiter]
Patch = pytest.MonkeyPatch
T = TypeVar("T")

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def quota(until: dt.datetime | None = MIDNIGHT) -> QuotaExhausted:
    return QuotaExhausted("used up", api="naver-local", reset_at=until)


def set_clock(database: Database, moment: dt.datetime) -> None:
    """It stands still there."""
    sql = f"""CREATE OR REPLACE FUNCTION budget_clock() RETURNS timestamptz LANGUAGE sql VOLATILE
              AS $$ SELECT timestamptz '{moment.isoformat()}' $$"""

    def work(connection: Connection) -> None:
        connection.execute(text(sql))

    database.transaction(work)


@pytest.fixture(autouse=True)
def noon(database: Database) -> None:
    """Of a day whose midnight is also close to the end of its month, and never passes during a
    test.
    """
    set_clock(database, NOON)


@pytest.fixture
def new_budget(database: Database) -> NewBudget:
    """Rate limiters of this number of processes."""

    def build(account: ApiAccount = ACCOUNT, **changes: Any) -> SharedRateLimiter:
        return SharedRateLimiter(
            database=database, account=replace(account, **changes), cancellation=CancellationToken()
        )

    return build


@pytest.fixture
async def open_budget(new_budget: NewBudget) -> NewBudget:
    """The same for an API that has answered already."""
    first = new_budget()
    await first.reserve()
    await first.answered()
    return new_budget


@contextmanager
def a_locked_row(database: Database, table: str) -> Iterator[None]:
    """Lock the table's row; other writers wait until the end."""
    with database.engine.begin() as connection:
        connection.execute(text(f"SELECT 1 FROM {table} FOR UPDATE"))
        yield


async def in_processes(
    searches: int, search: Callable[[SharedRateLimiter], Awaitable[T]], *budgets: SharedRateLimiter
) -> list[T]:
    """Run that many searches at once in each of these processes; return their results."""

    async def one_process(rate_limiter: SharedRateLimiter) -> list[T]:
        found = await asyncio.gather(*(search(rate_limiter) for _ in range(searches)))
        await rate_limiter.close()
        return found

    with ThreadPoolExecutor(len(budgets)) as threads:
        found = [threads.submit(asyncio.run, one_process(rate_limiter)) for rate_limiter in budgets]
        return [one for process in found for one in process.result()]


async def soon(is_so: Callable[[], bool]) -> None:
    """Returns when it is."""
    async with asyncio.timeout(60):
        while True:
            if await asyncio.to_thread(is_so):
                return
            await asyncio.sleep(0.01)


def verdict(rate_limiter: SharedRateLimiter) -> str:
    """Return the error that a search would get now, without waiting for its slot."""
    return str(rate_limiter.calls.reserve_row()["verdict"])


def used(database: Database) -> int:
    sql = "SELECT coalesce(sum(reserved), 0)::int AS used FROM api_usage"
    return int(database.transaction(lambda connection: rows(connection, sql))[0]["used"])


def next_slot(database: Database) -> float:
    sql = "SELECT extract(epoch FROM next_slot_at)::float8 AS at FROM api_budget"
    return float(database.transaction(lambda connection: rows(connection, sql))[0]["at"])


async def far_from_their_turn(
    database: Database, rate_limiter: SharedRateLimiter, *, searches: int
) -> tuple[int, list[asyncio.Task[None]]]:
    """Return the calls in use and start that many searches, which have reserved their calls and
    wait for a slot.
    """
    await rate_limiter.reserve()
    before = used(database)
    waiting = [asyncio.create_task(rate_limiter.reserve()) for _ in range(searches)]
    await soon(lambda: used(database) == before + searches)
    return before, waiting


def spacing(rate_limiter: SharedRateLimiter) -> float:
    """Seconds between the next two slots."""
    first, second = rate_limiter.calls.reserve_row(), rate_limiter.calls.reserve_row()
    return float(second["wait_seconds"] - first["wait_seconds"])


class TestRate:
    async def test_slots_are_spaced_by_the_rate_whoever_asks(self, open_budget: NewBudget) -> None:
        budgets = [open_budget(calls_per_second=10) for _ in range(2)]
        waits = [budgets[n % 2].calls.reserve_row()["wait_seconds"] for n in range(20)]
        gaps = [later - earlier for earlier, later in pairwise(waits)]
        assert gaps == pytest.approx([1 / (10 * HEADROOM)] * 19, abs=1e-5)

    async def test_slots_asked_for_at_once_are_all_different(self, open_budget: NewBudget) -> None:
        budgets = [open_budget(calls_per_second=50) for _ in range(2)]
        with ThreadPoolExecutor(8) as threads:
            waits = sorted(
                row["wait_seconds"]
                for row in threads.map(lambda n: budgets[n % 2].calls.reserve_row(), range(100))
            )
        gaps = [later - earlier for earlier, later in pairwise(waits)]
        assert min(gaps) == pytest.approx(1 / (50 * HEADROOM), abs=1e-5)

    async def test_time_nobody_used_is_not_saved_up(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(calls_per_second=10)
        rate_limiter.calls.reserve_row()
        set_clock(database, NOON + dt.timedelta(minutes=1))
        assert [
            rate_limiter.calls.reserve_row()["wait_seconds"] for _ in range(2)
        ] == pytest.approx([0, 1 / (10 * HEADROOM)], abs=1e-5)

    async def test_a_lone_refusal_costs_half_a_per_cent_and_its_call_counts_for_no_quota(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(calls_per_second=10)
        await rate_limiter.reserve()
        await rate_limiter.refused(RATE)
        assert spacing(rate_limiter) == pytest.approx(1 / (10 * HEADROOM * 0.995), rel=1e-4)
        state = read_state(database, rate_limiter.account)
        assert (state.refused_rate, state.used_today, state.open) == (1, used(database) - 1, True)

    async def test_refusals_at_the_same_moment_slow_down_once(self, open_budget: NewBudget) -> None:
        budgets = [open_budget(calls_per_second=10) for _ in range(3)]
        for rate_limiter in budgets:
            await rate_limiter.refused(RATE)
        assert spacing(budgets[0]) == pytest.approx(1 / (10 * HEADROOM * 0.995), rel=1e-4)

    @pytest.mark.parametrize(("apart_ms", "times"), [(400, 1), (600, 2)])
    async def test_refusals_within_half_a_second_slow_down_once(
        self, database: Database, open_budget: NewBudget, apart_ms: int, times: int
    ) -> None:
        rate_limiter = open_budget(calls_per_second=10)
        await rate_limiter.refused(RATE)
        set_clock(database, NOON + dt.timedelta(milliseconds=apart_ms))
        await rate_limiter.refused(RATE)
        slower = 1 / (10 * HEADROOM * 0.995**times)
        assert spacing(rate_limiter) == pytest.approx(slower, rel=1e-3)

    async def test_refusals_that_go_on_slow_down_more_and_more_but_never_to_a_halt(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(calls_per_second=10)
        seen = []
        for second in range(600):
            set_clock(database, NOON + dt.timedelta(seconds=second))
            await rate_limiter.refused(RATE)
            seen.append(round(spacing(rate_limiter), 6))
        assert seen == sorted(seen)
        assert seen[-1] == pytest.approx(1 / (10 * HEADROOM * 0.02), rel=1e-4)

    async def test_the_full_pace_is_back_after_two_quiet_hours(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(calls_per_second=10)
        for second in range(600):
            set_clock(database, NOON + dt.timedelta(seconds=second))
            await rate_limiter.refused(RATE)
        set_clock(database, NOON + dt.timedelta(hours=6))
        assert spacing(rate_limiter) == pytest.approx(1 / (10 * HEADROOM), rel=1e-4)

    async def test_a_stop_gives_back_the_call_that_was_not_sent(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(calls_per_second=0.001)
        before, waiting = await far_from_their_turn(database, rate_limiter, searches=3)
        rate_limiter.cancellation.cancel()
        for one in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(one, StopRequested)
        assert used(database) == before

    async def test_a_search_cancelled_while_it_waits_for_its_turn_gives_its_call_back(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(calls_per_second=0.001)
        before, waiting = await far_from_their_turn(database, rate_limiter, searches=2)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert used(database) == before + 1
        waiting[1].cancel()
        await asyncio.wait(waiting)
        assert used(database) == before

    async def test_a_call_is_given_back_even_if_the_search_is_cancelled_again_meanwhile(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(calls_per_second=0.001)
        before, (waiting,) = await far_from_their_turn(database, rate_limiter, searches=1)
        with a_locked_row(database, "api_usage"):
            for _ in range(2):
                waiting.cancel()
                await asyncio.sleep(0.1)
            assert waiting.cancelled()
        await rate_limiter.close()
        assert used(database) == before

    async def test_a_search_cancelled_while_its_call_is_reserved_leaves_it_to_the_next(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter, before = open_budget(), used(database)
        with a_locked_row(database, "api_budget"):
            asking = asyncio.create_task(rate_limiter.reserve())
            await asyncio.sleep(0.1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await rate_limiter.reserve()
        assert used(database) == before + 1
        with a_locked_row(database, "api_budget"):
            asking = asyncio.create_task(rate_limiter.reserve())
            await asyncio.sleep(0.1)
            asking.cancel()
            await asyncio.wait([asking])
        await rate_limiter.close()
        assert used(database) == before + 1, "without a next one it is given back at the end"

    async def test_searches_are_sent_in_the_order_they_asked_spaced_by_the_rate(
        self, open_budget: NewBudget
    ) -> None:
        rate_limiter, sent = open_budget(calls_per_second=100), []
        loop = asyncio.get_running_loop()

        async def search(number: int) -> None:
            await rate_limiter.reserve()
            sent.append((number, loop.time()))

        await asyncio.gather(*(search(number) for number in range(20)))
        assert [number for number, _ in sent] == list(range(20))
        # The clock stands still: the last one's slot is nineteen gaps from where it stands.
        assert sent[-1][1] - sent[0][1] >= 18 / 100


class TestLate:
    """Searches that come to their slots late, because something held their process up."""

    async def held_up(
        self, rate_limiter: SharedRateLimiter, *, calls: int, seconds: float
    ) -> list[float]:
        """When these calls were sent, in seconds from the first slot; the loop is blocked right
        after all have their slots.
        """
        sent = list[float]()
        await rate_limiter.reserve()
        loop, began = asyncio.get_running_loop(), time.monotonic()

        async def search() -> None:
            await rate_limiter.reserve()
            sent.append(loop.time() - began)

        searches = [asyncio.create_task(search()) for _ in range(calls)]
        while used(rate_limiter.database) < calls + 2:  # noqa: ASYNC110 - it is the database that knows
            await asyncio.sleep(0.001)
        time.sleep(seconds)  # noqa: ASYNC251 - what is tested: the loop stands still
        await asyncio.gather(*searches)
        return sorted(sent)

    async def test_a_call_that_is_late_takes_another_slot_and_leaves_those_of_others_alone(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        before = next_slot(database)
        sent = await self.held_up(open_budget(calls_per_second=20), calls=4, seconds=0.3)
        assert len(sent) == 4
        assert all(later - earlier >= 0.04 for earlier, later in pairwise(sent))
        slots = (next_slot(database) - before) * 20 * HEADROOM
        assert round(slots) == 1 + 4 + 4, "the four that were missed, and four that nobody else has"
        assert used(database) == 1 + 1 + 4, "what was missed is given back"

    async def test_a_process_that_is_always_late_sends_all_the_same(
        self, open_budget: NewBudget, monkeypatch: Patch
    ) -> None:
        monkeypatch.setattr(api_budget, "LATE_SECONDS", -math.inf)
        rate_limiter = open_budget(calls_per_second=200)
        rate_limiter._waited = True
        for _ in range(40):
            await rate_limiter.reserve()

    async def test_while_the_limit_is_far_a_delay_is_not_passed_on(
        self, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(calls_per_second=10_000)
        await self.held_up(rate_limiter, calls=8, seconds=0.2)
        waited = list[float]()
        for _ in range(5):
            await asyncio.sleep(0.02)
            began = time.monotonic()
            await rate_limiter.reserve()
            waited.append(time.monotonic() - began)
        assert sorted(waited)[2] < 0.1, (
            "they would come 0.2 s after their slots, as those before them"
        )


class TestQuota:
    async def test_searches_of_several_processes_get_exactly_the_days_calls(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        budgets = [open_budget(daily_quota=200) for _ in range(2)]
        granted = Counter[int]()

        async def call_until_refused(rate_limiter: SharedRateLimiter) -> QuotaExhausted:
            try:
                while True:
                    await rate_limiter.reserve()
                    granted[id(rate_limiter)] += 1
                    await rate_limiter.answered()
            except QuotaExhausted as error:
                return error

        errors = await in_processes(4, call_until_refused, *budgets)
        assert granted.total() == 200 - 1  # one was used to open the API
        assert used(database) == 200
        assert {(error.reset_at, error.calls) for error in errors} == {(MIDNIGHT, 0)}
        state = read_state(database, budgets[0].account)
        assert (state.open, state.closed_until, state.used_today) == (False, MIDNIGHT, 200)
        assert state.closed_why == "the day's 200 calls are used"

    async def test_the_next_day_has_its_own_calls_from_midnight_in_korea(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(daily_quota=1)
        assert verdict(rate_limiter) == "EXHAUSTED"
        set_clock(database, MIDNIGHT - dt.timedelta(microseconds=1))
        assert verdict(rate_limiter) == "EXHAUSTED"
        set_clock(database, MIDNIGHT)
        assert verdict(rate_limiter) == "GO"
        assert verdict(rate_limiter) == "EXHAUSTED"

    async def test_the_servers_word_closes_the_day_for_everybody(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        one, other = open_budget(), open_budget()
        await one.reserve()
        await one.refused(quota())
        before = used(database)
        for rate_limiter in (one, other, open_budget()):
            with pytest.raises(QuotaExhausted, match="used up") as caught:
                await rate_limiter.reserve()
            assert (caught.value.reset_at, caught.value.calls) == (MIDNIGHT, 0)
        assert used(database) == before
        state = read_state(database, ACCOUNT)
        assert (state.open, state.closed_until, state.closed_why, state.refused_quota) == (
            False,
            MIDNIGHT,
            "used up",
            1,
        )

    async def test_a_quota_without_a_known_reset_is_closed_until_the_next_midnight(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        await open_budget().refused(quota(None))
        assert read_state(database, ACCOUNT).closed_until == MIDNIGHT

    async def test_a_reset_in_the_past_closes_for_a_minute_and_then_costs_one_probe(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        await open_budget().refused(quota(NOON - dt.timedelta(hours=1)))
        a_minute_later = NOON + dt.timedelta(minutes=1)
        assert read_state(database, ACCOUNT).closed_until == a_minute_later
        assert verdict(open_budget()) == "EXHAUSTED"
        set_clock(database, a_minute_later)
        assert [verdict(open_budget()) for _ in range(3)] == ["GO", "WAIT", "WAIT"]

    async def test_a_later_word_does_not_open_a_day_earlier(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        await open_budget().refused(quota())
        await open_budget().refused(quota(NOON + dt.timedelta(minutes=10)))
        assert read_state(database, ACCOUNT).closed_until == MIDNIGHT

    async def test_a_call_that_waits_for_its_slot_learns_that_the_quota_ended(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        waiting, other = open_budget(calls_per_second=0.5), open_budget()
        await waiting.reserve()
        before = used(database)
        asking = asyncio.create_task(waiting.reserve())
        await soon(lambda: used(database) == before + 1)
        await other.refused(quota())
        with pytest.raises(QuotaExhausted):
            await asking
        assert used(database) == before, "it was not sent"

    async def test_of_calls_that_wait_for_far_slots_only_some_look_whether_the_quota_ended(
        self, database: Database, open_budget: NewBudget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = []

        def looking(database: Database, account: ApiAccount) -> ApiState:
            looks.append(time.monotonic())
            return read_state(database, account)

        monkeypatch.setattr(api_budget, "read_state", looking)
        rate_limiter, before = open_budget(calls_per_second=20), used(database)
        await asyncio.gather(*(rate_limiter.reserve() for _ in range(20)))
        assert used(database) == before + 20
        # They take a second: one looks in each quarter of it, or two, where it takes longer than to
        # the next one's slot.
        assert 1 <= len(looks) <= 2 / RECHECK_SECONDS

    @pytest.mark.parametrize("days", [(30, 31), (1, 31)])
    async def test_the_hub_has_a_months_quota_besides(
        self, database: Database, days: tuple[int, int]
    ) -> None:
        account = ApiAccount.of("naver-hub", "id", "secret", rate=100_000, daily=2, monthly=3)
        rate_limiter = SharedRateLimiter(
            database=database, account=account, cancellation=CancellationToken()
        )
        seen = []
        for day in days:
            set_clock(database, NOON.replace(day=day))
            await rate_limiter.reserve()
            await rate_limiter.answered()
            seen.append(verdict(rate_limiter))
        assert seen == ["GO", "EXHAUSTED"]
        with pytest.raises(QuotaExhausted, match="the month's 3 calls") as caught:
            await rate_limiter.reserve()
        assert caught.value.reset_at == dt.datetime(2027, 1, 1, tzinfo=KST)
        set_clock(database, dt.datetime(2027, 1, 1, tzinfo=KST))
        assert verdict(rate_limiter) == "GO"

    async def test_accounts_do_not_share_their_calls(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        assert verdict(open_budget(daily_quota=1)) == "EXHAUSTED"
        another = ApiAccount.of(
            "naver-local", "another id", "secret", rate=100, daily=1, monthly=None
        )
        assert (
            verdict(
                SharedRateLimiter(
                    database=database, account=another, cancellation=CancellationToken()
                )
            )
            == "GO"
        )


class TestReservingAhead:
    """A process reserves its next calls with one statement while the rate limit is not binding."""

    @pytest.fixture(autouse=True)
    def time_stands_still(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api_budget, "AHEAD_SECONDS", 3600)

    async def test_what_was_not_sent_is_given_back_at_the_end(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter, before = open_budget(daily_quota=10_000), used(database)
        for _ in range(20):
            await rate_limiter.reserve()
        ahead = used(database) - before - 20
        assert 0 < ahead < MOST_AHEAD
        await rate_limiter.close()
        assert used(database) == before + 20

    async def test_what_was_not_sent_in_time_is_given_back_and_reserved_anew(
        self, database: Database, open_budget: NewBudget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rate_limiter, before = open_budget(), used(database)
        while used(database) == before + len(rate_limiter._taken):
            await rate_limiter.reserve()
        sent = len(rate_limiter._taken)
        monkeypatch.setattr(api_budget, "AHEAD_SECONDS", 0)
        await rate_limiter.reserve()
        assert used(database) == before + sent + 1

    async def test_it_counts_for_the_day_it_was_reserved_for(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget()
        for _ in range(4):
            await rate_limiter.reserve()
        set_clock(database, MIDNIGHT)
        await open_budget().reserve()
        await rate_limiter.close()
        found = database.transaction(
            lambda connection: rows(connection, "SELECT day, reserved FROM api_usage ORDER BY day")
        )
        assert [row["reserved"] for row in found] == [1 + 4, 1]

    async def test_a_limit_that_makes_calls_wait_is_shared_out_call_by_call(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter, before = open_budget(calls_per_second=60), used(database)
        for sent in range(1, 9):
            await rate_limiter.reserve()
            # The clock stands still: every call after the first has to wait.
            assert used(database) <= before + sent + 1
        assert len(rate_limiter._ahead) == 0

    async def test_a_quota_that_ends_within_what_is_asked_for_is_used_up_to_the_last_call(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget(daily_quota=30)
        for _ in range(29):
            await rate_limiter.reserve()
        assert used(database) == 30
        with pytest.raises(QuotaExhausted):
            await rate_limiter.reserve()
        assert used(database) == 30

    async def test_a_stop_sends_nothing_of_what_was_reserved(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter, before = open_budget(), used(database)
        for _ in range(4):
            await rate_limiter.reserve()
        rate_limiter.cancellation.cancel()
        with pytest.raises(StopRequested):
            await rate_limiter.reserve()
        await rate_limiter.close()
        assert used(database) == before + 4

    async def test_the_next_calls_are_reserved_before_the_last_ones_are_used_up(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter, before = await warm(open_budget(daily_quota=10_000)), used(database)
        left = int(AGAIN_AT * MOST_AHEAD)
        with a_locked_row(database, "api_budget"):
            while len(rate_limiter._ahead) > left:
                await rate_limiter.reserve()
            asking = rate_limiter._refill
            assert asking is not None
            assert not asking.done()
            for _ in range(left):
                await rate_limiter.reserve()  # no search waits for the database
            assert used(database) == before
        await asking
        assert used(database) == before + MOST_AHEAD - left

    async def test_no_more_than_that_is_reserved_ahead_however_many_searches_there_are(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter, before = open_budget(daily_quota=10_000), used(database)

        async def search() -> None:
            for _ in range(20):
                await rate_limiter.reserve()
                assert len(rate_limiter._ahead) <= MOST_AHEAD

        await asyncio.gather(*(search() for _ in range(50)))
        assert before + 1_000 <= used(database) <= before + 1_000 + MOST_AHEAD
        await rate_limiter.close()
        assert used(database) == before + 1_000

    async def test_no_more_is_reserved_ahead_than_the_rate_allows_in_the_time(
        self, open_budget: NewBudget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api_budget, "AHEAD_SECONDS", 0.1)
        rate_limiter = open_budget(calls_per_second=100)
        rate_limiter._waited = False
        rate_limiter._taken.extend([time.monotonic()] * 100)
        assert rate_limiter._needed_soon(time.monotonic()) == 10

    async def test_what_is_being_reserved_at_the_end_is_given_back_too(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        rate_limiter, before = await warm(open_budget(daily_quota=10_000)), used(database)
        left = len(rate_limiter._ahead)
        with a_locked_row(database, "api_budget"):
            while rate_limiter._refill is None or rate_limiter._refill.done():
                await rate_limiter.reserve()
            sent = left - len(rate_limiter._ahead)
            closing = asyncio.create_task(rate_limiter.close())
            await asyncio.sleep(0.1)
        await closing
        assert used(database) == before - left + sent

    async def test_a_quota_found_used_up_ahead_of_time_is_no_reason_not_to_send_what_is_there(
        self, open_budget: NewBudget
    ) -> None:
        rate_limiter = await warm(open_budget(daily_quota=10_000))
        left = len(rate_limiter._ahead)
        await open_budget().refused(quota())
        for _ in range(left):
            await rate_limiter.reserve()
        with pytest.raises(QuotaExhausted):
            await rate_limiter.reserve()

    async def test_neither_a_stop_nor_the_end_waits_for_a_database_that_is_gone(
        self, open_budget: NewBudget
    ) -> None:
        rate_limiter = open_budget()
        await rate_limiter.reserve()
        gone = Database.connect("postgresql://nobody@127.0.0.1:9/nothing")
        cut_off = SharedRateLimiter(
            database=gone, account=rate_limiter.account, cancellation=rate_limiter.cancellation
        )
        cut_off._ahead.extend(
            [Slot(at=-math.inf, day=NOON.date(), probe=False, gap=0.0, unthrottled=True)]
        )
        async with asyncio.timeout(60):
            asking = asyncio.create_task(cut_off.reserve())
            await asyncio.sleep(0.1)
            rate_limiter.cancellation.cancel()
            with pytest.raises(StopRequested):
                await asking
            await cut_off.close()
        gone.close()


async def warm(rate_limiter: SharedRateLimiter) -> SharedRateLimiter:
    """One that has as much ahead as it may."""
    while len(rate_limiter._ahead) < MOST_AHEAD - 1:
        await rate_limiter.reserve()
        if rate_limiter._refill is not None:
            await rate_limiter._refill
    return rate_limiter


class TestProbing:
    @pytest.fixture
    async def next_day(self, database: Database, open_budget: NewBudget) -> NewBudget:
        """The quota was used up yesterday, and only the API can tell whether there is a new one."""
        await open_budget().refused(quota())
        set_clock(database, MIDNIGHT)
        return open_budget

    async def test_the_next_day_begins_with_one_call_and_opens_with_its_answer(
        self, next_day: NewBudget
    ) -> None:
        prober, other = next_day(), next_day()
        await prober.reserve()
        assert [verdict(other) for _ in range(3)] == ["WAIT"] * 3
        await prober.answered()
        assert [verdict(other) for _ in range(3)] == ["GO"] * 3

    async def test_those_that_wait_for_the_probe_go_on_when_it_is_answered(
        self, database: Database, next_day: NewBudget
    ) -> None:
        prober, other = next_day(), next_day()
        await prober.reserve()
        waiting = [asyncio.create_task(other.reserve()) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert not any(one.done() for one in waiting)
        await prober.answered()
        assert await asyncio.gather(*waiting) == [None] * 4
        await other.close()  # what it reserved ahead and did not send goes back to the day
        sql = "SELECT reserved FROM api_usage WHERE day = '2026-12-31'"
        assert database.transaction(lambda c: rows(c, sql)) == [{"reserved": 5}]

    @pytest.mark.parametrize("how", ["transient", "rate", "gave no word"])
    async def test_a_probe_without_a_verdict_lets_another_probe(
        self, database: Database, next_day: NewBudget, how: str
    ) -> None:
        prober, other = next_day(), next_day()
        await prober.reserve()
        if how == "transient":
            await prober.failed(TRANSIENT)
        elif how == "rate":
            await prober.refused(RATE)
        else:
            set_clock(database, MIDNIGHT + dt.timedelta(seconds=PROBE_SECONDS + 1))
        assert verdict(other) == "GO"
        assert verdict(other) == "WAIT"

    async def test_a_probe_that_was_stopped_before_it_was_sent_lets_another_probe(
        self, next_day: NewBudget
    ) -> None:
        prober, other = next_day(), next_day()
        prober.cancellation.cancel()
        with pytest.raises(StopRequested):
            await prober.reserve()
        assert verdict(other) == "GO"

    async def test_a_probe_cancelled_before_it_was_sent_lets_another_probe(
        self, database: Database, next_day: NewBudget
    ) -> None:
        prober, other = next_day(calls_per_second=0.001), next_day()
        await prober.reserve()  # the next slot is far
        await prober.failed(TRANSIENT)
        before = used(database)
        probing = asyncio.create_task(prober.reserve())
        await soon(lambda: used(database) == before + 1)
        assert verdict(other) == "WAIT"
        probing.cancel()
        await asyncio.wait([probing])
        assert verdict(other) == "GO"

    async def test_a_probe_that_nobody_waits_for_any_more_is_dropped_at_the_end(
        self, database: Database, next_day: NewBudget
    ) -> None:
        prober, other = next_day(), next_day()
        with a_locked_row(database, "api_budget"):
            probing = asyncio.create_task(prober.reserve())
            await asyncio.sleep(0.1)
            probing.cancel()
            await asyncio.wait([probing])
        await prober.close()
        assert verdict(other) == "GO"

    async def test_only_the_search_that_probes_can_give_a_verdict(
        self, next_day: NewBudget
    ) -> None:
        prober, other = next_day(), next_day()
        await prober.reserve()
        # Calls sent yesterday, before the quota ended, are answered today.
        for late in (prober.answered(), prober.failed(TRANSIENT), prober.refused(RATE)):
            await asyncio.create_task(late)
        assert verdict(other) == "WAIT"
        await prober.answered()
        assert verdict(other) == "GO"

    async def test_a_probe_that_finds_the_quota_still_used_up_closes_it_again(
        self, database: Database, next_day: NewBudget
    ) -> None:
        prober, other = next_day(), next_day()
        await prober.reserve()
        later = MIDNIGHT + dt.timedelta(minutes=10)
        await prober.refused(quota(later))
        with pytest.raises(QuotaExhausted) as caught:
            await other.reserve()
        assert caught.value.reset_at == later
        set_clock(database, later)
        assert verdict(other) == "GO"


class TestBlocking:
    async def test_wrong_credentials_cost_one_call_in_all(
        self, database: Database, new_budget: NewBudget
    ) -> None:
        budgets = [new_budget(), new_budget()]

        async def call(rate_limiter: SharedRateLimiter) -> ApiError | None:
            try:
                await rate_limiter.reserve()
                await rate_limiter.refused(BLOCKED)
            except ApiBlocked as error:
                return error
            return None

        errors = [error for error in await in_processes(4, call, *budgets) if error is not None]
        assert used(database) == 1
        assert {str(error) for error in errors} == {"look at NAVER_CLIENT_ID"}
        assert {error.calls for error in errors} == {0}
        assert len(errors) == 7
        assert read_state(database, ACCOUNT).blocked_why == "look at NAVER_CLIENT_ID"

    async def test_other_credentials_of_the_same_client_are_not_blocked(
        self, database: Database, new_budget: NewBudget
    ) -> None:
        refused, changed = new_budget(), new_budget(OTHER_SECRET)
        await refused.reserve()
        await refused.refused(BLOCKED)
        assert verdict(refused) == "BLOCKED"
        assert read_state(database, OTHER_SECRET).open
        await changed.reserve()
        await changed.answered()
        assert verdict(changed) == "GO"

    async def test_a_person_may_unblock_and_one_call_finds_out(
        self, database: Database, new_budget: NewBudget
    ) -> None:
        rate_limiter = new_budget()
        await rate_limiter.reserve()
        await rate_limiter.refused(BLOCKED)
        assert unblock(database, "naver-hub") == 0
        assert unblock(database, "naver-local") == 1
        assert unblock(database, "naver-local") == 0
        assert [verdict(new_budget()) for _ in range(2)] == ["GO", "WAIT"]

    async def test_a_key_refused_after_it_had_worked_blocks_and_needs_a_probe_afterwards(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        await open_budget().refused(BLOCKED)
        assert verdict(open_budget()) == "BLOCKED"
        unblock(database, "naver-local")
        assert [verdict(open_budget(OTHER_SECRET)) for _ in range(2)] == ["GO", "WAIT"]

    async def test_what_is_stored_of_refused_credentials_is_slow_to_search(
        self, database: Database, new_budget: NewBudget
    ) -> None:
        rate_limiter = new_budget()
        await rate_limiter.reserve()
        await rate_limiter.refused(BLOCKED)
        (row,) = database.transaction(
            lambda connection: rows(connection, "SELECT blocked, proven FROM api_budget")
        )
        mark, salt, digest = row["blocked"].split("$")
        slow = hashlib.scrypt(
            b"mohe-assets\0naver-local\0id\0secret", salt=salt.encode(), n=2**14, r=8, p=1, dklen=24
        )
        assert (mark, digest, row["proven"]) == (
            "scrypt",
            base64.urlsafe_b64encode(slow).decode(),
            None,
        )
        assert ACCOUNT.refused_digest() != ACCOUNT.refused_digest(), (
            "each refusal has a salt of its own"
        )
        assert "secret" not in repr(ACCOUNT).replace("secret=", "")

    async def test_what_is_stored_of_proven_credentials_is_too_little_to_search(
        self, database: Database, new_budget: NewBudget
    ) -> None:
        rate_limiter = new_budget()
        await rate_limiter.reserve()
        await rate_limiter.answered()
        (row,) = database.transaction(
            lambda connection: rows(connection, "SELECT proven FROM api_budget")
        )
        assert len(row["proven"]) == 4

    async def test_what_is_stored_of_an_unavailable_api_adds_nothing_about_the_secret(
        self, database: Database, new_budget: NewBudget
    ) -> None:
        rate_limiter = new_budget()
        await rate_limiter.reserve()
        await rate_limiter.declare_unavailable("HTTP 503")
        (row,) = database.transaction(
            lambda connection: rows(connection, "SELECT unavailable_for FROM api_budget")
        )
        assert row["unavailable_for"] == ACCOUNT.service

        def account(secret: int) -> ApiAccount:
            return ApiAccount.of(
                "naver-local", "id", f"{secret}", rate=1, daily=1, monthly=None, url="http://a"
            )

        services: dict[str, set[str]] = {}
        for one in map(account, range(2000)):
            services.setdefault(one.credentials, set()).add(one.service)
        assert len(services) < 2000, "no two of these secrets share their four digits"
        assert {len(of_alike) for of_alike in services.values()} == {1}

    async def test_nothing_slow_is_computed_unless_credentials_were_refused(
        self, database: Database, new_budget: NewBudget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = Mock()
        monkeypatch.setattr(api_state, "_slow_digest", slow)
        rate_limiter = new_budget()
        await rate_limiter.reserve()
        await rate_limiter.answered()
        assert read_state(database, ACCOUNT).open
        slow.assert_not_called()

    async def test_neither_id_nor_secret_is_in_the_database(self, database: Database) -> None:
        account = ApiAccount.of(
            "naver-local", "RecognisableId", "RecognisableSecret", rate=10, daily=10, monthly=None
        )
        rate_limiter = SharedRateLimiter(
            database=database, account=account, cancellation=CancellationToken()
        )
        await rate_limiter.reserve()
        await rate_limiter.refused(BLOCKED)
        for table in ("api_budget", "api_usage"):
            found = database.transaction(lambda c, table=table: rows(c, f"SELECT * FROM {table}"))  # type: ignore[misc]
            assert "Recognisable" not in str(found)


async def test_the_state_of_an_api_that_was_never_called_is_open(database: Database) -> None:
    state = read_state(database, ACCOUNT)
    assert (state.open, state.used_today, state.daily_quota, state.resets_at) == (
        True,
        0,
        1_000,
        MIDNIGHT,
    )
