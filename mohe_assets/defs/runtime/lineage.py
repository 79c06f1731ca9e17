"""When a run's work was asked for: by the backfill or the first run it descends from.

A person who materializes a completed region wants it fresh; a retry, a re-execution, or a later run
of the same backfill must not repeat what its lineage, or the sensor meanwhile, has completed since.
"""

import datetime as dt

import dagster as dg
from dagster._core.storage.tags import BACKFILL_ID_TAG, ROOT_BACKFILL_ID_TAG, ROOT_RUN_ID_TAG


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
