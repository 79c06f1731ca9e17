"""Infer which old region became which new region from the names of their dongs. Pure.

The list does not contain successions, and a reform changes codes and names together. Dongs keep
their names in almost every reform, so a new region with the dongs of an old region succeeds it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

# Share of leaves or dong names that may vanish at once. The largest known reform (2026-07-01)
# changed 30 of 255 leaves (12 %); twice that share means a bad list.
MAX_VANISHED_SHARE = 0.25
# Share of dong names that may vanish. A list was 1.4 % short for a day in 2026-09; reforms move
# dong names and end very few.
MAX_LOST_DONGS_SHARE = 0.01
MAX_NAMED = 5  # missing regions that a message names

# Smallest share of dong names that makes a successor, of the old region or of the new region: a
# small new district may consist of a sixth of the district that it was split from.
ENOUGH_OF_OLD = 0.3
ENOUGH_OF_NEW = 0.5
# Factor for candidates in the same province. Districts seldom change their province; if they do,
# the shared names weigh more than twice as much.
SAME_SIDO = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DongSet:
    """A leaf region and the names of its dongs, eups, myeons and ris."""

    region_code: str
    region_name: str
    sido_name: str
    dongs: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Succession:
    """A new region and the region it succeeds. In the shares (0 to 1) rare names weigh more."""

    old_code: str
    old_name: str
    new_code: str
    new_name: str
    shared_dongs: int
    share_of_old: float
    share_of_new: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Disbelief:
    """The reason a complete list is not accepted at once, and the unexplained `missing` codes.

    `needs_decision`: so much is missing that only a person can accept the list.
    """

    missing: tuple[str, ...]
    reason: str
    needs_decision: bool


def disbelief(
    known: Sequence[DongSet],
    listed: Sequence[DongSet],
    *,
    parents: Collection[str] = (),
) -> Disbelief | None:
    """Return the objection to a new list; None if every known region is in it or has a successor.

    A known region that is now a parent (`parents`) is explained. Dong names are counted with their
    repetitions, because a reform moves names but does not end them.
    """
    before, after = ({leaf.region_code: leaf for leaf in leaves} for leaves in (known, listed))
    gone = [leaf for code, leaf in before.items() if code not in after]
    added = [leaf for code, leaf in after.items() if code not in before]
    explained = {each.old_code for each in infer(gone, added, _names(listed))} | set(parents)
    missing = [leaf for leaf in gone if leaf.region_code not in explained]
    # The dongs of missing regions are missing with them and are not counted again.
    expected = Counter(_names(leaf for leaf in known if leaf not in missing))
    left = Counter(_names(listed))
    lost = (expected - left).total()
    regions = f"{{}} of the {len(before)} regions known{{}} and has {len(after)}"
    dongs = f"{lost} of the {expected.total()} names of dongs known and has {left.total()}"
    at_once = "more than {:.0%} vanishing at once is not believed."
    needs_decision = True
    if len(gone) > MAX_VANISHED_SHARE * len(before):
        lacks, reason = regions.format(len(gone), ""), at_once.format(MAX_VANISHED_SHARE)
    elif lost > MAX_VANISHED_SHARE * expected.total():
        lacks, reason = dongs, at_once.format(MAX_VANISHED_SHARE)
    elif missing:
        needs_decision = False
        # As in: 11680 서울특별시 강남구, 11710 서울특별시 송파구 and 58 more
        shown = ", ".join(f"{leaf.region_code} {leaf.region_name}" for leaf in missing[:MAX_NAMED])
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        lacks = regions.format(len(missing), f" ({shown}{more})")
        reason = "no new region in it has their dongs."
    elif lost > MAX_LOST_DONGS_SHARE * expected.total():
        needs_decision = False
        lacks, reason = dongs, at_once.format(MAX_LOST_DONGS_SHARE)
    else:
        return None
    return Disbelief(
        missing=tuple(sorted(leaf.region_code for leaf in missing)),
        reason=f"The new region list lacks {lacks}; {reason}",
        needs_decision=needs_decision,
    )


def _names(leaves: Iterable[DongSet]) -> Iterator[str]:
    return (name for leaf in leaves for name in leaf.dongs)


def infer(
    abolished: Iterable[DongSet], added: Sequence[DongSet], everywhere: Iterable[str]
) -> tuple[Succession, ...]:
    """Return the successions from abolished to added regions.

    `everywhere` has the dong names of all regions with repetitions: a name that twenty districts
    share weighs a twentieth of a unique name. Each successor must explain names that a better
    successor did not explain, which finds mergers, splits and changed codes, but not namesakes.
    """
    bearers = Counter(everywhere)
    weights = {name: 1 / max(1, bearers[name]) for new in added for name in new.dongs}
    kin = _kindred_sidos(abolished := tuple(abolished), added, weights)
    return tuple(
        each
        for old in abolished
        for each in _successors(old, added, weights, kin.get(old.sido_name))
    )


def renamed(
    old: Mapping[str, str], new: Mapping[str, str], codes: Iterable[str]
) -> tuple[Succession, ...]:
    """Return successions for `codes` whose names differ in `old` and `new` (code → name)."""
    return tuple(
        Succession(
            old_code=code,
            old_name=old[code],
            new_code=code,
            new_name=new[code],
            shared_dongs=0,
            share_of_old=1.0,
            share_of_new=1.0,
        )
        for code in codes
    )


def _kindred_sidos(
    abolished: Sequence[DongSet], added: Sequence[DongSet], weights: Mapping[str, float]
) -> dict[str, str]:
    """Return old sido → the new sido with most of its vanished dongs.

    Districts of a province move together, so this province is preferred for each district.
    """
    old_names: dict[str, set[str]] = {}
    for old in abolished:
        old_names.setdefault(old.sido_name, set()).update(old.dongs)
    new_names: dict[str, set[str]] = {}
    for new in added:
        new_names.setdefault(new.sido_name, set()).update(new.dongs)
    if not new_names:
        return {}
    return {
        sido: max(sorted(new_names), key=lambda new: _weight(names & new_names[new], weights))
        for sido, names in old_names.items()
    }


def _successors(
    old: DongSet, added: Sequence[DongSet], weights: Mapping[str, float], kindred_sido: str | None
) -> Iterable[Succession]:
    weights = {name: weights.get(name, 1.0) for name in old.dongs} | dict(weights)
    unexplained = set(old.dongs)
    candidates = {new.region_code: new for new in added if new.dongs & old.dongs}
    while unexplained and candidates:
        best = max(
            sorted(candidates.values(), key=lambda new: new.region_code),
            key=lambda new: (
                _weight(new.dongs & unexplained, weights)
                * (SAME_SIDO if new.sido_name in {old.sido_name, kindred_sido} else 1.0)
            ),
        )
        del candidates[best.region_code]
        of_old = _share(best.dongs & unexplained, old.dongs, weights)
        of_new = _share(best.dongs & unexplained, best.dongs, weights)
        if of_old < ENOUGH_OF_OLD and of_new < ENOUGH_OF_NEW:
            continue
        shared = best.dongs & old.dongs
        unexplained -= best.dongs
        yield Succession(
            old_code=old.region_code,
            old_name=old.region_name,
            new_code=best.region_code,
            new_name=best.region_name,
            shared_dongs=len(shared),
            share_of_old=_share(shared, old.dongs, weights),
            share_of_new=_share(shared, best.dongs, weights),
        )


def _weight(names: AbstractSet[str], weights: Mapping[str, float]) -> float:
    return sum(weights[name] for name in sorted(names))


def _share(names: AbstractSet[str], of: AbstractSet[str], weights: Mapping[str, float]) -> float:
    return min(1.0, _weight(names, weights) / _weight(of, weights)) if of else 0.0
