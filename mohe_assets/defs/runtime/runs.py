"""Tags by which a person finds a run in the UI, and the time at which its work was requested."""

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from mohe_assets.defs.runtime.dagster_internals import (
    BACKFILL_ID_TAG,
    ROOT_BACKFILL_ID_TAG,
    ROOT_RUN_ID_TAG,
    SCHEDULE_NAME_TAG,
    BulkActionStatus,
)
from mohe_assets.defs.runtime.names import PLACE_INGESTION_BATCH

REGIONS_TAG = "mohe/regions"
BATCH_TAG = "mohe/batch"
# Runs the sensor asks for take due regions only, a person's runs take what they name.
TRIGGER_TAG = "mohe/trigger"
SENSOR_TRIGGER = "sensor"
ALL_DUE = "all that are due"
UNFINISHED_BACKFILLS = (
    BulkActionStatus.REQUESTED,
    BulkActionStatus.CANCELING,
    BulkActionStatus.FAILING,
)


def region_name(partition_key: str) -> str:
    """서울특별시 강남구 for 11680_서울특별시_강남구."""
    return partition_key.partition("_")[2].replace("_", " ")


def regions_label(partition_keys: Sequence[str]) -> str:
    """The one region's full name, or the first one's and the number of all."""
    if not partition_keys:
        return ALL_DUE
    first = region_name(partition_keys[0])
    return first if len(partition_keys) == 1 else f"{first} … ({len(partition_keys)})"


def name_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, batch_name: str, partition_keys: Sequence[str]
) -> None:
    """Gives a run that collects the tags it lacks: whoever launched it, backfill, person or shell."""
    wanted = {
        REGIONS_TAG: regions_label(partition_keys),
        BATCH_TAG: batch_name,
        TRIGGER_TAG: _trigger(run),
    }
    if missing := {name: value for name, value in wanted.items() if name not in run.tags}:
        instance.add_run_tags(run.run_id, missing)


def _trigger(run: dg.DagsterRun) -> str:
    if BACKFILL_ID_TAG in run.tags:
        return "backfill"
    if SCHEDULE_NAME_TAG in run.tags:
        return "schedule"
    return "batch" if run.job_name == PLACE_INGESTION_BATCH else "person"


def asked_at(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dt.datetime:
    """Moment at which a person asked for what this run does."""
    for tag in (ROOT_BACKFILL_ID_TAG, BACKFILL_ID_TAG):
        backfill = instance.get_backfill(run.tags[tag]) if tag in run.tags else None
        if backfill is not None:
            return dt.datetime.fromtimestamp(backfill.backfill_timestamp, tz=dt.UTC)
    for run_id in (run.tags.get(ROOT_RUN_ID_TAG), run.root_run_id, run.run_id):
        record = instance.get_run_record_by_id(run_id) if run_id else None
        if record is not None:
            return record.create_timestamp
    return dt.datetime.now(dt.UTC)
