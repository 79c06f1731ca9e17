"""The schedules: retention is on, the others are off until a person turns them on."""

from functools import partial

import dagster as dg

from mohe_assets.defs.jobs import maintenance
from mohe_assets.defs.runtime.names import NEW_ROUND, PUBLISH_CATALOG, REFRESH_REGIONS

_schedule = partial(
    dg.ScheduleDefinition,
    execution_timezone="Asia/Seoul",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

weekly_region_refresh = _schedule(
    name="weekly_region_refresh",
    job_name=REFRESH_REGIONS,
    cron_schedule="0 4 * * 1",
    description="Downloads and applies the government's region list on Mondays at 04:00 KST.",
)

monthly_new_round = _schedule(
    name="monthly_new_round",
    job_name=NEW_ROUND,
    cron_schedule="0 3 1 * *",
    description=(
        "Starts a new round of all completed regions on the first of the month at 03:00 KST; the "
        "sensor collects them."
    ),
)

daily_catalog = _schedule(
    name="daily_catalog",
    job_name=PUBLISH_CATALOG,
    cron_schedule="0 6 * * *",
    description="Writes the nationwide files and the report every day at 06:00 KST.",
)

daily_maintenance = dg.ScheduleDefinition(
    name="daily_maintenance",
    job=maintenance,
    cron_schedule="0 5 * * *",
    execution_timezone="Asia/Seoul",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Deletes searches and runs older than MOHE_KEEP_LEDGER_DAYS and MOHE_KEEP_RUN_DAYS every "
        "day at 05:00 KST."
    ),
)
