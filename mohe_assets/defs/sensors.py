"""The sensors, which launch runs for due regions and refinements."""

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache

import dagster as dg

from mohe_assets.app import App
from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from mohe_assets.defs.runtime.names import INGEST_PLACES, PLACE_INGESTION_BATCH, REFINE_PLACES
from mohe_assets.defs.runtime.reconciliation import REPAIRS_AT_ONCE, reconcile
from mohe_assets.defs.runtime.recovery import recover, waiting_sentence
from mohe_assets.defs.runtime.region_refresh import busy_keys, sync_partition_keys, unfinished_runs
from mohe_assets.defs.runtime.runs import (
    REGIONS_TAG,
    SENSOR_TRIGGER,
    TRIGGER_TAG,
    regions_label,
)
from mohe_assets.domain.kst import to_second
from mohe_assets.store.api_state import ApiState, read_state, unavailable_sentence
from mohe_assets.store.checkpoints import Progress

INTERVAL_SECONDS = 5
REFINEMENT_INTERVAL_SECONDS = 15
# Between two comparisons of all partitions with all checkpoints. Differences come from changes by
# hand and are rare.
RECONCILE_SECONDS = 60


@dg.sensor(
    job_name=INGEST_PLACES,  # by name: the job depends on the prefix of its keys
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Launches runs for due regions, reclaims the regions of dead runs, makes partitions agree "
        "with the checkpoints, and waits for the quota. Its last tick states the progress, and why "
        "and until when it waits. CHECKPOINT_AUTO_RESUME=false stops its launches."
    ),
)
def pending_region_sensor(
    context: dg.SensorEvaluationContext, mohe: MoheResource
) -> dg.SensorResult | dg.SkipReason:
    """Request runs for contiguous ranges of due regions, up to MOHE_RUNS_IN_FLIGHT at a time."""

    def evaluate(app: App) -> dg.SensorResult | dg.SkipReason:
        recover(context.instance, app)
        if mismatch := app.origin_mismatch():
            return dg.SkipReason(str(mismatch))
        app.seed_missing()
        app.reopen_regions_with_old_plan()
        cursor = _reconcile_every_minute(context, app)
        unfinished = unfinished_runs(context.instance)
        api = cache(lambda: read_state(app.database, app.account))
        reason = _reason_to_wait(app, unfinished, api)
        requests = [] if reason else _requests(context.instance, app, unfinished, api())
        if not requests:
            why = _why_nothing(app, reason, len(unfinished))
            waiting = waiting_sentence(context.instance, unfinished)
            return dg.SensorResult(skip_reason=f"{why} {waiting}".strip(), cursor=cursor)
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return mohe.tick(evaluate)


def _reconcile_every_minute(context: dg.SensorEvaluationContext, app: App) -> str:
    """Reconcile if due; return the new cursor, which is the time of the last comparison.

    A cursor that is no time in the past was set by a person or another version, and is ignored.
    """
    now, due_before = dt.datetime.now(dt.UTC), dt.timedelta(seconds=RECONCILE_SECONDS)
    try:
        last = dt.datetime.fromisoformat(context.cursor or "")
        is_recent = last.tzinfo is not None and last <= now and now - last < due_before
    except ValueError:
        is_recent = False
    if is_recent:
        return str(context.cursor)
    sync_partition_keys(context.instance, app)
    # With more differences than fit in a tick, the next tick continues.
    repaired_all = len(reconcile(context.instance, app)) <= REPAIRS_AT_ONCE
    return now.isoformat() if repaired_all else ""


def _reason_to_wait(
    app: App, unfinished: Sequence[dg.DagsterRun], api: Callable[[], ApiState]
) -> str | None:
    settings = app.settings
    if not settings.checkpoint_auto_resume:
        return "CHECKPOINT_AUTO_RESUME is false: the sensor launches no run."
    if any(run.job_name == PLACE_INGESTION_BATCH for run in unfinished):
        return "place_ingestion_batch is collecting all due regions."
    if closed := why_closed(app, api()):
        return closed
    if len(unfinished) >= settings.runs_in_flight:
        return (
            f"{len(unfinished)} runs are unfinished; "
            f"MOHE_RUNS_IN_FLIGHT allows {settings.runs_in_flight}."
        )
    return None


def why_closed(app: App, state: ApiState) -> str | None:
    """Return why no call can be made now and until when; None if a call can be made."""
    if state.blocked_why is not None:
        return f"The API is blocked: {state.blocked_why}"
    if state.closed_until is not None:
        return f"Waiting for the quota until {to_second(state.closed_until)}: {state.closed_why}"
    if state.unavailable_since is not None and not state.probe_is_due:
        since, reason = state.unavailable_since, state.unavailable_reason or ""
        return unavailable_sentence(app.account.api, since, reason, state.next_probe_at)
    return None


def _requests(
    instance: dg.DagsterInstance,
    app: App,
    unfinished: Sequence[dg.DagsterRun],
    api: ApiState,
) -> list[dg.RunRequest]:
    settings = app.settings
    keys = instance.get_dynamic_partitions(str(sigungu_partitions.name))
    due = app.checkpoints.due_keys() - busy_keys(keys, unfinished)
    room = settings.runs_in_flight - len(unfinished)
    if due and api.unavailable_since is not None:
        # A single run probes the API; the others start when it answers.
        room = min(room, 1 if not unfinished else 0)
    return list(run_requests(keys, due, settings.regions_per_run, room, under_way=len(unfinished)))


