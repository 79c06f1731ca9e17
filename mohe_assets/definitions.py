"""What Dagster loads: the table of contents, in the order of the flow."""

import dagster as dg

from mohe_assets import settings
from mohe_assets.defs.assets.catalog import collection_report, place_catalog
from mohe_assets.defs.assets.places import build_places
from mohe_assets.defs.assets.regions import sigungu_regions
from mohe_assets.defs.checks import checkpoints_match_partitions
from mohe_assets.defs.jobs import (
    ingest_places,
    maintenance,
    new_round,
    place_ingestion_batch,
    publish_catalog,
    refine_places,
    refresh_regions,
)
from mohe_assets.defs.quality_checks import QUALITY_CHECKS
from mohe_assets.defs.refining import refinement_sensor
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime import console_logger as console
from mohe_assets.defs.schedules import (
    daily_catalog,
    daily_maintenance,
    monthly_new_round,
    weekly_region_refresh,
)
from mohe_assets.defs.sensors import pending_region_sensor
from mohe_assets.errors import SettingsError


def build_defs(*, resource_overrides: dict[str, object] | None = None) -> dg.Definitions:
    """Everything, with resources replaced for tests."""
    return dg.Definitions(
        assets=[
            sigungu_regions,
            build_places(regions_per_run=_regions_per_run()),
            place_catalog,
            collection_report,
        ],
        asset_checks=[checkpoints_match_partitions, *QUALITY_CHECKS],
        jobs=[
            refresh_regions,
            ingest_places,
            place_ingestion_batch,
            refine_places,
            publish_catalog,
            new_round,
            maintenance,
        ],
        sensors=[pending_region_sensor, refinement_sensor],
        schedules=[
            weekly_region_refresh,
            daily_catalog,
            monthly_new_round,
            daily_maintenance,
        ],
        resources={"mohe": MoheResource(), **(resource_overrides or {})},
        executor=dg.in_process_executor,
    )


def _regions_per_run() -> int:
    """MOHE_REGIONS_PER_RUN, which shapes backfills; loading must not fail for a bad setting: the
    first run says it.
    """
    try:
        return settings.load().regions_per_run
    except SettingsError:
        return settings.load({}).regions_per_run


console.use_for_runs()
defs = build_defs()
