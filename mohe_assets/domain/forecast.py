"""Calls that a collection still needs and the earliest time they can be finished. Pure."""

import datetime as dt
from dataclasses import dataclass

from mohe_assets.domain.kst import KST, day_start

# Stands for "cannot finish": the last day that datetime represents.
NEVER = dt.datetime(9999, 12, 31, tzinfo=KST)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuotaState:
    """The limits of an API: calls left today, calls per KST day and calls per second.

    `left_month` counts the calls left in this month, today's included. None: no monthly limit.
    """

    left_today: int
    daily_quota: int
    calls_per_second: float
    left_month: int | None = None
    monthly_quota: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """The earliest end of `calls` calls, and the number of KST days with calls, today included."""

    calls: int
    days: int
    done_at: dt.datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionForecast:
    """The calls left and their earliest end under rate and quota, without refused calls."""

    base_plan: Forecast
    with_refinement: Forecast


def forecast_collection(
    base: int, refinement: int, quota_state: QuotaState, *, now: dt.datetime
) -> CollectionForecast:
    """Return forecasts for the `base` calls left, and with at most `refinement` calls more."""
    return CollectionForecast(
        base_plan=forecast(base, quota_state, now=now),
        with_refinement=forecast(base + refinement, quota_state, now=now),
    )


def forecast(calls: int, quota_state: QuotaState, *, now: dt.datetime) -> Forecast:
    """Return the earliest end: full rate until a quota ends, again from the KST midnight after it.

    Refused calls, retries and outages are not included. `now` is aware.
    """
    if calls <= 0:
        return Forecast(calls=0, days=0, done_at=now)
    midnight = day_start(now) + dt.timedelta(days=1)
    month = _at_most(quota_state.left_month)
    today = min(
        calls,
        quota_state.left_today,
        month,
        int((midnight - now).total_seconds() * quota_state.calls_per_second),
    )
    if today == calls:
        return Forecast(calls=calls, days=1, done_at=now + _time_for(calls, quota_state))
    left, days, begin = calls - today, int(today > 0), midnight
    month = _at_most(quota_state.monthly_quota) if begin.day == 1 else month - today
    per_day = max(1, min(quota_state.daily_quota, int(86_400 * quota_state.calls_per_second)))
    while begin.year < NEVER.year:
        next_month = (begin.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
        possible = min(left, month, per_day * (next_month - begin).days)
        if possible == left:
            whole_days, last = divmod(left - 1, per_day)
            done_at = begin + dt.timedelta(days=whole_days) + _time_for(last + 1, quota_state)
            return Forecast(calls=calls, days=days + whole_days + 1, done_at=done_at)
        left, days, begin = left - possible, days + -(-possible // per_day), next_month
        month = _at_most(quota_state.monthly_quota)
    return Forecast(calls=calls, days=days, done_at=NEVER)


def _at_most(quota: int | None) -> int:
    return 1 << 62 if quota is None else max(0, quota)


def _time_for(calls: int, quota_state: QuotaState) -> dt.timedelta:
    return dt.timedelta(seconds=calls / quota_state.calls_per_second)
