"""The schedules, all off until a person turns them on."""

import dagster as dg

from mohe_assets.defs.jobs import new_round, publish_catalog, refresh_regions

weekly_region_refresh = dg.ScheduleDefinition(
    name="weekly_region_refresh",
    job=refresh_regions,
    cron_schedule="0 4 * * 1",
    execution_timezone="Asia/Seoul",
    description="Takes the government's region list over every Monday at 04:00 KST.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

monthly_new_round = dg.ScheduleDefinition(
    name="monthly_new_round",
    job=new_round,
    cron_schedule="0 3 1 * *",
    execution_timezone="Asia/Seoul",
    description="Makes every completed region PENDING again on the first of the month at 03:00 KST; the sensor collects them.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

daily_catalog = dg.ScheduleDefinition(
    name="daily_catalog",
    job=publish_catalog,
    cron_schedule="0 6 * * *",
    execution_timezone="Asia/Seoul",
    description="Writes the nationwide files and the report every day at 06:00 KST.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)
