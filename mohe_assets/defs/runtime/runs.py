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
# Runs of the sensor collect due regions only; runs of a person collect all regions they name.
TRIGGER_TAG = "mohe/trigger"
SENSOR_TRIGGER = "sensor"
ALL_DUE = "all that are due"
UNFINISHED_BACKFILLS = (
    BulkActionStatus.REQUESTED,
    BulkActionStatus.CANCELING,
    BulkActionStatus.FAILING,
)


def region_name(partition_key: str) -> str:
    """Return 서울특별시 강남구 for 11680_서울특별시_강남구."""
    return partition_key.partition("_")[2].replace("_", " ")


def regions_label(partition_keys: Sequence[str]) -> str:
    """Return the region's full name, or that of the first region and the number of all."""
    if not partition_keys:
        return ALL_DUE
    first = region_name(partition_keys[0])
    return first if len(partition_keys) == 1 else f"{first} … ({len(partition_keys)})"


def name_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, batch_name: str, partition_keys: Sequence[str]
) -> None:
    """Add the tags that a run lacks if a backfill, a person or a shell launched it."""
    trigger = "batch" if run.job_name == PLACE_INGESTION_BATCH else "person"
    if BACKFILL_ID_TAG in run.tags:
        trigger = "backfill"
    elif SCHEDULE_NAME_TAG in run.tags:
        trigger = "schedule"
    wanted = {
        REGIONS_TAG: regions_label(partition_keys),
        BATCH_TAG: batch_name,
        TRIGGER_TAG: trigger,
    }
    if missing := {name: value for name, value in wanted.items() if name not in run.tags}:
        instance.add_run_tags(run.run_id, missing)


def requested_at(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dt.datetime:
    """Return when the work of a run was requested: by its backfill or the first run of its lineage.

    A person who materializes a completed region wants it collected again. A retry, a re-execution
    or a later run of the same backfill must not repeat what was completed since.
    """
    for tag in (ROOT_BACKFILL_ID_TAG, BACKFILL_ID_TAG):
        backfill = instance.get_backfill(run.tags[tag]) if tag in run.tags else None
        if backfill is not None:
            return dt.datetime.fromtimestamp(backfill.backfill_timestamp, tz=dt.UTC)
    for run_id in (run.tags.get(ROOT_RUN_ID_TAG), run.root_run_id, run.run_id):
        record = instance.get_run_record_by_id(run_id) if run_id else None
        if record is not None:
            return record.create_timestamp
    return dt.datetime.now(dt.UTC)
