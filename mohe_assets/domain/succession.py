"""Which old region became which new one, inferred from the names of their dongs. Pure: no HTTP, no
SQL.

The list says nothing of it, and codes and names change together. The dongs below keep their names
through almost every reform, so the new region that has an old one's dongs is its successor.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

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
