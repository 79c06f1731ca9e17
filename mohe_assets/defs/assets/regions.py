"""The region list as an asset."""

import dagster as dg

from mohe_assets.defs.metadata import region_sync_metadata
from mohe_assets.defs.refreshing import refresh
from mohe_assets.defs.resources import MoheResource


class RefreshConfig(dg.Config):
    """`accept_any_change` lets a list through that lacks more regions than is believed unasked."""

    accept_any_change: bool = False


@dg.asset(group_name="regions", kinds={"postgres", "python"})
def sigungu_regions(context: dg.AssetExecutionContext, config: RefreshConfig, mohe: MoheResource) -> dg.MaterializeResult[None]:
    """The government's list of legal districts (법정동코드): tables `region` and `legal_dong`, the partition set `sigungu`,
    and a PENDING checkpoint for every new region.

    The list is taken over whole or not at all. If the API is down, the list of before stays; if there is none yet, the
    bundled one is taken.
    """
    with mohe.open() as platform:
        sync = refresh(context.instance, platform, accept_any_change=config.accept_any_change)
    if sync.warning:
        context.log.warning(sync.warning)
    return dg.MaterializeResult(metadata=region_sync_metadata(sync))
