"""Korean Standard Time: the zone in which the API counts its days and people read times."""

import datetime as dt

KST = dt.timezone(dt.timedelta(hours=9))
