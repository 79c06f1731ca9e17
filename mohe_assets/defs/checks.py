"""Asset checks: what a person can have compared with one click."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import dagster as dg

from mohe_assets.defs.metadata import PLACES
from mohe_assets.defs.resources import MoheResource
from mohe_assets.store.checkpoints import Status

SHOWN_AT_MOST = 20


@dg.asset_check(
    asset=PLACES,
    description="Every region's checkpoint and its partition in Dagster agree. The sensor repairs lost events once a minute.",
)
def checkpoints_match_partitions(context: dg.AssetCheckExecutionContext, mohe: MoheResource) -> dg.AssetCheckResult:
    """COMPLETED regions are materialized, and a region that was never completed is not."""
    with mohe.open() as platform:
        found = disagreements(platform.checkpoints.statuses(), context.instance.get_materialized_partitions(PLACES))
    shown = sorted(found)[:SHOWN_AT_MOST]
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} regions differ" if found else "all regions agree",
        metadata={"differing": len(found), "regions": dg.MetadataValue.json({key: found[key] for key in shown})},
    )


def disagreements(statuses: Mapping[str, tuple[str, int]], materialized: AbstractSet[str]) -> dict[str, str]:
    """Partition key → what differs, from partition key → (status, round) and the materialized keys.

    From its second round on a region stays materialized whatever its status: it has been collected before.
    """
    found = {}
    for key, (status, round_number) in statuses.items():
        if status == Status.COMPLETED and key not in materialized:
            found[key] = "COMPLETED, but not materialized"
        elif status != Status.COMPLETED and round_number == 1 and key in materialized:
            found[key] = f"{status} and never completed, but materialized"
    for key in materialized - statuses.keys():
        found[key] = "materialized, but no region of this batch"
    return found
