"""Whether Dagster shows of each region what its checkpoint says, and what makes it do so again. The
checkpoint is right.

Dagster derives a partition's colour from events. It is materialized once an event said so, for
good. It is failed if the last run that planned to materialize it failed without doing so, whether
that run ever tried it or not. So:

| checkpoint            | shown            | what is done                                                                |
|-----------------------|------------------|-----------------------------------------------------------------------------|
| COMPLETED             | missing, failed  | reported as materialized, by no run                                         |
| FAILED                | missing, green   | planned in the run that failed it, or in one that is recorded as failed     |
| PENDING               | failed           | planned by no run, so that the last to plan it has not failed               |
| PENDING, never done   | green            | nothing: an event cannot be unsaid. It is collected again, the check tells  |
| PROCESSING            | anything         | nothing: its run says how it ends                                           |
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

# What no event can repair, see above.
UNSAID = "PENDING, but materialized"
# An event takes about ten milliseconds, and Dagster gives up a tick after a minute; the next look
# goes on.
REPAIRS_AT_ONCE = 500

Shown = Mapping[str, dg.AssetPartitionStatus | None]


def regions_of(app: App, codes: Collection[str] | None = None) -> dict[str, PartitionState]:
    """By partition key: the regions of the platform's batch, or those of these codes."""
    return partition_states(app.database, app.scope, codes)


def shown(instance: dg.DagsterInstance) -> Shown:
    """Every partition as the asset's page paints it; None is missing."""
    keys = instance.get_dynamic_partitions(str(sigungu_partitions.name))
    found = instance.get_status_by_partition(places_key(), keys, sigungu_partitions)
    return dict.fromkeys(keys) if found is None else found


def disagreements(regions: Mapping[str, PartitionState], seen: Shown) -> dict[str, str]:
    """Partition key → what differs. What a run has under way, or is about to report, is not
    compared yet.
    """
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
        # In a later round, or for a longer list of keywords, a region that is due has been
        # collected before.
        Status.PENDING: not red and (region.collected_before or not green),
    }[Status(region.status)]
    return "" if fine else f"{region.status}, but {WORDS[seen]}"


def reconcile(instance: dg.DagsterInstance, app: App) -> dict[str, str]:
    """Makes Dagster show what the checkpoints say; returns what differed, by partition key."""
    before = regions_of(app)
    found = disagreements(before, shown(instance))
    if not found:
        return {}
    # Whatever moved while both were read is looked at again a minute later.
    now = regions_of(app)
    still = [before[key] for key in sorted(found) if key in before and now.get(key) == before[key]]
    still = [region for region in still if found[region.partition_key] != UNSAID][:REPAIRS_AT_ONCE]
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
    """Red with its reason again, by the run that failed it if Dagster still has that one as failed."""
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
    """A failed run for regions whose own was cancelled or forgotten: without one Dagster calls no
    partition failed.
    """
    tags = {
        REGIONS_TAG: regions_label([region.partition_key for region in regions]),
        BATCH_TAG: app.settings.checkpoint_batch_name,
        TRIGGER_TAG: RECONCILIATION,
    }
    # Failed from its first moment: it must never count as one that is under way.
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
        message=f"Records regions that failed, their own run cannot show it any more.\n{reasons}",
    )
    return run.run_id


def show_as_untried(instance: dg.DagsterInstance, partition_keys: Iterable[str]) -> None:
    """Not red any more, and green as before if it was: the last to plan these partitions is then no
    run at all.
    """
    keys = list(partition_keys)
    for key in keys:
        plan(instance, key, run_id=RUNLESS_RUN_ID, job_name=RUNLESS_JOB_NAME)
    if keys:
        # What Dagster once took for failed it keeps, until the next materialization or until it
        # counts anew.
        instance.wipe_asset_cached_status([places_key()])


def plan(
    instance: dg.DagsterInstance,
    partition_key: str,
    *,
    run_id: str,
    job_name: str = INGEST_PLACES,
    step_key: str | None = None,
) -> None:
    """Says that this run is to materialize the partition, as Dagster does for a partitioned run
    when it is created.
    """
    planned = AssetMaterializationPlannedData(places_key(), partition=partition_key)
    # Of an asset's step, Dagster makes the name from the key.
    step_key = step_key or places_key().to_python_identifier()
    event = dg.DagsterEvent.build_asset_materialization_planned_event(job_name, step_key, planned)
    instance.report_dagster_event(event, run_id=run_id)
