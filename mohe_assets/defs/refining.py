"""The sensor that spends what is left of the day's calls on depth, once every region has its base
plan.
"""

import dagster as dg

from mohe_assets.app import App
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.events import REFINE_PLACES
from mohe_assets.defs.runtime.region_refresh import unfinished_runs
from mohe_assets.defs.runtime.run_tags import SENSOR_TRIGGER, TRIGGER_TAG
from mohe_assets.defs.sensors import why_closed
from mohe_assets.store.api_state import read_state

INTERVAL_SECONDS = 15


@dg.sensor(
    job_name=REFINE_PLACES,  # by name: given the job itself, Dagster builds the sensor again and warns of its own doing
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Launches refine_places when every region has its base plan and calls are left. MOHE_REFINE=false or "
        "CHECKPOINT_AUTO_RESUME=false keeps it from launching."
    ),
)
def refinement_sensor(
    context: dg.SensorEvaluationContext, mohe: MoheResource
) -> dg.SensorResult | dg.SkipReason:
    """One run at a time, which claims the most promising regions until there is a reason to stop."""

    def evaluate(app: App) -> dg.SensorResult | dg.SkipReason:
        if reason := _reason_to_wait(context.instance, app):
            return dg.SkipReason(reason)
        return dg.SensorResult(run_requests=[dg.RunRequest(tags={TRIGGER_TAG: SENSOR_TRIGGER})])

    return mohe.tick(evaluate)


def _reason_to_wait(instance: dg.DagsterInstance, app: App) -> str | None:
    settings = app.settings
    if not settings.refine:
        return "MOHE_REFINE is false: completed regions are not searched deeper by themselves."
    if not settings.checkpoint_auto_resume:
        return "CHECKPOINT_AUTO_RESUME is false: runs are launched by people only."
    backlog = app.refinement.backlog()
    so_far = f"{backlog.searches:,} searches beyond the base plan so far"
    if backlog.base_is_due:
        return f"Regions wait for their base plan, which has precedence; {so_far}."
    if under_way := len(unfinished_runs(instance)):
        return f"{under_way} runs are collecting or refining; {so_far}, {backlog.regions + backlog.refining} regions promise more."
    api = read_state(app.database, app.account)
    if closed := app.origin_mismatch() or why_closed(app, api):
        return f"{closed} ({so_far})"
    return None if backlog.has_work else f"No region promises more than it has given; {so_far}."
