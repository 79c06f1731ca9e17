"""Identity over time: one true place is one key for all forms of its address, and no two places
share a key.
"""

from collections import defaultdict

from mohe_assets.simulator.gazetteer import Gazetteer
from mohe_assets.simulator.naver_responses import _item
from mohe_assets.simulator.region_edits import edited
from mohe_assets.simulator.region_list import base_rows
from mohe_assets.simulator.universe import Universe
from mohe_assets.sources.naver_local.items import parse_items

# The busiest district, Sejong without a sigungu, the gu of a city, an island, and one that the
# renaming below concerns.
DISTRICTS = ("11680", "36110", "41111", "47940", "50110", "52111")
ROUNDS = range(6)
RENAMED = ({"op": "recode", "code": "5200000000", "to": "5300000000", "name": "새전북특별자치도"},)


def keys_by_place(seed: int, *, renamed: bool) -> dict[str, set[str]]:
    """True place → the keys it had in six rounds, in which addresses drift, and after a province
    was renamed, if it was.
    """
    universe = Universe(seed)
    keys: dict[str, set[str]] = defaultdict(set)
    for number in ROUNDS:
        gazetteer = Gazetteer(
            edited(base_rows(), RENAMED) if renamed and number > 2 else base_rows()
        )
        for district in DISTRICTS:
            for place in universe.places(district):
                (record,), aside = parse_items(
                    [_item(place, gazetteer, number, ["카페", "역삼동"])]
                )
                assert aside == ()
                keys[place.id].add(record.place_key)
    return keys


def test_a_place_keeps_its_key_while_its_addresses_drift_and_its_province_is_renamed() -> None:
    drifting = [place for place, keys in keys_by_place(1, renamed=True).items() if len(keys) > 1]
    assert drifting == []


def test_no_two_places_share_a_key_not_in_one_building_and_not_as_branches_of_a_chain() -> None:
    for seed in (1, 7):
        owners: dict[str, list[str]] = defaultdict(list)
        for place, keys in keys_by_place(seed, renamed=False).items():
            for key in keys:
                owners[key].append(place)
        assert [places for places in owners.values() if len(places) > 1] == []


def test_the_drift_these_tests_are_about_really_happens() -> None:
    universe, gazetteer = Universe(1), Gazetteer(base_rows())
    shown = [
        [_item(place, gazetteer, number, []) for place in universe.places("11680")]
        for number in (0, 5)
    ]
    changed = sum(old["address"] != new["address"] for old, new in zip(*shown, strict=True))
    moved = sum(old["roadAddress"] != new["roadAddress"] for old, new in zip(*shown, strict=True))
    assert changed > 100
    assert moved > 100