def _why_nothing(app: App, reason: str | None, unfinished: int) -> str:
    """Return the reason why no run is launched, and the progress, for the page of the tick."""
    progress = app.checkpoints.progress()
    if not progress.total:
        return (
            f"{reason or ''} There are no regions yet: materialize sigungu_regions, or run the job "
            "refresh_regions."
        ).strip()
    if reason is None and progress.pending and unfinished:
        runs = "1 unfinished run" if unfinished == 1 else f"{unfinished} unfinished runs"
        reason = f"All due regions are assigned to {runs}."
    text = f"{reason or 'No region is due.'} {progress_sentence(progress)}"
    unconfirmed = app.regions.unconfirmed()
    return f"{text} Region list: {unconfirmed.sentence}" if unconfirmed else text


def progress_sentence(progress: Progress) -> str:
    """Return the progress in a sentence: regions by status, and the next retry."""
    text = f"{progress.completed + progress.refining} of {progress.total} regions are completed"
    if progress.refining:
        text += f", {progress.refining} of these are being refined"
    if collecting := progress.processing - progress.refining:
        text += f", {collecting} are being collected"
    if progress.pending:
        text += f", {progress.pending} are pending"
    if progress.failed:
        text += f", {progress.failed} failed"
    if progress.next_retry_at:
        text += f" (next try {to_second(progress.next_retry_at)})"
    if progress.given_up:
        text += f"; {progress.given_up} of these only `mohe retry` tries again"
    return text + "."


def run_requests(
    keys: Sequence[str],
    due: Collection[str],
    regions_per_run: int,
    room: int,
    *,
    under_way: int = 0,
) -> Iterator[dg.RunRequest]:
    """Yield `room` requests at most, each for a range of at most `regions_per_run` due keys.

    Runs that start together share the rate and would end together, and no call would be made until
    the next runs have started. So if no run is under way, the first of three takes a third of the
    size and the second two thirds, which keeps their ends apart.
    """
    sizes = [
        regions_per_run if under_way else -(-regions_per_run * (n + 1) // room) for n in range(room)
    ]
    for chunk in _ranges(keys, due, sizes):
        tags = {ASSET_PARTITION_RANGE_START_TAG: chunk[0], ASSET_PARTITION_RANGE_END_TAG: chunk[-1]}
        # No run key: Dagster refuses a known key even if that run was lost. The list of unfinished
        # runs and the claim itself keep a region from being collected twice.
        yield dg.RunRequest(
            tags={**tags, TRIGGER_TAG: SENSOR_TRIGGER, REGIONS_TAG: regions_label(chunk)}
        )


def _ranges(keys: Sequence[str], due: Collection[str], sizes: Sequence[int]) -> Iterator[list[str]]:
    """Yield ranges of due keys without a gap, the n-th with at most `sizes[n]` keys."""
    wanted, left, chunk = set(due), list(sizes), list[str]()
    for key in keys:
        if not left:
            return
        if key in wanted:
            chunk.append(key)
        if chunk and (key not in wanted or len(chunk) == left[0]):
            yield chunk
            chunk = []
            left.pop(0)
    if chunk and left:
        yield chunk


@dg.sensor(
    job_name=REFINE_PLACES,  # the job itself would make Dagster rebuild the sensor, with a warning
    minimum_interval_seconds=REFINEMENT_INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Launches refine_places when every region has its base plan and calls are left. "
        "MOHE_REFINE=false or CHECKPOINT_AUTO_RESUME=false stops its launches."
    ),
)
def refinement_sensor(
    context: dg.SensorEvaluationContext, mohe: MoheResource
) -> dg.SensorResult | dg.SkipReason:
    """Request one run at a time, which claims the regions with the highest expected gain."""

    def evaluate(app: App) -> dg.SensorResult | dg.SkipReason:
        if reason := _reason_not_to_refine(context.instance, app):
            return dg.SkipReason(reason)
        return dg.SensorResult(run_requests=[dg.RunRequest(tags={TRIGGER_TAG: SENSOR_TRIGGER})])

    return mohe.tick(evaluate)


def _reason_not_to_refine(instance: dg.DagsterInstance, app: App) -> str | None:
    settings = app.settings
    if not settings.refine:
        return "MOHE_REFINE is false: completed regions are not refined automatically."
    if not settings.checkpoint_auto_resume:
        return "CHECKPOINT_AUTO_RESUME is false: the sensor launches no run."
    backlog = app.refinement.backlog()
    so_far = f"{backlog.searches:,} refinement searches so far"
    if backlog.base_is_due:
        return f"Regions wait for their base plan, which takes precedence; {so_far}."
    if under_way := len(unfinished_runs(instance)):
        return (
            f"{under_way} runs are collecting or refining; {so_far}, "
            f"{backlog.regions + backlog.refining} regions have an expected gain."
        )
    api = read_state(app.database, app.account)
    if closed := app.origin_mismatch() or why_closed(app, api):
        return f"{closed} ({so_far})"
    return None if backlog.has_work else f"No region has an expected gain; {so_far}."
