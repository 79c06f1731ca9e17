"""Refreshing the regions from Dagster: the tables first, then the partition keys that mirror them."""

import dagster as dg

from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.errors import ApiError
from mohe_assets.platform import Platform
from mohe_assets.sync import RegionSync


def refresh(instance: dg.DagsterInstance, platform: Platform, *, accept_any_change: bool = False) -> RegionSync:
    """Takes the list over and mirrors its leaves into the partition set. A failed download ends the run with its reason."""
    try:
        sync = platform.refresh_regions(accept_any_change=accept_any_change)
    except ApiError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    mirror_partitions(instance, platform)
    return sync


def mirror_partitions(instance: dg.DagsterInstance, platform: Platform) -> None:
    """Adds the partition keys Dagster lacks and removes those of abolished regions; in the order of codes."""
    name = str(sigungu_partitions.name)
    wanted = sorted(platform.regions.partition_keys().values())
    known = set(instance.get_dynamic_partitions(name))
    if missing := [key for key in wanted if key not in known]:
        instance.add_dynamic_partitions(name, missing)
    for key in sorted(known - set(wanted)):
        instance.delete_dynamic_partition(name, key)
