"""Use case: derive places from the ledger's answers again, after a change of parsing or identity.

Makes no calls. No HTTP, no SQL, no Dagster.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mohe_assets.domain.attribution import RegionIndex
from mohe_assets.domain.places import PlaceRecord, RejectedItem
from mohe_assets.store.ledger import attributed
from mohe_assets.store.replay import Reading, Replayed, Replays, StoredAnswer

ParseAnswer = Callable[[dict[str, Any]], tuple[Sequence[PlaceRecord], Sequence[RejectedItem], int]]
"""Returns the places, the rejected items and the number of items of a source's answer."""


def replay(
    replays: Replays, regions: RegionIndex, parse_answer: ParseAnswer, *, dry_run: bool = False
) -> Replayed:
    """Rebuild places, and the values in ledger and checkpoints that depend on them.

    The result equals a collection with the current code and region list. Raises ReplayRefused if a
    run is alive.
    """

    def read(stored: StoredAnswer) -> Reading:
        places, rejected, result_count = parse_answer(stored.answer)
        return Reading(
            places=attributed(places, regions), set_aside=rejected, result_count=result_count
        )

    return replays.rebuild(read, dry_run=dry_run)
