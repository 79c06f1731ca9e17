"""Sentences that status, plan and report share."""

import datetime as dt

from mohe_assets.domain.forecast import NEVER, Forecast
from mohe_assets.domain.kst import KST
from mohe_assets.ops.status_text import done_when, what_is_left

AT = dt.datetime(2026, 11, 25, 3, 4, 59, tzinfo=dt.UTC)


def test_calls_that_are_left_are_told_with_their_days_and_their_end_in_kst() -> None:
    found = Forecast(calls=3_840, days=1, done_at=AT)
    assert (
        what_is_left(found)
        == "3,840 calls left on 1 day, done 2026-11-25 12:04 KST at the earliest"
    )


def test_nothing_left_is_done_and_an_end_beyond_the_calendar_is_never() -> None:
    assert what_is_left(Forecast(calls=0, days=0, done_at=AT.astimezone(KST))) == "done"
    assert done_when(Forecast(calls=5, days=9, done_at=NEVER)) == "never"
    assert (
        what_is_left(Forecast(calls=5, days=9, done_at=NEVER))
        == "5 calls left; cannot finish at this quota"
    )
