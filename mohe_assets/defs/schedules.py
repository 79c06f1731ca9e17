"""The schedules, all off until a person turns them on."""

from functools import partial

import dagster as dg

from mohe_assets.defs.jobs import new_round, publish_catalog, refresh_regions

_schedule = partial(
    dg.ScheduleDefinition,
    execution_timezone="Asia/Seoul",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

weekly_region_refresh = _schedule(
    name="weekly_region_refresh",
    job=refresh_regions,
    cron_schedule="0 4 * * 1",
    description="Takes the government's region list over every Monday at 04:00 KST.",
)

monthly_new_round = _schedule(
    name="monthly_new_round",
    job=new_round,
    cron_schedule="0 3 1 * *",
    description="Makes every completed region PENDING again on the first of the month at 03:00 KST; the sensor collects them.",
)

daily_catalog = _schedule(
    name="daily_catalog",
    job=publish_catalog,
    cron_schedule="0 6 * * *",
    description="Writes the nationwide files and the report every day at 06:00 KST.",
)
