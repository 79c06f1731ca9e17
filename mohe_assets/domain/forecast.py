"""How many calls a collection still takes, and when they will have been made: arithmetic, no guess.
Pure.
"""

import datetime as dt
from dataclasses import dataclass

from mohe_assets.domain.kst import KST

# The last moment there is a name for; a quota of one call a day is done at no date at all.
NEVER = dt.datetime(9999, 12, 31, tzinfo=KST)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuotaState:
    """What the API allows: calls left today, calls a KST day, calls a second; without
    `monthly_quota` any number a month.

    `left_month` is what is left of this month, today's calls included.
    """

    left_today: int
    daily_quota: int
    calls_per_second: float
    left_month: int | None = None
    monthly_quota: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """When `calls` calls are made at the earliest, and on how many KST days calls are made for them
    (today included).
    """

    calls: int
    days: int
    done_at: dt.datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionForecast:
    """The calls the collection still takes, and when they are made at the earliest: under rate and
    quota, without refusals.
    """

    base_plan: Forecast
    with_refinement: Forecast


def forecast_collection(
    base: int, refinement: int, quota_state: QuotaState, *, now: dt.datetime
) -> CollectionForecast:
    """`base` calls are missing from base plans, and refinement may add `depth` at most."""
    return CollectionForecast(
        base_plan=forecast(base, quota_state, now=now),
        with_refinement=forecast(base + refinement, quota_state, now=now),
    )


def forecast(calls: int, quota_state: QuotaState, *, now: dt.datetime) -> Forecast:
    """The earliest end: at the full rate, from now until today's or the month's calls end, then
    from the midnight KST on at which there are new ones.

    Refused calls, retries and outages come on top. `now` is aware.
    """
    if calls <= 0:
        return Forecast(calls=0, days=0, done_at=now)
    midnight = _midnight_after(now)
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


def _midnight_after(moment: dt.datetime) -> dt.datetime:
    local = moment.astimezone(KST)
    return (local + dt.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def _time_for(calls: int, quota_state: QuotaState) -> dt.timedelta:
    return dt.timedelta(seconds=calls / quota_state.calls_per_second)
