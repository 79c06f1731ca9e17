"""The tags by which a person finds a run in the UI: which regions it is for, in Korean, and who
asked for it.
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.storage.tags import BACKFILL_ID_TAG, SCHEDULE_NAME_TAG

from mohe_assets.defs.runtime.events import PLACE_INGESTION_BATCH

REGIONS_TAG = "mohe/regions"
BATCH_TAG = "mohe/batch"
# Runs the sensor asks for take due regions only, a person's runs take what they name.
TRIGGER_TAG = "mohe/trigger"
SENSOR_TRIGGER = "sensor"
ALL_DUE = "all that are due"


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
