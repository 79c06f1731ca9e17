"""When a number of calls will have been made."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohe_assets.forecast import KST, Allowance, forecast

NOON = dt.datetime(2026, 11, 25, 12, tzinfo=KST)
CLASSIC = Allowance(left_today=25_000, daily_quota=25_000, calls_per_second=10)


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
    closed = Allowance(left_today=0, daily_quota=25_000, calls_per_second=10)
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
def test_more_calls_are_never_done_earlier_and_no_day_takes_more_than_its_quota(calls: int, left: int, rate: float) -> None:
    allowance = Allowance(left_today=left, daily_quota=25_000, calls_per_second=rate)
    one, more = (forecast(n, allowance, now=NOON) for n in (calls, calls + 1))
    assert NOON < one.done_at <= more.done_at
    assert one.days <= more.days
    assert one.calls <= left + 25_000 * one.days
    assert (one.done_at - NOON).total_seconds() == pytest.approx(0, abs=one.days * 86_400 + 43_200)
