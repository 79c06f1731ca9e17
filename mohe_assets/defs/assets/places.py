"""The places of the regions, as a partitioned asset."""

import warnings
from collections.abc import Iterator

import dagster as dg

from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime import column_schemas as tables
from mohe_assets.defs.runtime.collection import cancelled_by_signals, collect
from mohe_assets.defs.runtime.names import OWNER, SIGUNGU_REGIONS
from mohe_assets.defs.runtime.runs import SENSOR_TRIGGER, TRIGGER_TAG, name_run, requested_at
from mohe_assets.domain.regions import code_of_partition_key


def build_places(*, regions_per_run: int) -> dg.AssetsDefinition:
    """Return the asset; each run of a backfill gets up to `regions_per_run` regions."""
    with warnings.catch_warnings():
        # Backfill policies are beta; the version bounds and tests pin their behaviour.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _places(dg.BackfillPolicy.multi_run(max_partitions_per_run=regions_per_run))


def _places(backfill_policy: dg.BackfillPolicy) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="places",
        kinds={"postgres", "python"},
        owners=[OWNER],
        tags={"source": "naver-local"},
        code_version="1",
        metadata={
            "dagster/column_schema": tables.PLACES,
            "dagster/table_name": "places",
            "terms_of_use": dg.MetadataValue.text(
                "Storing results is restricted by Naver's terms, see README.md."
            ),
        },
        deps=[SIGUNGU_REGIONS],
        partitions_def=sigungu_partitions,
        # A process start takes as long as twenty searches, so a run takes several regions.
        backfill_policy=backfill_policy,
        # No output value: each completed region is logged as its own materialization.
        output_required=False,
    )
    def places(
        context: dg.AssetExecutionContext, mohe: MoheResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        """The places of a region, found by local search: tables `places`, `search_query` (the
        ledger) and `batch_checkpoint`.

        Continues where the region's ledger ends. If a person materializes a completed region, it
        is collected again from the start.
        """
        force_retry = context.run.tags.get(TRIGGER_TAG) != SENSOR_TRIGGER
        with cancelled_by_signals(context), mohe.open() as app:
            name_run(
                context.instance,
                context.run,
                app.settings.checkpoint_batch_name,
                sorted(context.partition_keys),
            )
            # A key outlives its abolished region while runs name it, and the code may have been
            # reactivated under another key.
            living = set(app.regions.partition_keys().values())
            codes = frozenset(
                code_of_partition_key(key) for key in context.partition_keys if key in living
            )
            if dead := sorted(set(context.partition_keys) - living):
                context.log.warning(
                    f"Skipped, abolished since the run was requested: {', '.join(dead)}."
                )
            requested = requested_at(context.instance, context.run) if force_retry else None
            claim_filter = ClaimFilter(
                codes=codes,
                force_retry=force_retry,
                recollect_completed_before=requested,
                probe_now=force_retry,
            )
            totals = collect(context, app, claim_filter, prepare=lambda: len(codes))
        context.log.info(f"{totals}")
        # A generator without a result: Dagster would log a returned None as the materialization of
        # every partition of the run, also of those that the quota did not reach.
        yield from ()

    return places
