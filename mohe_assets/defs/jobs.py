"""The jobs: refresh the regions, collect chosen regions or all of them, refine, publish, start a
new round, and delete old data.
"""

from collections.abc import Sequence

import dagster as dg

from mohe_assets.app import App
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.collection import cancelled_by_signals, collect
from mohe_assets.defs.runtime.dagster_internals import UnresolvedAssetJobDefinition as AssetJob
from mohe_assets.defs.runtime.names import (
    COLLECTION_REPORT,
    INGEST_PLACES,
    PLACE_CATALOG,
    PLACE_INGESTION_BATCH,
    PLACES,
    PUBLISH_CATALOG,
    REFINE_PLACES,
    REFRESH_REGIONS,
    SIGUNGU_REGIONS,
)
from mohe_assets.defs.runtime.reconciliation import reconcile
from mohe_assets.defs.runtime.region_refresh import refresh, sync_partition_keys
from mohe_assets.defs.runtime.retention import prune, pruned_sentence
from mohe_assets.defs.runtime.runs import SENSOR_TRIGGER, TRIGGER_TAG, name_run
from mohe_assets.errors import ApiError, RegionListRefused
from mohe_assets.ops.status_text import what_is_missing


def build_asset_jobs(key_prefix: Sequence[str] = ()) -> list[AssetJob]:
    """Return the jobs that materialize assets, whose keys have this prefix.

    They leave out the checks, which cover the whole country and run on request only.
    """

    def job(name: str, *assets: dg.AssetKey, description: str) -> AssetJob:
        keys = [asset.with_prefix(key_prefix) for asset in assets]
        return dg.define_asset_job(
            name,
            selection=dg.AssetSelection.assets(*keys).without_checks(),
            description=description,
            executor_def=dg.in_process_executor,
        )

    return [
        job(
            REFRESH_REGIONS,
            SIGUNGU_REGIONS,
            description="Downloads the government's region list and applies it.",
        ),
        job(INGEST_PLACES, PLACES, description="Collects the places of the chosen regions."),
        job(
            PUBLISH_CATALOG,
            PLACE_CATALOG,
            COLLECTION_REPORT,
            description=(
                "Writes the collection report, and the nationwide files if the places have changed."
            ),
        ),
    ]


@dg.op(out=dg.Out(dg.Nothing))
def make_completed_pending(context: dg.OpExecutionContext, mohe: MoheResource) -> None:
    """Set COMPLETED regions to PENDING for a new round of searches.

    Places, ledger and the rows of earlier runs stay.
    """
    with mohe.open() as app:
        codes = app.checkpoints.new_round()
    context.log.info(f"{len(codes)} regions start a new round.")


@dg.job(
    description=(
        "Starts a new round: every completed region becomes PENDING, and the sensor or a batch "
        "collects it again."
    ),
    executor_def=dg.in_process_executor,
)
def new_round() -> None:
    """Keep places, ledger rows of earlier rounds, and `batch_execution_metadata`."""
    make_completed_pending()


@dg.op(out=dg.Out(dg.Nothing))
def delete_what_is_old(context: dg.OpExecutionContext, mohe: MoheResource) -> None:
    """Delete old searches and runs, as `mohe prune` does, and measure the databases."""
    with mohe.open() as app:
        context.log.info(pruned_sentence(prune(context.instance, app)))


@dg.job(
    description=(
        "Deletes searches of old rounds (MOHE_KEEP_LEDGER_DAYS) and old runs of Dagster with their "
        "events (MOHE_KEEP_RUN_DAYS) that no page shows any more, and records the sizes of the "
        "databases."
    ),
    executor_def=dg.in_process_executor,
)
def maintenance() -> None:
    """Launched daily by its schedule; `mohe prune` does the same."""
    delete_what_is_old()


def _refresh_if_due(context: dg.OpExecutionContext, app: App) -> None:
    """Refresh the regions if there are none, or if the list is old.

    If there is a list, a failed refresh does not stop the batch.
    """
    if app.refresh_is_due() and app.list_is_missing():
        sync = refresh(context.instance, app)
        if sync.warning:
            context.log.warning(sync.warning)
        context.log.info(
            f"{len(sync.listed.leaves)} regions as of {sync.listed.as_of} from {sync.listed.source}"
        )
        return
    try:
        if app.refresh_is_due():
            app.refresh_regions()
    except ApiError as error:
        context.log.warning(
            f"The region list could not be refreshed: {error} The previous list stays."
        )
    except RegionListRefused as refused:
        context.log.warning(f"{refused} The batch collects with the previous list.")
    sync_partition_keys(context.instance, app)


@dg.op(out=dg.Out(dg.Nothing))
def collect_due_regions(context: dg.OpExecutionContext, mohe: MoheResource) -> None:
    """Refresh the regions if due; collect until no region is due or the quota is used up."""
    with cancelled_by_signals(context), mohe.open() as app:
        name_run(context.instance, context.run, app.settings.checkpoint_batch_name, ())
        app.settings.require_collection_keys()

        def prepare() -> int:
            _refresh_if_due(context, app)
            app.prepare_batch()
            if app.settings.batch_auto_initialization:
                # No region is collected any more, so no partition may be shown as materialized.
                context.instance.wipe_assets([PLACES])
            # Repairs partitions that earlier runs left in a wrong state, if no sensor did.
            reconcile(context.instance, app)
            return app.checkpoints.due()

        totals = collect(context, app, ClaimFilter(probe_now=True), prepare=prepare)
        reconcile(context.instance, app)
        if not totals.completed:
            missing = what_is_missing(app.checkpoints.progress(), app.api_state())
            context.log.warning(f"No region was collected. {missing}")
    context.log.info(
        f"{totals.completed} regions completed with {totals.places} places and "
        f"{totals.calls} calls, {totals.released} released"
    )


@dg.job(
    name=PLACE_INGESTION_BATCH,
    description=(
        "The whole collection in one process: refreshes the regions if due, then collects due "
        "regions until none is left."
    ),
    executor_def=dg.in_process_executor,
)
def place_ingestion_batch() -> None:
    """For `dagster job execute`. Every run continues where the previous run stopped."""
    collect_due_regions()


@dg.op(out=dg.Out(dg.Nothing))
def refine_completed_regions(context: dg.OpExecutionContext, mohe: MoheResource) -> None:
    """Refine completed regions, those with the highest expected gain first.

    Ends when the day's quota is used up or no region has an expected gain.
    """
    with cancelled_by_signals(context), mohe.open() as app:
        force_retry = context.run.tags.get(TRIGGER_TAG) != SENSOR_TRIGGER
        claim_filter = ClaimFilter(refine=True, probe_now=force_retry)
        totals = collect(context, app, claim_filter, prepare=lambda: 0)
    context.log.info(f"{totals.refined} parts of refinements done")


@dg.job(
    name=REFINE_PLACES,
    description=(
        "Refines completed regions, highest expected gain first: full searches in the other sort "
        "order, then by dong. Ends when the day's quota is used up, a region waits for its base "
        "plan, or no region has an expected gain."
    ),
    executor_def=dg.in_process_executor,
)
def refine_places() -> None:
    """Launched by the sensor when all regions have their base plan, or by `dagster job execute`."""
    refine_completed_regions()
