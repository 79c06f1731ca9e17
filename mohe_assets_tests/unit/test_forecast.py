"""When a number of calls will have been made."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mohe_assets.domain.forecast import QuotaState, forecast
from mohe_assets.domain.kst import KST

NOON = dt.datetime(2026, 11, 25, 12, tzinfo=KST)
CLASSIC = QuotaState(left_today=25_000, daily_quota=25_000, calls_per_second=10)


def test_nothing_left_is_done_now() -> None:
    found = forecast(0, CLASSIC, now=NOON)
    assert (found.days, found.done_at) == (0, NOON)


def test_what_fits_into_today_takes_its_time_at_the_rate() -> None:
    found = forecast(3_840, CLASSIC, now=NOON)
    assert (found.days, found.done_at) == (1, NOON + dt.timedelta(seconds=384))


def test_what_does_not_fit_goes_on_at_midnight_kst() -> None:
    found = forecast(25_010, CLASSIC, now=NOON)
    assert (found.days, found.done_at) == (2, dt.datetime(2026, 11, 26, 0, 0, 1, tzinfo=KST))


def test_a_used_up_day_counts_no_day_for_today() -> None:
    closed = QuotaState(left_today=0, daily_quota=25_000, calls_per_second=10)
    found = forecast(50_000, closed, now=NOON)
    assert (found.days, found.done_at) == (2, dt.datetime(2026, 11, 27, 0, 41, 40, tzinfo=KST))


def test_an_evening_is_too_short_for_all_of_the_quota() -> None:
    late = dt.datetime(2026, 11, 25, 23, 59, 50, tzinfo=KST)
    found = forecast(200, CLASSIC, now=late)
    assert (found.days, found.done_at) == (2, dt.datetime(2026, 11, 26, 0, 0, 10, tzinfo=KST))


@given(
    calls=st.integers(min_value=1, max_value=2_000_000),
    left=st.integers(min_value=0, max_value=25_000),
    rate=st.sampled_from([0.1, 1.0, 10.0, 50.0]),
)
def test_more_calls_are_never_done_earlier_and_no_day_takes_more_than_its_quota(
    calls: int, left: int, rate: float
) -> None:
    quota_state = QuotaState(left_today=left, daily_quota=25_000, calls_per_second=rate)
    one, more = (forecast(n, quota_state, now=NOON) for n in (calls, calls + 1))
    assert NOON < one.done_at <= more.done_at
    assert one.days <= more.days
    assert one.calls <= left + 25_000 * one.days
    assert (one.done_at - NOON).total_seconds() == pytest.approx(0, abs=one.days * 86_400 + 43_200)


def test_a_used_up_month_goes_on_with_the_next() -> None:
    hub = QuotaState(
        left_today=25_000,
        daily_quota=25_000,
        calls_per_second=50,
        left_month=1_000,
        monthly_quota=775_000,
    )
    found = forecast(1_050, hub, now=NOON)
    assert (found.days, found.done_at) == (2, dt.datetime(2026, 12, 1, 0, 0, 1, tzinfo=KST))


def test_a_closed_month_takes_no_day_and_a_whole_month_as_many_as_it_has_calls_for() -> None:
    hub = QuotaState(
        left_today=0, daily_quota=25_000, calls_per_second=50, left_month=0, monthly_quota=50_000
    )
    found = forecast(110_000, hub, now=NOON)
    assert (found.days, found.done_at) == (5, dt.datetime(2027, 2, 1, 0, 3, 20, tzinfo=KST))


def test_a_quota_that_no_calendar_is_long_enough_for_is_no_crash() -> None:
    found = forecast(
        8_000_000, QuotaState(left_today=1, daily_quota=1, calls_per_second=1), now=NOON
    )
    assert found.done_at.year == 9999


@settings(deadline=None)  # a busy machine is no failure
@given(
    calls=st.integers(min_value=1, max_value=800),
    today=st.integers(min_value=0, max_value=50),
    left=st.integers(min_value=0, max_value=300),
    monthly=st.integers(min_value=20, max_value=300),
    day=st.integers(min_value=1, max_value=30),
)
def test_months_are_as_counting_day_by_day(
    calls: int, today: int, left: int, monthly: int, day: int
) -> None:
    now = dt.datetime(2026, 11, day, 12, tzinfo=KST)
    quota_state = QuotaState(
        left_today=today,
        daily_quota=50,
        calls_per_second=10,
        left_month=left,
        monthly_quota=monthly,
    )
    moment, month, made, days = now, left, 0, 0
    while True:
        midnight = (moment + dt.timedelta(days=1)).replace(hour=0)
        now_made = min(calls - made, today if moment == now else 50, month)
        made, month, days = made + now_made, month - now_made, days + (now_made > 0)
        if made == calls:
            break
        moment, month = midnight, monthly if midnight.day == 1 else month
    found = forecast(calls, quota_state, now=now)
    assert (found.days, found.done_at) == (days, moment + dt.timedelta(seconds=now_made / 10))


def test_where_the_rate_binds_each_day_takes_what_the_rate_allows_and_no_more() -> None:
    slow = QuotaState(left_today=25_000, daily_quota=25_000, calls_per_second=0.1)
    # Half a day, a whole one, and a hundred seconds.
    found = forecast(4_320 + 8_640 + 10, slow, now=NOON)
    assert (found.days, found.done_at) == (3, dt.datetime(2026, 11, 27, 0, 1, 40, tzinfo=KST))
