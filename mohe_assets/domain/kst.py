"""Korean Standard Time: the zone of the APIs' quota days, and every format of a time for people."""

import datetime as dt

KST = dt.timezone(dt.timedelta(hours=9))


def day_start(moment: dt.datetime) -> dt.datetime:
    """Return the KST midnight at which the day of `moment` (aware) began."""
    return moment.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)


def to_minute(moment: dt.datetime) -> str:
    """Return `2026-11-29 14:05 KST`."""
    return f"{moment.astimezone(KST):%Y-%m-%d %H:%M} KST"


def to_second(moment: dt.datetime) -> str:
    """Return `2026-11-29 14:05:09 KST`."""
    return f"{moment.astimezone(KST):%Y-%m-%d %H:%M:%S} KST"


def short_to_minute(moment: dt.datetime) -> str:
    """Return `11-29 14:05 KST`, for narrow columns."""
    return f"{moment.astimezone(KST):%m-%d %H:%M} KST"


def short_to_second(moment: dt.datetime) -> str:
    """Return `11-29 14:05:09 KST`, for narrow columns."""
    return f"{moment.astimezone(KST):%m-%d %H:%M:%S} KST"
