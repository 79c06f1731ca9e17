"""Refresh the regions: first the tables, then the partition keys that mirror them."""

from collections.abc import Collection, Sequence

import dagster as dg

from mohe_assets.app import App
from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.defs.runtime.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    NOT_FINISHED_STATUSES,
    PARTITION_NAME_TAG,
    BulkActionsFilter,
)
from mohe_assets.defs.runtime.recovery import collects_places
from mohe_assets.defs.runtime.runs import UNFINISHED_BACKFILLS
from mohe_assets.errors import ApiError
from mohe_assets.region_sync import RegionSync
from mohe_assets.text.cleaning import markdown


def refresh(
    instance: dg.DagsterInstance, app: App, *, accept_any_change: bool = False
) -> RegionSync:
    """Apply the list and mirror its leaf regions into the partition set.

    Raises Failure with the reason if the download fails.
    """
    try:
        sync = app.refresh_regions(accept_any_change=accept_any_change)
    except ApiError as error:
        raise dg.Failure(description=markdown(str(error)), allow_retries=False) from None
    sync_partition_keys(instance, app)
    return sync


def sync_partition_keys(instance: dg.DagsterInstance, app: App) -> None:
    """Add missing partition keys in the order of codes, and remove those of abolished regions.

    A run's range means the keys between its ends in the order in which they were added. New keys
    come last, so they are in no existing range. A key that an unfinished run or backfill may name
    is removed by the sensor after its end.
    """
    name = str(sigungu_partitions.name)
    wanted = sorted(app.regions.partition_keys().values())
    known = instance.get_dynamic_partitions(name)
    there = set(known)
    if missing := [key for key in wanted if key not in there]:
        instance.add_dynamic_partitions(name, missing)
    dead = there - set(wanted)
    # A table without regions was emptied by hand: the next refresh restores the same regions.
    unfinished = BulkActionsFilter(statuses=[*UNFINISHED_BACKFILLS])
    if not dead or not wanted or instance.get_backfills(filters=unfinished, limit=1):
        return
    for key in sorted(dead - busy_keys(known, unfinished_runs(instance))):
        instance.delete_dynamic_partition(name, key)


def unfinished_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the unfinished runs that collect places: of the sensor, a backfill, or a person."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return [run for run in runs if collects_places(run)]


def busy_keys(keys: Sequence[str], runs: Collection[dg.DagsterRun]) -> set[str]:
    """Return the partition keys that these unfinished runs are going to collect."""
    position = {key: n for n, key in enumerate(keys)}
    busy: set[str] = set()
    for run in runs:
        if key := run.tags.get(PARTITION_NAME_TAG):
            busy.add(key)
        first, last = (
            run.tags.get(tag, "")
            for tag in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
        )
        if first in position and last in position:
            busy.update(keys[position[first] : position[last] + 1])
    return busy
