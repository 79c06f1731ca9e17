"""Use case: replace the region list by the government's current list. No HTTP, no Dagster."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mohe_assets.domain.regions import (
    REGION_TYPE_SIGUNGU,
    RegionChanges,
    RegionList,
    bundled_snapshot,
    compare,
)
from mohe_assets.domain.succession import DongSet, Succession, disbelief, infer, renamed
from mohe_assets.errors import ApiBlocked, ApiError, RegionListRefused
from mohe_assets.store.checkpoints import Checkpoints
from mohe_assets.store.database import Transaction
from mohe_assets.store.region_lifecycle import Lifecycle, Reassigned, seed_successions
from mohe_assets.store.regions import Regions

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A downloaded list and the number of calls made for it."""

    listed: RegionList
    calls: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionSync:
    """The result of a refresh.

    `seeded` counts new checkpoints, `revoked` the leases of runs on abolished regions. `warning` is
    the reason the API's own list was not used, or None.
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
    """Download the list and store it, with its effects on places and checkpoints, atomically.

    If the API fails and no list is stored yet, the bundled list is used with a `warning`; otherwise
    the stored list stays and the ApiError is raised. Raises ApiBlocked for a wrong key, which a
    bundled list would hide, and RegionListRefused for a list that lacks known regions without
    successors. Such a list is recorded and accepted when it is downloaded again on another day.
    The first list is compared with the bundled list, which is used instead if it is refused.
    """
    try:
        downloaded, api_warning = download(), None
    except ApiError as error:
        is_bundled = regions.region_type == REGION_TYPE_SIGUNGU
        if isinstance(error, ApiBlocked) or not is_bundled or regions.leaf_names():
            raise
        downloaded = Download(listed=bundled_snapshot(), calls=error.calls)
        as_of = downloaded.listed.as_of
        api_warning = f"{error} The bundled list of {as_of} is used until a refresh succeeds."
        log.warning("region list: %s", api_warning)

    def take_over(connection: Transaction) -> RegionSync | RegionListRefused:
        lifecycle = Lifecycle(database=regions.database, region_type=regions.region_type)
        lifecycle.lock(connection)
        before = lifecycle.leaves(connection)
        listed, warning = downloaded.listed, api_warning
        if listed.source == "api":
            refused = None
            if not accept_any_change:
                refused = _refusal(connection, regions, before, listed)
            if refused and (before or regions.region_type != REGION_TYPE_SIGUNGU):
                return refused
            if refused:
                listed = bundled_snapshot()
                warning = f"{refused} The bundled list of {listed.as_of} is used until then."
                log.warning("region list: %s", warning)
            else:
                regions.settle_unconfirmed(connection)
        changes = compare({leaf.region_code: leaf.region_name for leaf in before}, listed)
        regions.replace(connection, listed, changes, calls=downloaded.calls, note=warning)
        successions = _successions(before, lifecycle.leaves(connection), changes)
        lifecycle.record(connection, successions, as_of=listed.as_of)
        seed_successions(connection, regions.region_type)
        reassigned = lifecycle.reassign_regions(connection)
        revoked = lifecycle.revoke(connection)
        seeded = checkpoints.seed(connection)
        return RegionSync(
            listed=listed,
            calls=downloaded.calls,
            changes=changes,
            seeded=seeded,
            warning=warning,
            successions=successions,
            reassigned=reassigned,
            revoked=revoked,
        )

    sync = regions.database.transaction(take_over, unlimited=True)
    if isinstance(sync, RegionListRefused):
        raise sync
    if sync.seeded:
        regions.gather_statistics()
    return sync


def _refusal(
    connection: Transaction, regions: Regions, before: Sequence[DongSet], listed: RegionList
) -> RegionListRefused | None:
    """Compare the list with the known list, by sigungu, and record it if it is not accepted."""
    known, new = before or _dong_sets(bundled_snapshot()), _dong_sets(listed)
    parents = {region.region_code for region in listed.regions if not region.is_leaf}
    if regions.region_type != REGION_TYPE_SIGUNGU:
        known, new = _by_sigungu(known), _by_sigungu(new)
    doubt = disbelief(known, new, parents=parents)
    if doubt is None:
        return None
    unconfirmed = regions.note_unconfirmed(connection, listed, doubt)
    if unconfirmed.believed:
        return None
    return RegionListRefused(f"{doubt.reason} {unconfirmed.advice}")


def _dong_sets(listed: RegionList) -> list[DongSet]:
    dongs: dict[str, set[str]] = {}
    for dong in listed.dongs:
        dongs.setdefault(dong.region_code, set()).add(dong.dong_name)
    return [
        DongSet(
            region_code=leaf.region_code,
            region_name=leaf.region_name,
            sido_name=leaf.sido_name,
            dongs=frozenset(dongs.get(leaf.region_code, ())),
        )
        for leaf in listed.leaves
    ]


def _by_sigungu(leaves: Sequence[DongSet]) -> list[DongSet]:
    """Return the sigungu, with the last words of their leaf dongs' names, of any leaves."""
    grouped: dict[str, DongSet] = {}
    for leaf in leaves:
        heads = {name.split()[0] for name in leaf.dongs if " " in name}  # 돌산읍 of 돌산읍 군내리
        name, names = leaf.region_name, leaf.dongs - heads
        if not names:
            name, dong = name.rsplit(maxsplit=1)
            names = frozenset((dong,))
        code = leaf.region_code[:5]
        words = frozenset(name.split()[-1] for name in names)
        known = grouped.setdefault(code, replace(leaf, region_code=code, region_name=name))
        grouped[code] = replace(known, dongs=words if leaf.dongs else known.dongs | words)
    return list(grouped.values())


def _successions(
    before: Sequence[DongSet], after: Sequence[DongSet], changes: RegionChanges
) -> tuple[Succession, ...]:
    """Return the successions of abolished and of renamed regions."""
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
