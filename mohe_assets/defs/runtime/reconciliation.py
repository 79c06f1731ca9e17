"""Compare the partitions in Dagster with the checkpoints, and repair the partitions.

Dagster derives a partition's colour from events. A partition is materialized from its first
materialization on. It is failed if the last run that planned to materialize it failed without doing
so, even if that run never tried it. The checkpoint is right, so:

| checkpoint          | shown           | repair                                                  |
|---------------------|-----------------|---------------------------------------------------------|
| COMPLETED           | missing, failed | report it as materialized, by no run                    |
| FAILED              | missing, green  | plan it in the run that failed it, or record a failure  |
| PENDING             | failed          | plan it in no run, so that the last plan has not failed |
| PENDING, never done | green           | none, events stay: it is collected again                |
| PROCESSING          | any             | none: its run reports the end                           |
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import dagster as dg

from mohe_assets.app import App
from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.defs.runtime.dagster_internals import (
    RUNLESS_JOB_NAME,
    RUNLESS_RUN_ID,
    AssetMaterializationPlannedData,
    make_new_run_id,
)
from mohe_assets.defs.runtime.events import failure_observation, materialization
from mohe_assets.defs.runtime.names import INGEST_PLACES, places_key
from mohe_assets.defs.runtime.runs import BATCH_TAG, REGIONS_TAG, TRIGGER_TAG, regions_label
from mohe_assets.store.checkpoints import Status
from mohe_assets.store.reads.partitions import PartitionState, partition_states

RECONCILIATION = "reconciliation"
WORDS: Mapping[dg.AssetPartitionStatus | None, str] = {
    dg.AssetPartitionStatus.MATERIALIZED: "materialized",
    dg.AssetPartitionStatus.FAILED: "failed",
    dg.AssetPartitionStatus.IN_PROGRESS: "in progress",
    None: "missing",
}

# A difference that no event can repair, see above.
IRREPARABLE = "PENDING, but materialized"
# Repairs per tick: an event takes about 10 ms, and Dagster ends a tick after a minute. The next
# tick continues.
REPAIRS_AT_ONCE = 500

Shown = Mapping[str, dg.AssetPartitionStatus | None]


def regions_of(app: App, codes: Collection[str] | None = None) -> dict[str, PartitionState]:
    """Return the regions of the batch by partition key, all or those with these codes."""
    return partition_states(app.database, app.scope, codes)


def shown(instance: dg.DagsterInstance) -> Shown:
    """Return the status of every partition as the asset's page shows it; None is missing."""
    keys = instance.get_dynamic_partitions(str(sigungu_partitions.name))
    found = instance.get_status_by_partition(places_key(), keys, sigungu_partitions)
    return dict.fromkeys(keys) if found is None else found


def disagreements(regions: Mapping[str, PartitionState], seen: Shown) -> dict[str, str]:
    """Return the differences by partition key, without regions that a run collects or reports."""
    found = {key: _difference(region, seen.get(key)) for key, region in regions.items()}
    found |= {
        key: f"{WORDS[seen[key]]}, but no region of this batch"
        for key in seen.keys() - regions.keys()
        if seen[key]
    }
    return {key: text for key, text in found.items() if text}


def _difference(region: PartitionState, seen: dg.AssetPartitionStatus | None) -> str:
    if (
        region.in_flux
        or seen is dg.AssetPartitionStatus.IN_PROGRESS
        or region.status == Status.PROCESSING
    ):
        return ""
    green, red = (
        seen is dg.AssetPartitionStatus.MATERIALIZED,
        seen is dg.AssetPartitionStatus.FAILED,
    )
    fine = {
        Status.COMPLETED: green,
        Status.FAILED: red,
        # In a later round, or after keywords were added, a due region has been collected before.
        Status.PENDING: not red and (region.collected_before or not green),
    }[Status(region.status)]
    return "" if fine else f"{region.status}, but {WORDS[seen]}"


