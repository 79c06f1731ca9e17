"""What Dagster loads: the table of contents, in the order of the flow."""

import warnings
from collections.abc import Mapping, Sequence

import dagster as dg

from mohe_assets import settings
from mohe_assets.defs.assets.catalog import collection_report, place_catalog
from mohe_assets.defs.assets.places import build_places
from mohe_assets.defs.assets.regions import sigungu_regions
from mohe_assets.defs.checks import QUALITY_CHECKS
from mohe_assets.defs.jobs import (
    build_asset_jobs,
    maintenance,
    new_round,
    place_ingestion_batch,
    refine_places,
)
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.console_logger import use_for_runs
from mohe_assets.defs.schedules import (
    daily_catalog,
    daily_maintenance,
    monthly_new_round,
    weekly_region_refresh,
)
from mohe_assets.defs.sensors import pending_region_sensor, refinement_sensor
from mohe_assets.errors import SettingsError


def build_defs(
    *,
    resource_overrides: dict[str, object] | None = None,
    key_prefix: str | Sequence[str] | None = None,
    executor: dg.ExecutorDefinition | None = dg.in_process_executor,
) -> dg.Definitions:
    """Everything; for another team's code location with a prefix of all asset keys.

    `executor` is for assets that are materialized by themselves, None leaves it to the definitions
    that these are merged into. `resource_overrides` replaces resources, for tests.
    """
    prefix = [key_prefix] if isinstance(key_prefix, str) else list(key_prefix or ())
    assets = [
        sigungu_regions,
        build_places(regions_per_run=_regions_per_run()),
        place_catalog,
        collection_report,
    ]
    keys = {key: key.with_prefix(prefix) for asset in assets for key in asset.keys}
    return dg.Definitions(
        assets=[asset.with_attributes(asset_key_replacements=keys) for asset in assets],
        asset_checks=[_of_assets(check, keys) if prefix else check for check in QUALITY_CHECKS],
        jobs=[
            *build_asset_jobs(prefix),
            place_ingestion_batch,
            refine_places,
            new_round,
            maintenance,
        ],
        sensors=[pending_region_sensor, refinement_sensor],
        schedules=[weekly_region_refresh, daily_catalog, monthly_new_round, daily_maintenance],
        resources={"mohe": MoheResource(key_prefix=prefix), **(resource_overrides or {})},
        executor=executor,
    )


def _of_assets(
    check: dg.AssetChecksDefinition, keys: Mapping[dg.AssetKey, dg.AssetKey]
) -> dg.AssetChecksDefinition:
    """The check of the asset with the replaced key.

    Dagster returns an AssetsDefinition; where it needs a check it converts one as here, and warns
    of a parameter of its own.
    """
    replaced = check.with_attributes(asset_key_replacements=keys)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.AssetChecksDefinition(**replaced.get_attributes_dict())


def _regions_per_run() -> int:
    """MOHE_REGIONS_PER_RUN, which shapes backfills; loading must not fail for a bad setting: the
    first run says it.
    """
    try:
        # Dagster has read `.env` where it is to be read.
        return settings.load(settings.process_environment()).regions_per_run
    except SettingsError:
        return settings.load({}).regions_per_run


@dg.definitions
def defs() -> dg.Definitions:
    """Return everything; called when Dagster loads this module, to serve it or to run a job.

    All processes that execute runs do so, and print in the format of MOHE_LOG_FORMAT from then on.
    Importing this module, as another team's code location does, changes nothing.
    """
    use_for_runs()
    return build_defs()
