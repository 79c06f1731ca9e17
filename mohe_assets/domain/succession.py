"""Which old region became which new one, inferred from the names of their dongs. Pure: no HTTP, no
SQL.

The list says nothing of it, and codes and names change together. The dongs below keep their names
through almost every reform, so the new region that has an old one's dongs is its successor.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

# 30 of 255 leaves (12 %) changed on 2026-07-01, the largest reform known; twice that is a bad list.
MAX_VANISHED_SHARE = 0.25
# A list was 1.4 % short for a day in 2026-09; reforms move names of dongs and end very few.
MAX_LOST_DONGS_SHARE = 0.01
NAMED_AT_MOST = 5

# Of the old region, or of the new one: all of a small new district may be a sixth of the one it was
# split from.
ENOUGH_OF_OLD = 0.3
ENOUGH_OF_NEW = 0.5
# A province seldom loses a district to another one; when it does, the shared names say so more than
# twice as strongly.
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
    """`new` took `shared_dongs` names over from `old`; the shares are weighed by how rare a name
    is.
    """

    old_code: str
    old_name: str
    new_code: str
    new_name: str
    shared_dongs: int
    share_of_old: float
    share_of_new: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Disbelief:
    """Why a complete list is not believed at first sight, and the `missing` codes nothing explains.

    `needs_decision`: too much is missing to be believed on any day unless a person accepts it.
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
    """None if the new list is believed: known regions are in it or explained by their successors.

    A region that is one of the list's `parents` is explained. Names of dongs are counted as often
    as they are borne, because a reform moves names and does not end them.
    """
    before, after = ({one.region_code: one for one in leaves} for leaves in (known, listed))
    gone = [one for code, one in before.items() if code not in after]
    added = [one for code, one in after.items() if code not in before]
    explained = {one.old_code for one in infer(gone, added, _names(listed))} | set(parents)
    missing = [one for one in gone if one.region_code not in explained]
    # Those of missing regions are missing with them.
    borne = Counter(_names(one for one in known if one not in missing))
    left = Counter(_names(listed))
    lost = (borne - left).total()
    regions = f"{{}} of the {len(before)} regions known{{}} and has {len(after)}"
    dongs = f"{lost} of the {borne.total()} names of dongs known and has {left.total()}"
    at_once = "more than {:.0%} vanishing at once is not believed."
    needs_decision = True
    if len(gone) > MAX_VANISHED_SHARE * len(before):
        lacks, reason = regions.format(len(gone), ""), at_once.format(MAX_VANISHED_SHARE)
    elif lost > MAX_VANISHED_SHARE * borne.total():
        lacks, reason = dongs, at_once.format(MAX_VANISHED_SHARE)
    elif missing:
        needs_decision = False
        lacks = regions.format(len(missing), _some(missing))
        reason = "no new region in it has their dongs."
    elif lost > MAX_LOST_DONGS_SHARE * borne.total():
        needs_decision = False
        lacks, reason = dongs, at_once.format(MAX_LOST_DONGS_SHARE)
    else:
        return None
    return Disbelief(
        missing=tuple(sorted(one.region_code for one in missing)),
        reason=f"The new region list lacks {lacks}; {reason}",
        needs_decision=needs_decision,
    )


def _names(leaves: Iterable[DongSet]) -> Iterator[str]:
    return (name for leaf in leaves for name in leaf.dongs)


def _some(regions: Sequence[DongSet]) -> str:
    """` (11680 서울특별시 강남구, 11710 서울특별시 송파구 and 58 more)`."""
    named = ", ".join(f"{one.region_code} {one.region_name}" for one in regions[:NAMED_AT_MOST])
    more = f" and {len(regions) - NAMED_AT_MOST} more" if len(regions) > NAMED_AT_MOST else ""
    return f" ({named}{more})"


def infer(
    abolished: Iterable[DongSet], added: Sequence[DongSet], everywhere: Iterable[str]
) -> tuple[Succession, ...]:
    """Successions from regions that are gone to those that are new; `everywhere` has each region's
    dong names, repeated.

    A name that twenty districts bear says a twentieth of what a unique one says. Each successor has
    to explain names that a better one did not: so a merger, a split and a plain change of code are
    all found, and namesakes are not.
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
    """Regions that kept their code and changed their name, from code → name before and after."""
    return tuple(
        Succession(
            old_code=code, old_name=old[code], new_code=code, new_name=new[code], shared_dongs=0, share_of_old=1.0,
            share_of_new=1.0,
        )
        for code in codes
    )  # fmt: skip


def _kindred_sidos(
    abolished: Sequence[DongSet], added: Sequence[DongSet], weights: Mapping[str, float]
) -> dict[str, str]:
    """Old sido → the new one that has most of its vanished dongs: neighbours that moved together
    say where to.
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
        sido: max(sorted(new_names), key=lambda one: _weight(names & new_names[one], weights))
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
            old_code=old.region_code, old_name=old.region_name, new_code=best.region_code, new_name=best.region_name,
            shared_dongs=len(shared), share_of_old=_share(shared, old.dongs, weights),
            share_of_new=_share(shared, best.dongs, weights),
        )  # fmt: skip


def _weight(names: AbstractSet[str], weights: Mapping[str, float]) -> float:
    return sum(weights[name] for name in sorted(names))


def _share(names: AbstractSet[str], of: AbstractSet[str], weights: Mapping[str, float]) -> float:
    return min(1.0, _weight(names, weights) / _weight(of, weights)) if of else 0.0
