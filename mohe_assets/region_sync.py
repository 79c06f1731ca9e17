"""The first use case: take the government's region list over. Knows neither HTTP nor SQL nor
Dagster.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from mohe_assets.domain.regions import (
    REGION_TYPE_SIGUNGU,
    RegionChanges,
    RegionList,
    bundled_snapshot,
    compare,
)
from mohe_assets.domain.succession import DongSet, Succession, infer, renamed
from mohe_assets.errors import ApiBlocked, ApiError
from mohe_assets.store.checkpoints import Checkpoints
from mohe_assets.store.region_lifecycle import Lifecycle, Reassigned, seed_successions
from mohe_assets.store.regions import Regions

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A list as downloaded, and the calls it took."""

    listed: RegionList
    calls: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionSync:
    """What a refresh did. `seeded` checkpoints are new; `warning` says why the API's own list was
    not taken, or is None.

    `evicted` leases were held by runs on regions that are no more.
    """

    listed: RegionList
    calls: int
    changes: RegionChanges
    seeded: int
    warning: str | None
    successions: tuple[Succession, ...]
    reassigned: Reassigned
    revoked: int


def sync_regions(
    *,
    download: Callable[[], Download],
    regions: Regions,
    checkpoints: Checkpoints,
    accept_any_change: bool = False,
) -> RegionSync:
    """Downloads the list, takes it over in one transaction with what follows for places and
    checkpoints.

    When the API is down and no list is known yet, the bundled snapshot is taken, and `warning` says
    so; with a list known, that one stays and the error is raised. Raises ApiBlocked for a wrong key
    (a snapshot would hide it), and RegionListRefused for a change that is not to be believed.
    """
    downloaded, warning = _download(download, regions)
    listed = downloaded.listed

    def take_over(connection: Connection) -> RegionSync:
        lifecycle = Lifecycle(database=regions.database, region_type=regions.region_type)
        lifecycle.lock(connection)
        before = lifecycle.leaves(connection)
        names = {leaf.region_code: leaf.region_name for leaf in before}
        dongs = [name for leaf in before for name in leaf.dongs]
        changes = compare(names, listed, known_dongs=dongs, accept_any_change=accept_any_change)
        regions.replace(connection, listed, changes, calls=downloaded.calls, note=warning)
        successions = _successions(before, lifecycle.leaves(connection), changes)
        lifecycle.record(connection, successions, as_of=listed.as_of)
        seed_successions(connection, regions.region_type)
        reassigned = lifecycle.reassign_regions(connection)
        revoked = lifecycle.revoke(connection)
        seeded = checkpoints.seed(connection)
        return RegionSync(
            listed=listed, calls=downloaded.calls, changes=changes, seeded=seeded, warning=warning, successions=successions,
            reassigned=reassigned, revoked=revoked,
        )  # fmt: skip

    sync = regions.database.transaction(take_over, unlimited=True)
    if sync.seeded:
        regions.gather_statistics()
    return sync


def _download(download: Callable[[], Download], regions: Regions) -> tuple[Download, str | None]:
    try:
        return download(), None
    except ApiError as error:
        if (
            isinstance(error, ApiBlocked)
            or regions.region_type != REGION_TYPE_SIGUNGU
            or regions.leaf_names()
        ):
            raise
        downloaded = Download(listed=bundled_snapshot(), calls=error.calls)
        warning = f"{error} The bundled list of {downloaded.listed.as_of} is used until a refresh succeeds."
        log.warning("region list: %s", warning)
        return downloaded, warning


def _successions(
    before: Sequence[DongSet], after: Sequence[DongSet], changes: RegionChanges
) -> tuple[Succession, ...]:
    """What became of the abolished regions, and of the names that changed."""
    gone, new = set(changes.abolished), set(changes.added)
    inferred = infer(
        [leaf for leaf in before if leaf.region_code in gone],
        [leaf for leaf in after if leaf.region_code in new],
        (name for leaf in after for name in leaf.dongs),
    )
    old_names, new_names = (
        {leaf.region_code: leaf.region_name for leaf in leaves} for leaves in (before, after)
    )
    return (*inferred, *renamed(old_names, new_names, changes.renamed))