def reconcile(instance: dg.DagsterInstance, app: App) -> dict[str, str]:
    """Repair the partitions; return what differed, by partition key."""
    before = regions_of(app)
    found = disagreements(before, shown(instance))
    if not found:
        return {}
    # Regions that changed between both reads are compared again a minute later.
    now = regions_of(app)
    still = [before[key] for key in sorted(found) if key in before and now.get(key) == before[key]]
    still = [region for region in still if found[region.partition_key] != IRREPARABLE][
        :REPAIRS_AT_ONCE
    ]
    _show_completed(instance, app, [one for one in still if one.status == Status.COMPLETED])
    _show_failed(instance, app, [one for one in still if one.status == Status.FAILED])
    show_as_untried(instance, [one.partition_key for one in still if one.status == Status.PENDING])
    return found


def _show_completed(
    instance: dg.DagsterInstance, app: App, regions: Sequence[PartitionState]
) -> None:
    codes = [region.region_code for region in regions]
    completions = app.checkpoints.completions(codes, reported_too=True) if codes else []
    for completion in completions:
        instance.report_runless_asset_event(materialization(completion))
    app.checkpoints.mark_reported(completions)


def _show_failed(instance: dg.DagsterInstance, app: App, regions: Sequence[PartitionState]) -> None:
    """Show the regions as failed with their reason, in the run that failed them if it is known."""
    run_ids = {region.run_id for region in regions if region.run_id}
    known = instance.get_runs(filters=dg.RunsFilter(run_ids=sorted(run_ids))) if run_ids else []
    failed = {run.run_id for run in known if run.status is dg.DagsterRunStatus.FAILURE}
    unassigned = [region for region in regions if region.run_id not in failed]
    record = _record_failure(instance, app, unassigned) if unassigned else ""
    for region in regions:
        plan(
            instance,
            region.partition_key,
            run_id=region.run_id if region.run_id in failed else record,
        )
        instance.report_runless_asset_event(
            failure_observation(region, region.error, region.run_id)
        )


def _record_failure(
    instance: dg.DagsterInstance, app: App, regions: Sequence[PartitionState]
) -> str:
    """Record a failed run for regions whose own run was cancelled or deleted; return its id.

    Without a failed run Dagster shows no partition as failed.
    """
    tags = {
        REGIONS_TAG: regions_label([region.partition_key for region in regions]),
        BATCH_TAG: app.settings.checkpoint_batch_name,
        TRIGGER_TAG: RECONCILIATION,
    }
    # Failed from the start: it must never count as unfinished.
    run = dg.DagsterRun(
        job_name=INGEST_PLACES,
        run_id=make_new_run_id(),
        status=dg.DagsterRunStatus.FAILURE,
        tags=tags,
    )
    instance.add_run(run)
    reasons = "\n".join(f"{region.region_name}: {region.error}" for region in regions[:50])
    instance.report_run_failed(
        run,
        message=f"Records failed regions whose own run is cancelled or deleted.\n{reasons}",
    )
    return run.run_id


def show_as_untried(instance: dg.DagsterInstance, partition_keys: Iterable[str]) -> None:
    """Show the partitions as not failed: missing, or green if they were green before.

    They are planned by "no run", which cannot fail.
    """
    keys = list(partition_keys)
    for key in keys:
        plan(instance, key, run_id=RUNLESS_RUN_ID, job_name=RUNLESS_JOB_NAME)
    if keys:
        # Dagster caches the status "failed" until the next materialization, or until it is wiped.
        instance.wipe_asset_cached_status([places_key()])


def plan(
    instance: dg.DagsterInstance,
    partition_key: str,
    *,
    run_id: str,
    job_name: str = INGEST_PLACES,
    step_key: str | None = None,
) -> None:
    """Plan the partition in a run, as Dagster does when it creates a partitioned run."""
    planned = AssetMaterializationPlannedData(places_key(), partition=partition_key)
    # Dagster derives the name of an asset's step from its key.
    step_key = step_key or places_key().to_python_identifier()
    event = dg.DagsterEvent.build_asset_materialization_planned_event(job_name, step_key, planned)
    instance.report_dagster_event(event, run_id=run_id)
