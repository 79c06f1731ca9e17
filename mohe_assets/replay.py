"""The third use case: read the ledger's answers again, after a change of normalisation or identity.
Costs no call.

Knows neither HTTP nor SQL nor Dagster.
"""

from mohe_assets.domain.attribution import RegionIndex
from mohe_assets.domain.places import parse_items
from mohe_assets.store.ledger import attributed
from mohe_assets.store.replay import Reading, Replayed, Replays, StoredAnswer


def replay(replays: Replays, regions: RegionIndex, *, dry_run: bool = False) -> Replayed:
    """Places, and what the ledger and the checkpoints derive of them, as a collection of today
    would have stored them.

    Regions are those of today's list. Raises ReplayRefused beside a live run.
    """

    def read(stored: StoredAnswer) -> Reading:
        items = stored.answer["items"]
        places, set_aside = parse_items(items)
        return Reading(
            places=attributed(places, regions), set_aside=set_aside, result_count=len(items)
        )

    return replays.rebuild(read, dry_run=dry_run)
