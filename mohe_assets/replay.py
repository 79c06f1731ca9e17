"""Use case: derive places from the ledger's answers again, after a change of parsing or identity.

Makes no calls. No HTTP, no SQL, no Dagster.
"""

from mohe_assets.domain.attribution import RegionIndex
from mohe_assets.domain.places import parse_items
from mohe_assets.store.ledger import attributed
from mohe_assets.store.replay import Reading, Replayed, Replays, StoredAnswer


def replay(replays: Replays, regions: RegionIndex, *, dry_run: bool = False) -> Replayed:
    """Rebuild places, and the values in ledger and checkpoints that depend on them.

    The result equals a collection with the current code and region list. Raises ReplayRefused if a
    run is alive.
    """

    def read(stored: StoredAnswer) -> Reading:
        items = stored.answer["items"]
        places, rejected = parse_items(items)
        return Reading(
            places=attributed(places, regions), set_aside=rejected, result_count=len(items)
        )

    return replays.rebuild(read, dry_run=dry_run)
