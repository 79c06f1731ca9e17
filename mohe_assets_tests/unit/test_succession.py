"""Which old region became which new one, inferred from the names of dongs."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mohe_assets.domain.regions import build_region_list, bundled_snapshot
from mohe_assets.domain.succession import DongSet, disbelief, infer, renamed
from mohe_assets.simulator.region_edits import edited
from mohe_assets.simulator.region_list import base_rows
from mohe_assets_tests.support.reforms import BEFORE_FEBRUARY, BEFORE_JULY, OLD_OF_JULY

SNAPSHOT = bundled_snapshot()


def sets(edits: list[dict[str, object]]) -> dict[str, DongSet]:
    """The leaves of the list as the edits make it."""
    rows = ((row.code, row.name) for row in edited(base_rows(), edits))
    listed = build_region_list(rows, as_of=SNAPSHOT.as_of, source="api")
    dongs: dict[str, set[str]] = {}
    for one in listed.dongs:
        dongs.setdefault(one.region_code, set()).add(one.dong_name)
    return {
        leaf.region_code: DongSet(
            region_code=leaf.region_code, region_name=leaf.region_name, sido_name=leaf.sido_name,
            dongs=frozenset(dongs.get(leaf.region_code, ())),
        )
        for leaf in listed.leaves
    }  # fmt: skip


NOW = sets([])


def inferred(before: dict[str, DongSet], after: dict[str, DongSet]) -> dict[str, set[str]]:
    gone = [before[code] for code in sorted(before.keys() - after.keys())]
    new = [after[code] for code in sorted(after.keys() - before.keys())]
    found: dict[str, set[str]] = {}
    for one in infer(gone, new, (name for leaf in after.values() for name in leaf.dongs)):
        found.setdefault(one.old_code, set()).add(one.new_code)
    return found


def a(code: str, *dongs: str, sido: str = "가도") -> DongSet:
    return DongSet(
        region_code=code, region_name=f"{sido} {code}", sido_name=sido, dongs=frozenset(dongs)
    )


def test_the_reform_of_july_is_found_whole_though_provinces_and_codes_changed() -> None:
    found = inferred(before := sets(BEFORE_JULY), NOW)
    assert found.keys() == OLD_OF_JULY
    for old, new in found.items():
        if not old.startswith("28"):
            (code,) = new
            assert before[old].region_name.split()[1] == NOW[code].region_name.split()[1]
    assert found["28110"] == {"28125", "28155"}
    assert found["28140"] == {"28125"}
    assert found["28260"] == {"28275", "28290"}


def test_the_reform_backwards_is_found_as_well() -> None:
    found = inferred(NOW, sets(BEFORE_JULY))
    assert found["28125"] == {"28110", "28140"}
    assert found["28275"] == found["28290"] == {"28260"}


def test_a_city_that_got_gu_is_succeeded_by_them() -> None:
    assert inferred(sets(BEFORE_FEBRUARY), NOW) == {"41590": {"41591", "41593", "41595", "41597"}}


def test_namesakes_are_no_evidence_that_a_rare_name_cannot_outweigh() -> None:
    everywhere = ["중앙동"] * 20 + ["희귀동"]
    old = a("1", "중앙동", "희귀동")
    (found,) = infer([old], [a("2", "중앙동", "딴동"), a("3", "희귀동")], everywhere)
    assert found.new_code == "3"


def test_of_two_equals_the_one_in_the_same_province_is_the_successor() -> None:
    (found,) = infer(
        [a("1", "가동", "나동")],
        [a("2", "가동", "나동", sido="나도"), a("3", "가동", "나동")],
        ["가동", "나동"] * 2,
    )
    assert found.new_code == "3"


def test_without_common_names_nothing_is_inferred() -> None:
    assert infer([a("1", "가동")], [a("2", "나동")], ["나동"]) == ()
    assert infer([a("1")], [a("2")], []) == ()
    assert infer([a("1", "가동")], [], []) == ()


def test_a_region_that_only_changed_its_name_is_its_own_successor() -> None:
    (found,) = renamed({"1": "가도 나시"}, {"1": "가도 다시"}, ["1"])
    assert (found.old_code, found.old_name, found.new_code, found.new_name) == (
        "1",
        "가도 나시",
        "1",
        "가도 다시",
    )


def without(count: int, leaves: dict[str, DongSet] = NOW) -> list[DongSet]:
    """The leaves without the last ones, counties with few dongs."""
    return list(leaves.values())[: len(leaves) - count]


class TestDisbelief:
    def test_the_same_list_and_a_larger_one_are_believed(self) -> None:
        assert disbelief(list(NOW.values()), list(NOW.values())) is None
        assert disbelief([], list(NOW.values())) is None
        assert disbelief(without(3), list(NOW.values())) is None

    def test_every_reform_on_record_is_believed_forwards_and_backwards(self) -> None:
        for edits in (BEFORE_JULY, BEFORE_FEBRUARY):
            before = list(sets(edits).values())
            assert disbelief(before, list(NOW.values())) is None
            assert disbelief(list(NOW.values()), before) is None

    def test_one_region_without_a_successor_is_not_believed_at_first_sight(self) -> None:
        others = [one for code, one in NOW.items() if code != "11680"]
        doubt = disbelief(list(NOW.values()), others)
        assert doubt is not None
        assert (doubt.missing, doubt.needs_decision) == (("11680",), False)
        assert (
            "lacks 1 of the 256 regions known (11680 서울특별시 강남구) and has 255" in doubt.reason
        )

    def test_a_reform_does_not_hide_what_is_missing_beside_it(self) -> None:
        listed = [one for one in NOW.values() if one.region_code not in ("11680", "50130")]
        doubt = disbelief(list(sets(BEFORE_JULY).values()), listed)
        assert doubt is not None
        assert doubt.missing == ("11680", "50130")

    def test_a_region_that_the_list_has_as_a_parent_is_explained(self) -> None:
        listed = [*(one for code, one in NOW.items() if code != "50110"), a("50111")]
        assert disbelief(list(NOW.values()), listed, parents={"50110"}) is None

    def test_a_quarter_may_be_believed_on_another_day_and_one_more_may_not(self) -> None:
        quarter, more = (disbelief(list(NOW.values()), without(count)) for count in (64, 65))
        assert quarter is not None
        assert (len(quarter.missing), quarter.needs_decision) == (64, False)
        assert "and 59 more" in quarter.reason
        assert more is not None
        assert more.needs_decision
        assert "lacks 65 of the 256 regions known and has 191; more than 25%" in more.reason

    def test_one_name_of_a_dong_in_seventy_is_missed(self) -> None:
        def fewer(part: int) -> list[DongSet]:
            kept = {code: sorted(one.dongs) for code, one in NOW.items()}
            for names in kept.values():
                del names[::part]
            return [a(code, *names) for code, names in kept.items()]

        doubt = disbelief(list(NOW.values()), fewer(70))
        assert doubt is not None
        assert (doubt.missing, doubt.needs_decision) == ((), False)
        assert "names of dongs known" in doubt.reason
        third = disbelief(list(NOW.values()), fewer(3))
        assert third is not None
        assert third.needs_decision

    def test_a_few_names_of_dongs_may_end(self) -> None:
        listed = [replace(one, dongs=frozenset(sorted(one.dongs)[:-1])) for one in without(0)[:150]]
        assert disbelief(list(NOW.values()), [*listed, *without(0)[150:]]) is None


@given(st.permutations(sorted(NOW)), st.integers(min_value=1, max_value=20))
def test_any_regions_whose_codes_alone_change_are_found_again(order: list[str], count: int) -> None:
    moved = [NOW[code] for code in order[:count]]
    new = [
        DongSet(
            region_code=f"9{one.region_code}",
            region_name=one.region_name,
            sido_name="새도",
            dongs=one.dongs,
        )
        for one in moved
    ]
    found = infer(moved, new, (name for one in NOW.values() for name in one.dongs))
    assert {(one.old_code, one.new_code) for one in found} == {
        (one.region_code, f"9{one.region_code}") for one in moved
    }
