"""The calls all processes share. The clock is the test database's own, moved by replacing budget_clock()."""

import datetime as dt
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, text

from mohe_assets.errors import ApiBlocked, ApiError, QuotaExhausted, RateLimited, StopRequested, TransientApiError
from mohe_assets.store import api_budget
from mohe_assets.store.api_budget import HEADROOM, MOST_AHEAD, PROBE_SECONDS, SharedBudget
from mohe_assets.store.api_state import ApiAccount, read_state, unblock
from mohe_assets.store.database import Database, rows

KST = dt.timezone(dt.timedelta(hours=9))
NOON = dt.datetime(2026, 12, 30, 12, tzinfo=KST)
MIDNIGHT = dt.datetime(2026, 12, 31, tzinfo=KST)
ACCOUNT = ApiAccount.of("naver-local", "id", "secret", rate=100_000, daily=1_000, monthly=None)
OTHER_SECRET = ApiAccount.of("naver-local", "id", "another secret", rate=100_000, daily=1_000, monthly=None)
RATE = RateLimited("too fast", api="naver-local")
BLOCKED = ApiBlocked("look at NAVER_CLIENT_ID", api="naver-local", variables=("NAVER_CLIENT_ID",))
TRANSIENT = TransientApiError("HTTP 500", api="naver-local")

NewBudget = Callable[..., SharedBudget]


def quota(until: dt.datetime | None = MIDNIGHT) -> QuotaExhausted:
    return QuotaExhausted("used up", api="naver-local", reset_at=until)


def set_clock(database: Database, moment: dt.datetime) -> None:
    """It stands still there."""
    sql = f"""CREATE OR REPLACE FUNCTION budget_clock() RETURNS timestamptz LANGUAGE sql VOLATILE
              AS $$ SELECT timestamptz '{moment.isoformat()}' $$"""

    def work(connection: Connection) -> None:
        connection.execute(text(sql))

    database.transact(work)


@pytest.fixture(autouse=True)
def noon(database: Database) -> None:
    """Of a day whose midnight is also close to the end of its month, and never passes during a test."""
    set_clock(database, NOON)


@pytest.fixture
def new_budget(database: Database) -> NewBudget:
    """Budgets of as many processes as are asked for."""

    def build(account: ApiAccount = ACCOUNT, **changes: Any) -> SharedBudget:
        return SharedBudget(database=database, account=replace(account, **changes), stop=threading.Event())

    return build


@pytest.fixture
def open_budget(new_budget: NewBudget) -> NewBudget:
    """The same for an API that has answered already."""
    first = new_budget()
    first.reserve()
    first.answered()
    return new_budget


def verdict(budget: SharedBudget) -> str:
    """What a thread asking now would be told, without waiting for its slot."""
    return str(budget._reserve_row()["verdict"])


def used(database: Database) -> int:
    sql = "SELECT coalesce(sum(reserved), 0)::int AS used FROM api_usage"
    return int(database.transact(lambda connection: rows(connection, sql))[0]["used"])


def spacing(budget: SharedBudget) -> float:
    """Seconds between the next two slots."""
    first, second = budget._reserve_row(), budget._reserve_row()
    return float(second["wait_seconds"] - first["wait_seconds"])


