"""The jobs: refresh the regions, collect chosen regions, the whole batch in one process, refine,
publish, begin a new round, and delete what is old.
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
    """The jobs that materialize assets, whose keys have this prefix.

    The checks look at the whole country; they are run when asked for, not after every few regions.
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
            description="Downloads the government's region list and takes it over.",
        ),
        job(INGEST_PLACES, PLACES, description="Collects the places of the chosen regions."),
        job(
            PUBLISH_CATALOG,
            PLACE_CATALOG,
            COLLECTION_REPORT,
            description="Writes the nationwide files, if the places have changed, and the collection "
            "report.",
        ),
    ]


@dg.op(out=dg.Out(dg.Nothing))
def make_completed_pending(context: dg.OpExecutionContext, mohe: MoheResource) -> None:
    """COMPLETED → PENDING, with a new round of searches; places, ledger and the record of earlier
    runs stay.
    """
    with mohe.open() as app:
        codes = app.checkpoints.new_round()
    context.log.info(f"{len(codes)} regions begin a new round")


@dg.job(
    description="Starts a new round: every completed region becomes PENDING again, and is collected by the sensor or a batch.",
    executor_def=dg.in_process_executor,
)
def new_round() -> None:
    """History stays: places, ledger rows of earlier rounds, and `batch_execution_metadata`."""
    make_completed_pending()


@dg.op(out=dg.Out(dg.Nothing))
def delete_what_is_old(context: dg.OpExecutionContext, mohe: MoheResource) -> None:
    """Delete old searches and runs, see `mohe prune`, and measure the databases."""
    with mohe.open() as app:
        context.log.info(pruned_sentence(prune(context.instance, app)))


@dg.job(
    description=(
        "Deletes searches of old rounds (MOHE_KEEP_LEDGER_DAYS) and Dagster's old runs with "
        "their events (MOHE_KEEP_RUN_DAYS) that show nothing any more, and "
        "notes how large the databases are."
    ),
    executor_def=dg.in_process_executor,
)
def maintenance() -> None:
    """Launched by its schedule every day; `mohe prune` does the same."""
    delete_what_is_old()


def _refresh_if_due(context: dg.OpExecutionContext, app: App) -> None:
    """Refresh the regions if there are none, or if the list is old.

    A failed refresh of a list we have stops nothing.
    """
    if not app.refresh_is_due():
        sync_partition_keys(context.instance, app)
    elif app.list_is_missing():
        _refresh(context, app)
    else:
        _refresh_or_go_on(context, app)


def _refresh(context: dg.OpExecutionContext, app: App) -> None:
    sync = refresh(context.instance, app)
    if sync.warning:
        context.log.warning(sync.warning)
    context.log.info(
        f"{len(sync.listed.leaves)} regions as of {sync.listed.as_of} from {sync.listed.source}"
    )


def _refresh_or_go_on(context: dg.OpExecutionContext, app: App) -> None:
    try:
        app.refresh_regions()
    except ApiError as error:
        context.log.warning(
            f"The region list could not be refreshed: {error} The list of before stays."
        )
    except RegionListRefused as refused:
        context.log.warning(f"{refused} The batch collects with the list it has.")
    sync_partition_keys(context.instance, app)


@dg.op(out=dg.Out(dg.Nothing))
def collect_due_regions(context: dg.OpExecutionContext, mohe: MoheResource) -> None:
    """Refresh the regions if that is due; collect until nothing is due or the quota ends."""
    with cancelled_by_signals(context), mohe.open() as app:
        name_run(context.instance, context.run, app.settings.checkpoint_batch_name, ())
        app.settings.require_collection_keys()

        def prepare() -> int:
            _refresh_if_due(context, app)
            app.prepare_batch()
            if app.settings.batch_auto_initialization:
                # Nothing is collected any more, so no partition is shown as materialized.
                context.instance.wipe_assets([PLACES])
            # What earlier runs left looking wrong; after the sensor's own looks there is nothing to
            # do.
            reconcile(context.instance, app)
            return app.checkpoints.due()

        totals = collect(context, app, ClaimFilter(probe_now=True), prepare=prepare)
        reconcile(context.instance, app)
        if not totals.completed:
            missing = what_is_missing(app.checkpoints.progress(), app.api_state())
            context.log.warning(f"No region was collected. {missing}")
    context.log.info(
        f"{totals.completed} regions completed with {totals.places} places and {totals.calls} calls, {totals.released} released"
    )


@dg.job(
    name=PLACE_INGESTION_BATCH,
    description="The whole collection in one process: refresh if due, then due regions until none is left.",
    executor_def=dg.in_process_executor,
)
def place_ingestion_batch() -> None:
    """For `dagster job execute`: run it as often as you like, it goes on where it stopped."""
    collect_due_regions()


@dg.op(out=dg.Out(dg.Nothing))
def refine_completed_regions(context: dg.OpExecutionContext, mohe: MoheResource) -> None:
    """Searches completed regions deeper, the most promising first, until the day's calls end or
    none promises more.
    """
    with cancelled_by_signals(context), mohe.open() as app:
        force_retry = context.run.tags.get(TRIGGER_TAG) != SENSOR_TRIGGER
        claim_filter = ClaimFilter(refine=True, probe_now=force_retry)
        totals = collect(context, app, claim_filter, prepare=lambda: 0)
    context.log.info(f"{totals.refined} slices of regions refined")


@dg.job(
    name=REFINE_PLACES,
    description=(
        "Searches completed regions deeper: the other order of full answers, then their dongs, where it pays most. Ends when "
        "the day's calls end, when a region waits for its base plan, or when nothing promises more."
    ),
    executor_def=dg.in_process_executor,
)
def refine_places() -> None:
    """Launched by the sensor when every region has its base plan; for `dagster job execute`, too."""
    refine_completed_regions()
