"""How many calls a collection still takes, and when they will have been made: arithmetic, no guess. Pure."""

import datetime as dt
from dataclasses import dataclass

KST = dt.timezone(dt.timedelta(hours=9))


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """What the API allows: calls left today, calls a KST day, calls a second."""

    left_today: int
    daily_quota: int
    calls_per_second: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """When `calls` calls are made at the earliest, and on how many KST days calls are made for them (today included)."""

    calls: int
    days: int
    done_at: dt.datetime


def forecast(calls: int, allowance: Allowance, *, now: dt.datetime) -> Forecast:
    """The earliest end: at the full rate, from now until today's calls end, then from each midnight KST on.

    Refused calls, retries and outages come on top. `now` is aware.
    """
    if calls <= 0:
        return Forecast(calls=0, days=0, done_at=now)
    midnight = _midnight_after(now)
    today = min(calls, allowance.left_today, int((midnight - now).total_seconds() * allowance.calls_per_second))
    if today == calls:
        return Forecast(calls=calls, days=1, done_at=now + _time_for(calls, allowance))
    per_day = min(allowance.daily_quota, int(86_400 * allowance.calls_per_second))
    whole_days, last = divmod(calls - today - 1, max(1, per_day))
    done_at = midnight + dt.timedelta(days=whole_days) + _time_for(last + 1, allowance)
    return Forecast(calls=calls, days=whole_days + 1 + (today > 0), done_at=done_at)


def _midnight_after(moment: dt.datetime) -> dt.datetime:
    local = moment.astimezone(KST)
    return (local + dt.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def _time_for(calls: int, allowance: Allowance) -> dt.timedelta:
    return dt.timedelta(seconds=calls / allowance.calls_per_second)
