"""The definitions that Dagster loads, in the order of the flow."""

import warnings
from collections.abc import Mapping, Sequence

import dagster as dg

from mohe_assets import settings
from mohe_assets.defs.assets.catalog import collection_report, place_catalog
from mohe_assets.defs.assets.places import build_places
from mohe_assets.defs.assets.regions import sigungu_regions
from mohe_assets.defs.checks import CHECKS
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
    """Return all definitions, with a prefix of the asset keys for another team's code location.

    `executor` materializes assets outside of jobs; with None, the definitions that these are
    merged into decide. `resource_overrides` replaces resources, for tests.
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
        asset_checks=[_of_assets(check, keys) if prefix else check for check in CHECKS],
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
    """Return the check for the asset's replaced key.

    `with_attributes` returns an AssetsDefinition. Dagster converts it the same way, and warns about
    its own parameter.
    """
    replaced = check.with_attributes(asset_key_replacements=keys)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.AssetChecksDefinition(**replaced.get_attributes_dict())


def _regions_per_run() -> int:
    """Return MOHE_REGIONS_PER_RUN, or its default if a setting is invalid.

    Loading must not fail for an invalid setting; the first run reports it.
    """
    try:
        # Dagster has loaded `.env` into the environment.
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