class TestRate:
    def test_slots_are_spaced_by_the_rate_whoever_asks(self, open_budget: NewBudget) -> None:
        budgets = [open_budget(calls_per_second=10) for _ in range(2)]
        waits = [budgets[n % 2]._reserve_row()["wait_seconds"] for n in range(20)]
        gaps = [later - earlier for earlier, later in pairwise(waits)]
        assert gaps == pytest.approx([1 / (10 * HEADROOM)] * 19, abs=1e-5)

    def test_slots_asked_for_at_once_are_all_different(self, open_budget: NewBudget) -> None:
        budgets = [open_budget(calls_per_second=50) for _ in range(2)]
        with ThreadPoolExecutor(8) as threads:
            waits = sorted(row["wait_seconds"] for row in threads.map(lambda n: budgets[n % 2]._reserve_row(), range(100)))
        gaps = [later - earlier for earlier, later in pairwise(waits)]
        assert min(gaps) == pytest.approx(1 / (50 * HEADROOM), abs=1e-5)

    def test_time_nobody_used_is_not_saved_up(self, database: Database, open_budget: NewBudget) -> None:
        budget = open_budget(calls_per_second=10)
        budget._reserve_row()
        set_clock(database, NOON + dt.timedelta(minutes=1))
        assert [budget._reserve_row()["wait_seconds"] for _ in range(2)] == pytest.approx([0, 1 / (10 * HEADROOM)], abs=1e-5)

    def test_a_lone_refusal_costs_half_a_per_cent_and_its_call_counts_for_no_quota(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        budget = open_budget(calls_per_second=10)
        budget.reserve()
        budget.refused(RATE)
        assert spacing(budget) == pytest.approx(1 / (10 * HEADROOM * 0.995), rel=1e-4)
        state = read_state(database, budget.account)
        assert (state.refused_rate, state.used_today, state.open) == (1, used(database) - 1, True)

    def test_refusals_at_the_same_moment_slow_down_once(self, open_budget: NewBudget) -> None:
        budgets = [open_budget(calls_per_second=10) for _ in range(3)]
        for budget in budgets:
            budget.refused(RATE)
        assert spacing(budgets[0]) == pytest.approx(1 / (10 * HEADROOM * 0.995), rel=1e-4)

    def test_refusals_that_go_on_slow_down_more_and_more_but_never_to_a_halt(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        budget = open_budget(calls_per_second=10)
        seen = []
        for second in range(600):
            set_clock(database, NOON + dt.timedelta(seconds=second))
            budget.refused(RATE)
            seen.append(round(spacing(budget), 6))
        assert seen == sorted(seen)
        assert seen[-1] == pytest.approx(1 / (10 * HEADROOM * 0.02), rel=1e-4)

    def test_the_full_pace_is_back_after_two_quiet_hours(self, database: Database, open_budget: NewBudget) -> None:
        budget = open_budget(calls_per_second=10)
        for second in range(600):
            set_clock(database, NOON + dt.timedelta(seconds=second))
            budget.refused(RATE)
        set_clock(database, NOON + dt.timedelta(hours=6))
        assert spacing(budget) == pytest.approx(1 / (10 * HEADROOM), rel=1e-4)

    def test_a_stop_gives_back_the_call_that_was_not_sent(self, database: Database, open_budget: NewBudget) -> None:
        budget = open_budget(calls_per_second=0.001)
        budget.reserve()
        before = used(database)
        waiting = threading.Timer(0.2, budget.stop.set)
        waiting.start()
        with pytest.raises(StopRequested):
            budget.reserve()
        waiting.join()
        assert used(database) == before


class TestQuota:
    def test_threads_of_several_processes_get_exactly_the_days_calls(self, database: Database, open_budget: NewBudget) -> None:
        budgets = [open_budget(daily_quota=200) for _ in range(2)]
        granted = Counter[int]()

        def call_until_refused(thread: int) -> QuotaExhausted:
            try:
                while True:
                    budgets[thread % 2].reserve()
                    granted[thread] += 1
                    budgets[thread % 2].answered()
            except QuotaExhausted as error:
                return error

        with ThreadPoolExecutor(8) as threads:
            errors = list(threads.map(call_until_refused, range(8)))
        assert granted.total() == 200 - 1  # one was used to open the API
        assert used(database) == 200
        assert {(error.reset_at, error.calls) for error in errors} == {(MIDNIGHT, 0)}
        state = read_state(database, budgets[0].account)
        assert (state.open, state.closed_until, state.used_today) == (False, MIDNIGHT, 200)
        assert state.closed_why == "the day's 200 calls are used"

    def test_the_next_day_has_its_own_calls_from_midnight_in_korea(self, database: Database, open_budget: NewBudget) -> None:
        budget = open_budget(daily_quota=1)
        assert verdict(budget) == "EXHAUSTED"
        set_clock(database, MIDNIGHT - dt.timedelta(microseconds=1))
        assert verdict(budget) == "EXHAUSTED"
        set_clock(database, MIDNIGHT)
        assert verdict(budget) == "GO"
        assert verdict(budget) == "EXHAUSTED"

    def test_the_servers_word_closes_the_day_for_everybody(self, database: Database, open_budget: NewBudget) -> None:
        one, other = open_budget(), open_budget()
        one.reserve()
        one.refused(quota())
        before = used(database)
        for budget in (one, other, open_budget()):
            with pytest.raises(QuotaExhausted, match="used up") as caught:
                budget.reserve()
            assert (caught.value.reset_at, caught.value.calls) == (MIDNIGHT, 0)
        assert used(database) == before
        state = read_state(database, ACCOUNT)
        assert (state.open, state.closed_until, state.closed_why, state.refused_quota) == (False, MIDNIGHT, "used up", 1)

    def test_a_quota_without_a_known_reset_is_closed_until_the_next_midnight(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        open_budget().refused(quota(None))
        assert read_state(database, ACCOUNT).closed_until == MIDNIGHT

    def test_a_later_word_does_not_open_a_day_earlier(self, database: Database, open_budget: NewBudget) -> None:
        open_budget().refused(quota())
        open_budget().refused(quota(NOON + dt.timedelta(minutes=10)))
        assert read_state(database, ACCOUNT).closed_until == MIDNIGHT

    def test_a_call_that_waits_for_its_slot_learns_that_the_quota_ended(self, database: Database, open_budget: NewBudget) -> None:
        waiting, other = open_budget(calls_per_second=0.5), open_budget()
        waiting.reserve()
        before = used(database)
        refused = threading.Timer(0.1, other.refused, args=(quota(),))
        refused.start()
        with pytest.raises(QuotaExhausted):
            waiting.reserve()
        refused.join()
        assert used(database) == before, "it was not sent"

    def test_the_hub_has_a_months_quota_besides(self, database: Database) -> None:
        account = ApiAccount.of("naver-hub", "id", "secret", rate=100_000, daily=2, monthly=3)
        budget = SharedBudget(database=database, account=account, stop=threading.Event())
        seen = []
        for day in (30, 31):
            set_clock(database, NOON.replace(day=day))
            budget.reserve()
            budget.answered()
            seen.append(verdict(budget))
        assert seen == ["GO", "EXHAUSTED"]
        with pytest.raises(QuotaExhausted, match="the month's 3 calls") as caught:
            budget.reserve()
        assert caught.value.reset_at == dt.datetime(2027, 1, 1, tzinfo=KST)
        set_clock(database, dt.datetime(2027, 1, 1, tzinfo=KST))
        assert verdict(budget) == "GO"

    def test_accounts_do_not_share_their_calls(self, database: Database, open_budget: NewBudget) -> None:
        assert verdict(open_budget(daily_quota=1)) == "EXHAUSTED"
        another = ApiAccount.of("naver-local", "another id", "secret", rate=100, daily=1, monthly=None)
        assert verdict(SharedBudget(database=database, account=another, stop=threading.Event())) == "GO"


class TestReservingAhead:
    """While the limit is far, a process reserves what it is about to send with one statement."""

    @pytest.fixture(autouse=True)
    def time_stands_still(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api_budget, "AHEAD_SECONDS", 3600)

    def test_what_was_not_sent_is_given_back_at_the_end(self, database: Database, open_budget: NewBudget) -> None:
        budget, before = open_budget(daily_quota=10_000), used(database)
        for _ in range(20):
            budget.reserve()
        ahead = used(database) - before - 20
        assert 0 < ahead < MOST_AHEAD
        budget.close()
        assert used(database) == before + 20

    def test_what_was_not_sent_in_time_is_given_back_and_reserved_anew(
        self, database: Database, open_budget: NewBudget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        budget, before = open_budget(), used(database)
        while used(database) == before + len(budget._taken):
            budget.reserve()
        sent = len(budget._taken)
        monkeypatch.setattr(api_budget, "AHEAD_SECONDS", 0)
        budget.reserve()
        assert used(database) == before + sent + 1

    def test_it_counts_for_the_day_it_was_reserved_for(self, database: Database, open_budget: NewBudget) -> None:
        budget = open_budget()
        for _ in range(4):
            budget.reserve()
        set_clock(database, MIDNIGHT)
        open_budget().reserve()
        budget.close()
        found = database.transact(lambda connection: rows(connection, "SELECT day, reserved FROM api_usage ORDER BY day"))
        assert [row["reserved"] for row in found] == [1 + 4, 1]

    def test_a_limit_that_makes_calls_wait_is_shared_out_call_by_call(self, database: Database, open_budget: NewBudget) -> None:
        budget, before = open_budget(calls_per_second=60), used(database)
        for sent in range(1, 9):
            budget.reserve()
            # The clock stands still: every call after the first has to wait.
            assert used(database) <= before + sent + 1
        assert len(budget._ahead) == 0

    def test_a_quota_that_ends_within_what_is_asked_for_is_used_up_to_the_last_call(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        budget = open_budget(daily_quota=30)
        for _ in range(29):
            budget.reserve()
        assert used(database) == 30
        with pytest.raises(QuotaExhausted):
            budget.reserve()
        assert used(database) == 30

    def test_a_stop_sends_nothing_of_what_was_reserved(self, database: Database, open_budget: NewBudget) -> None:
        budget, before = open_budget(), used(database)
        for _ in range(4):
            budget.reserve()
        budget.stop.set()
        with pytest.raises(StopRequested):
            budget.reserve()
        budget.close()
        assert used(database) == before + 4


class TestProbing:
    @pytest.fixture
    def next_day(self, database: Database, open_budget: NewBudget) -> NewBudget:
        """The quota was used up yesterday; whether it is back, nobody knows."""
        open_budget().refused(quota())
        set_clock(database, MIDNIGHT)
        return open_budget

    def test_the_next_day_begins_with_one_call_and_opens_with_its_answer(self, next_day: NewBudget) -> None:
        prober, other = next_day(), next_day()
        prober.reserve()
        assert [verdict(other) for _ in range(3)] == ["WAIT"] * 3
        prober.answered()
        assert [verdict(other) for _ in range(3)] == ["GO"] * 3

    def test_those_that_wait_for_the_probe_go_on_when_it_is_answered(self, database: Database, next_day: NewBudget) -> None:
        prober, other = next_day(), next_day()
        prober.reserve()
        with ThreadPoolExecutor(4) as threads:
            waiting = [threads.submit(other.reserve) for _ in range(4)]
            prober.answered()
            assert [one.result(timeout=60) for one in waiting] == [None] * 4
        other.close()  # what it reserved ahead and did not send goes back to the day
        sql = "SELECT reserved FROM api_usage WHERE day = '2026-12-31'"
        assert database.transact(lambda c: rows(c, sql)) == [{"reserved": 5}]

    @pytest.mark.parametrize("how", ["transient", "rate", "gave no word"])
    def test_a_probe_without_a_verdict_lets_another_probe(self, database: Database, next_day: NewBudget, how: str) -> None:
        prober, other = next_day(), next_day()
        prober.reserve()
        if how == "transient":
            prober.failed(TRANSIENT)
        elif how == "rate":
            prober.refused(RATE)
        else:
            set_clock(database, MIDNIGHT + dt.timedelta(seconds=PROBE_SECONDS + 1))
        assert verdict(other) == "GO"
        assert verdict(other) == "WAIT"

    def test_a_probe_that_was_stopped_before_it_was_sent_lets_another_probe(self, next_day: NewBudget) -> None:
        prober, other = next_day(), next_day()
        prober.stop.set()
        with pytest.raises(StopRequested):
            prober.reserve()
        assert verdict(other) == "GO"

    def test_a_probe_that_finds_the_quota_still_used_up_closes_it_again(self, database: Database, next_day: NewBudget) -> None:
        prober, other = next_day(), next_day()
        prober.reserve()
        later = MIDNIGHT + dt.timedelta(minutes=10)
        prober.refused(quota(later))
        with pytest.raises(QuotaExhausted) as caught:
            other.reserve()
        assert caught.value.reset_at == later
        set_clock(database, later)
        assert verdict(other) == "GO"


class TestBlocking:
    def test_wrong_credentials_cost_one_call_in_all(self, database: Database, new_budget: NewBudget) -> None:
        budgets = [new_budget(), new_budget()]

        def call(thread: int) -> ApiError | None:
            try:
                budgets[thread % 2].reserve()
                budgets[thread % 2].refused(BLOCKED)
            except ApiBlocked as error:
                return error
            return None

        with ThreadPoolExecutor(8) as threads:
            errors = [error for error in threads.map(call, range(8)) if error is not None]
        assert used(database) == 1
        assert {str(error) for error in errors} == {"look at NAVER_CLIENT_ID"}
        assert {error.calls for error in errors} == {0}
        assert len(errors) == 7
        assert read_state(database, ACCOUNT).blocked_why == "look at NAVER_CLIENT_ID"

    def test_other_credentials_of_the_same_client_are_not_blocked(self, database: Database, new_budget: NewBudget) -> None:
        refused, changed = new_budget(), new_budget(OTHER_SECRET)
        refused.reserve()
        refused.refused(BLOCKED)
        assert verdict(refused) == "BLOCKED"
        assert read_state(database, OTHER_SECRET).open
        changed.reserve()
        changed.answered()
        assert verdict(changed) == "GO"

    def test_a_person_may_unblock_and_one_call_finds_out(self, database: Database, new_budget: NewBudget) -> None:
        budget = new_budget()
        budget.reserve()
        budget.refused(BLOCKED)
        assert unblock(database, "naver-hub") == 0
        assert unblock(database, "naver-local") == 1
        assert unblock(database, "naver-local") == 0
        assert [verdict(new_budget()) for _ in range(2)] == ["GO", "WAIT"]

    def test_a_key_refused_after_it_had_worked_blocks_and_needs_a_probe_afterwards(
        self, database: Database, open_budget: NewBudget
    ) -> None:
        open_budget().refused(BLOCKED)
        assert verdict(open_budget()) == "BLOCKED"
        unblock(database, "naver-local")
        assert [verdict(open_budget(OTHER_SECRET)) for _ in range(2)] == ["GO", "WAIT"]

    def test_neither_id_nor_secret_is_in_the_database(self, database: Database) -> None:
        account = ApiAccount.of("naver-local", "RecognisableId", "RecognisableSecret", rate=10, daily=10, monthly=None)
        budget = SharedBudget(database=database, account=account, stop=threading.Event())
        budget.reserve()
        budget.refused(BLOCKED)
        for table in ("api_budget", "api_usage"):
            found = database.transact(lambda c, table=table: rows(c, f"SELECT * FROM {table}"))  # type: ignore[misc]
            assert "Recognisable" not in str(found)


def test_the_state_of_an_api_that_was_never_called_is_open(database: Database) -> None:
    state = read_state(database, ACCOUNT)
    assert (state.open, state.used_today, state.daily_quota, state.resets_at) == (True, 0, 1_000, MIDNIGHT)
