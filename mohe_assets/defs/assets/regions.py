"""The region list as an asset."""

import dagster as dg

from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime import column_schemas as tables
from mohe_assets.defs.runtime.events import region_sync_metadata
from mohe_assets.defs.runtime.names import OWNER
from mohe_assets.defs.runtime.region_refresh import refresh


class RefreshConfig(dg.Config):
    """`accept_any_change` applies a list that was refused because it lacks too many regions."""

    accept_any_change: bool = False


@dg.asset(
    group_name="regions",
    kinds={"postgres", "python"},
    owners=[OWNER],
    tags={"source": "data.go.kr"},
    code_version="1",
    metadata={
        "dagster/column_schema": tables.REGION,
        "dagster/table_name": "region",
        "source": dg.MetadataValue.text(
            "행정안전부_행정표준코드_법정동코드 (StanReginCd) on data.go.kr"
        ),
    },
)
def sigungu_regions(
    context: dg.AssetExecutionContext, config: RefreshConfig, mohe: MoheResource
) -> dg.MaterializeResult[None]:
    """The government's list of legal districts (법정동코드): tables `region` and `legal_dong`, the
    partition set `sigungu`, and a PENDING checkpoint for every new region. The successors of
    abolished regions are inferred into `region_succession`.

    The list is applied completely or not at all. If the API is down, the previous list stays; if
    there is none yet, the bundled list is applied.
    """
    with mohe.open() as app:
        sync = refresh(context.instance, app, accept_any_change=config.accept_any_change)
    if sync.warning:
        context.log.warning(sync.warning)
    return dg.MaterializeResult(metadata=region_sync_metadata(sync))
