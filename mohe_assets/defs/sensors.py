"""The sensor that keeps the collection going: read → what is due → run requests."""

from collections.abc import Collection, Iterator, Sequence

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from mohe_assets.defs.assets.places import SENSOR_TRIGGER, TRIGGER_TAG
from mohe_assets.defs.dead_runs import recover
from mohe_assets.defs.jobs import ingest_places
from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.defs.resources import MoheResource
from mohe_assets.platform import Platform
from mohe_assets.store.api_budget import read_state

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(
    job=ingest_places,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches runs for the regions that are due, takes back those of runs that died, and waits for the quota.",
)
def pending_region_sensor(context: dg.SensorEvaluationContext, mohe: MoheResource) -> dg.SensorResult | dg.SkipReason:
    """Asks for contiguous ranges of due regions, a bounded number of runs at a time."""
    with mohe.open() as platform:
        settings = platform.settings
        recover(context.instance, platform)
        if not settings.checkpoint_auto_resume:
            return dg.SkipReason("CHECKPOINT_AUTO_RESUME is false: runs are launched by people only.")
        if (reason := _closed(platform)) is not None:
            return dg.SkipReason(reason)
        unfinished = context.instance.get_runs(filters=dg.RunsFilter(job_name=ingest_places.name, statuses=UNFINISHED))
        room = settings.mohe_runs_in_flight - len(unfinished)
        if room <= 0:
            return dg.SkipReason(f"{len(unfinished)} runs are under way, no more than {settings.mohe_runs_in_flight} at once.")
        keys = context.instance.get_dynamic_partitions(str(sigungu_partitions.name))
        due = platform.checkpoints.due_keys()
        requests = list(run_requests(keys, due - busy_keys(keys, unfinished), settings.mohe_regions_per_run, room))
        if not requests:
            return dg.SkipReason(_nothing_due(platform))
        return dg.SensorResult(run_requests=requests)


def _closed(platform: Platform) -> str | None:
    state = read_state(platform.database, platform.account)
    if state.blocked_why is not None:
        return f"The API is blocked: {state.blocked_why}"
    if state.closed_until is not None:
        return f"Waiting for the quota until {state.closed_until:%Y-%m-%d %H:%M %Z}: {state.closed_why}"
    return None


def _nothing_due(platform: Platform) -> str:
    progress = platform.checkpoints.progress()
    text = f"Nothing is due: {progress.completed} of {progress.total} regions are completed"
    if progress.processing:
        text += f", {progress.processing} are being collected"
    if progress.failed:
        text += f", {progress.failed} failed"
    if progress.next_retry_at:
        text += f" (next try {progress.next_retry_at:%Y-%m-%d %H:%M %Z})"
    return text + "."


def busy_keys(keys: Sequence[str], runs: Collection[dg.DagsterRun]) -> set[str]:
    """Partition keys that unfinished runs are going to collect, whoever launched them."""
    busy: set[str] = set()
    for run in runs:
        if key := run.tags.get(PARTITION_NAME_TAG):
            busy.add(key)
        first, last = run.tags.get(ASSET_PARTITION_RANGE_START_TAG), run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
        if first in keys and last in keys:
            busy.update(keys[keys.index(first) : keys.index(last) + 1])
    return busy


def run_requests(keys: Sequence[str], due: Collection[str], regions_per_run: int, room: int) -> Iterator[dg.RunRequest]:
    """One request per contiguous range of due keys, at most `regions_per_run` keys long, at most `room` requests."""
    for chunk in list(_ranges(keys, due, regions_per_run))[:room]:
        tags = {ASSET_PARTITION_RANGE_START_TAG: chunk[0], ASSET_PARTITION_RANGE_END_TAG: chunk[-1]}
        # No run key: Dagster refuses a key it has seen, whatever became of that run, and a lost run must be asked again.
        yield dg.RunRequest(tags={**tags, TRIGGER_TAG: SENSOR_TRIGGER})


def _ranges(keys: Sequence[str], due: Collection[str], size: int) -> Iterator[list[str]]:
    wanted, chunk = set(due), list[str]()
    for key in keys:
        if key in wanted:
            chunk.append(key)
        if chunk and (key not in wanted or len(chunk) == size):
            yield chunk
            chunk = []
    if chunk:
        yield chunk
