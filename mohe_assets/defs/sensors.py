"""The sensor that keeps the collection going: read → what is due → run requests."""

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
from mohe_assets.domain.kst import KST
from mohe_assets.store.api_state import ApiState, read_state, unavailable_sentence
from mohe_assets.store.checkpoints import Progress

INTERVAL_SECONDS = 5
REFINEMENT_INTERVAL_SECONDS = 15
# Comparing all partitions with all checkpoints is for what nobody should have done by hand; once a
# minute is enough.
RECONCILE_SECONDS = 60


@dg.sensor(
    job_name=INGEST_PLACES,  # by name: the job itself is made with the prefix of its keys
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Launches runs for the regions that are due, takes back those of runs that died, makes partitions show what the "
        "checkpoints say, and waits for the quota: its last tick says how far the collection is, and why it waits until when. "
        "CHECKPOINT_AUTO_RESUME=false keeps it from launching."
    ),
)
def pending_region_sensor(
    context: dg.SensorEvaluationContext, mohe: MoheResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks for contiguous ranges of due regions, a bounded number of runs at a time."""

    def evaluate(app: App) -> dg.SensorResult | dg.SkipReason:
        recover(context.instance, app)
        if mismatch := app.origin_mismatch():
            return dg.SkipReason(str(mismatch))
        app.seed_missing()
        app.reopen_regions_with_old_plan()
        cursor = _reconcile_now_and_then(context, app)
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


def _reconcile_now_and_then(context: dg.SensorEvaluationContext, app: App) -> str:
    now = dt.datetime.now(dt.UTC)
    last = _moment(context.cursor, now)
    if last is not None and now - last < dt.timedelta(seconds=RECONCILE_SECONDS):
        return str(context.cursor)
    sync_partition_keys(context.instance, app)
    if len(reconcile(context.instance, app)) > REPAIRS_AT_ONCE:
        return last.isoformat() if last else ""  # the next tick goes on
    return now.isoformat()


def _moment(cursor: str | None, now: dt.datetime) -> dt.datetime | None:
    """The last comparison; None for what is no moment of the past: a person or another version set
    it.
    """
    try:
        last = dt.datetime.fromisoformat(cursor or "")
    except ValueError:
        return None
    return last if last.tzinfo is not None and last <= now else None


def _reason_to_wait(
    app: App, unfinished: Sequence[dg.DagsterRun], api: Callable[[], ApiState]
) -> str | None:
    settings = app.settings
    if not settings.checkpoint_auto_resume:
        return "CHECKPOINT_AUTO_RESUME is false: runs are launched by people only."
    if any(run.job_name == PLACE_INGESTION_BATCH for run in unfinished):
        return "place_ingestion_batch is collecting all that is due."
    if closed := why_closed(app, api()):
        return closed
    if len(unfinished) >= settings.runs_in_flight:
        return f"{len(unfinished)} runs are under way; MOHE_RUNS_IN_FLIGHT allows {settings.runs_in_flight}."
    return None


def why_closed(app: App, state: ApiState) -> str | None:
    """Why no call can be made now and until when, None if one can."""
    if state.blocked_why is not None:
        return f"The API is blocked: {state.blocked_why}"
    if state.closed_until is not None:
        return f"Waiting for the quota until {_kst(state.closed_until)}: {state.closed_why}"
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
        # One run probes the API; the others start once it answers.
        room = min(room, 1 if not unfinished else 0)
    return list(run_requests(keys, due, settings.regions_per_run, room, under_way=len(unfinished)))


def _why_nothing(app: App, reason: str | None, unfinished: int) -> str:
    """The reason, and how far the collection is: the tick is what a person looks at who wonders
    when it goes on.
    """
    progress = app.checkpoints.progress()
    if not progress.total:
        return f"{reason or ''} There are no regions yet: materialize sigungu_regions, or run the job refresh_regions.".strip()
    text = f"{reason or _nothing_to_ask(progress, unfinished)} {progress_sentence(progress)}"
    unconfirmed = app.regions.unconfirmed()
    return f"{text} Region list: {unconfirmed.sentence}" if unconfirmed else text


def _nothing_to_ask(progress: Progress, unfinished: int) -> str:
    if not progress.pending or not unfinished:
        return "Nothing is due."
    runs = "one run that is not over" if unfinished == 1 else f"{unfinished} runs that are not over"
    return f"All that is due has been asked of {runs}."


def progress_sentence(progress: Progress) -> str:
    """How far the collection is, what failed, and when that is tried again."""
    text = f"{progress.completed + progress.refining} of {progress.total} regions are completed"
    if progress.refining:
        text += f", {progress.refining} of them are being refined"
    if collecting := progress.processing - progress.refining:
        text += f", {collecting} are being collected"
    if progress.pending:
        text += f", {progress.pending} are to come"
    if progress.failed:
        text += f", {progress.failed} failed"
    if progress.next_retry_at:
        text += f" (next try {_kst(progress.next_retry_at)})"
    if progress.given_up:
        text += f"; {progress.given_up} of them are tried again only when asked for"
    return text + "."


def _kst(moment: dt.datetime) -> str:
    return f"{moment.astimezone(KST):%Y-%m-%d %H:%M:%S} KST"


def run_requests(
    keys: Sequence[str],
    due: Collection[str],
    regions_per_run: int,
    room: int,
    *,
    under_way: int = 0,
) -> Iterator[dg.RunRequest]:
    """One request per contiguous range of due keys, at most `regions_per_run` keys long, at most
    `room` requests.

    Runs that start together share the rate and would end together, with nobody calling until the
    next ones have started: into an empty field the first of three takes a third of the size, the
    second two thirds, so that their ends stay apart.
    """
    sizes = [
        regions_per_run if under_way else -(-regions_per_run * (n + 1) // room) for n in range(room)
    ]
    for chunk in _ranges(keys, due, sizes):
        tags = {ASSET_PARTITION_RANGE_START_TAG: chunk[0], ASSET_PARTITION_RANGE_END_TAG: chunk[-1]}
        # No run key: Dagster refuses a key it has seen, whatever became of that run, and a lost run
        # must be asked again. What keeps a region from being asked for twice is the list of
        # unfinished runs, and the claim itself.
        yield dg.RunRequest(
            tags={**tags, TRIGGER_TAG: SENSOR_TRIGGER, REGIONS_TAG: regions_label(chunk)}
        )


def _ranges(keys: Sequence[str], due: Collection[str], sizes: Sequence[int]) -> Iterator[list[str]]:
    """Ranges of due keys without a gap, the n-th at most `sizes[n]` keys long, until the sizes or
    the keys are used up.
    """
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
    job_name=REFINE_PLACES,  # by name: given the job itself, Dagster builds the sensor again and warns of its own doing
    minimum_interval_seconds=REFINEMENT_INTERVAL_SECONDS,
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
        if reason := _reason_not_to_refine(context.instance, app):
            return dg.SkipReason(reason)
        return dg.SensorResult(run_requests=[dg.RunRequest(tags={TRIGGER_TAG: SENSOR_TRIGGER})])

    return mohe.tick(evaluate)


def _reason_not_to_refine(instance: dg.DagsterInstance, app: App) -> str | None:
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
