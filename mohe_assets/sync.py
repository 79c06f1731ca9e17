"""The first use case: take the government's region list over. Knows neither HTTP nor SQL nor Dagster."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from mohe_assets.errors import ApiBlocked, ApiError
from mohe_assets.regions import REGION_TYPE_SIGUNGU, RegionChanges, RegionList, bundled_snapshot, compare
from mohe_assets.store.checkpoints import Checkpoints
from mohe_assets.store.regions import Regions

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A list as downloaded, and the calls it took."""

    listed: RegionList
    calls: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionSync:
    """What a refresh did. `seeded` checkpoints are new; `warning` says why the API's own list was not taken, or is None."""

    listed: RegionList
    calls: int
    changes: RegionChanges
    seeded: int
    warning: str | None


def sync_regions(
    *,
    download: Callable[[], Download],
    regions: Regions,
    checkpoints: Checkpoints,
    accept_any_change: bool = False,
) -> RegionSync:
    """Downloads the list, takes it over in one transaction, and seeds PENDING checkpoints.

    When the API is down and no list is known yet, the bundled snapshot is taken, and `warning` says so; with a list known,
    that one stays and the error is raised. Raises ApiBlocked for a wrong key (a snapshot would hide it), and
    RegionListRefused for a change that is not to be believed.
    """
    known = regions.leaf_names()
    warning = None
    try:
        downloaded = download()
    except ApiError as error:
        if known or isinstance(error, ApiBlocked) or regions.region_type != REGION_TYPE_SIGUNGU:
            raise
        downloaded = Download(listed=bundled_snapshot(), calls=error.calls)
        warning = f"{error} The bundled list of {downloaded.listed.as_of} is used until a refresh succeeds."
        log.warning("region list: %s", warning)
    listed = downloaded.listed
    changes = compare(known, listed, accept_any_change=accept_any_change)

    def take_over(connection: Connection) -> int:
        regions.replace(connection, listed, changes, calls=downloaded.calls, note=warning)
        return checkpoints.seed(connection)

    seeded = regions.database.transact(take_over)
    return RegionSync(listed=listed, calls=downloaded.calls, changes=changes, seeded=seeded, warning=warning)
