"""The refinement of a region: what may be asked, in which order, and that nothing but the ledger is
needed for it.
"""

import zlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mohe_assets.domain.search_plan import Answered, Search
from mohe_assets.sources.naver_local.plan import Sort, Stage, base_plan
from mohe_assets.sources.naver_local.refinement import RegionPlan

REGION = "전라남도 여수시"
DONGS = ("학동", "돌산읍", "돌산읍 군내리", "돌산읍 율림리")
KEYWORDS = ("카페", "음식점")
Counts = Callable[[Search], int]


def answer(
    search: Search,
    count: int = 5,
    *,
    places: Sequence[int] | None = None,
    categories: Sequence[str] = (),
) -> Answered:
    """An answer with its own places by default."""
    own = zlib.crc32(f"{search.query}{search.sort}".encode()) * 10
    return Answered(
        query=search.query,
        sort=search.sort,
        keyword=search.keyword,
        stage=search.stage,
        dong_name=search.dong_name,
        result_count=count,
        place_ids=tuple(range(own, own + count) if places is None else places),
        categories=tuple(categories),
    )


def base(*counts: int, categories: Sequence[str] = ()) -> list[Answered]:
    return [
        answer(search, count, categories=categories)
        for search, count in zip(base_plan(REGION, KEYWORDS), counts, strict=True)
    ]


def plan(
    history: Sequence[Answered], dongs: Sequence[str] = DONGS, keywords: Sequence[str] = KEYWORDS
) -> RegionPlan:
    return RegionPlan(REGION, dongs, keywords, history)


def carried_out(
    made: RegionPlan, count: Counts, *, most: int = 1_000, categories: Sequence[str] = ()
) -> list[Answered]:
    """Follows the plan until it is exhausted."""
    done: list[Answered] = []
    while len(done) < most and (best := made.best()):
        done.append(answer(best[0], count(best[0]), categories=categories))
        made.learn(done[-1])
    return done


def chaotic(seed: int) -> Counts:
    """Any number of results for a search, always the same one."""
    return lambda search: min(5, zlib.crc32(f"{seed}{search.query}".encode()) % 8)


def test_a_region_whose_base_searches_all_came_back_short_has_nothing_to_refine() -> None:
    assert plan(base(4, 0)).best() is None


def test_a_region_without_a_base_plan_has_nothing_to_refine() -> None:
    assert plan(()).best() is None


def test_only_the_keyword_whose_search_was_full_is_refined() -> None:
    done = carried_out(plan(base(5, 4)), lambda _: 5)
    assert {each.keyword for each in done} == {"카페"}
    assert {each.query for each in done if each.stage is Stage.DONG} == {
        f"{REGION} 학동 카페",
        f"{REGION} 돌산읍 카페",
    }


def test_the_second_order_asks_the_same_text() -> None:
    done = carried_out(plan(base(5, 4), dongs=()), lambda _: 5)
    assert [(each.query, each.sort, each.stage) for each in done] == [
        (f"{REGION} 카페", Sort.REVIEWS, Stage.SORT)
    ]


def test_a_dong_that_came_back_short_gets_no_second_order() -> None:
    done = carried_out(plan(base(5, 4)), lambda search: 3 if search.dong_name else 5)
    assert {each.stage for each in done} == {Stage.SORT, Stage.DONG}


def test_an_eup_is_asked_before_its_ris() -> None:
    done = [each.dong_name for each in carried_out(plan(base(5, 4)), lambda _: 5)]
    assert done.index("돌산읍") < min(done.index("돌산읍 군내리"), done.index("돌산읍 율림리"))


def test_the_ris_of_an_eup_that_came_back_short_are_never_asked() -> None:
    done = carried_out(plan(base(5, 4)), lambda search: 2 if search.dong_name == "돌산읍" else 5)
    assert {each.dong_name for each in done} == {None, "학동", "돌산읍"}


def test_ris_are_reached_through_their_eup_even_if_the_list_lacks_it() -> None:
    done = carried_out(plan(base(5, 4), dongs=("돌산읍 군내리",)), lambda _: 5)
    assert [each.dong_name for each in done if each.stage in {Stage.DONG, Stage.RI}] == [
        "돌산읍",
        "돌산읍 군내리",
    ]


def test_a_category_narrows_only_the_keyword_that_showed_it_and_keeps_that_keyword() -> None:
    history = [
        answer(search, categories=["음식점>한식>국밥"] if search.keyword == "음식점" else [])
        for search in base_plan(REGION, KEYWORDS)
    ]
    done = carried_out(plan(history, dongs=()), lambda _: 5)
    assert {each.query for each in done if each.stage is Stage.CATEGORY} == {
        f"{REGION} 음식점 한식",
        f"{REGION} 음식점 국밥",
    }


def test_a_category_that_says_no_more_than_the_keyword_is_not_asked() -> None:
    done = carried_out(
        plan(base(5, 4, categories=["카페,디저트>카페", "카페,디저트>베이커리"]), dongs=()),
        lambda _: 5,
    )
    assert {each.query for each in done if each.stage is Stage.CATEGORY} == {
        f"{REGION} 카페 베이커리"
    }


def test_a_category_exhausted_in_the_region_is_not_asked_in_its_dongs() -> None:
    made = plan(base(5, 4, categories=["국밥"]), dongs=("학동",))
    narrowed = Search(
        query=f"{REGION} 카페 국밥", sort=Sort.ACCURACY, keyword="카페", stage=Stage.CATEGORY
    )
    made.learn(answer(narrowed, 1))
    assert Stage.DONG_CATEGORY not in {each.stage for each in carried_out(made, lambda _: 5)}


def test_a_category_seen_later_is_asked_too() -> None:
    made = plan(base(5, 4), dongs=("학동",))
    done = carried_out(made, lambda _: 5, categories=["국밥"])
    assert {Stage.CATEGORY, Stage.CATEGORY_SORT, Stage.DONG_CATEGORY, Stage.DONG_CATEGORY_SORT} <= {
        each.stage for each in done
    }


def test_new_places_are_those_that_no_earlier_search_of_the_round_had() -> None:
    made = plan(())
    first, second = base_plan(REGION, KEYWORDS)
    assert made.learn(answer(first, places=(1, 2, 3))) == 3
    assert made.learn(answer(second, places=(3, 4))) == 1
    assert made.learn(answer(second, places=(3, 4, 5))) == 0, (
        "an answer the history has says nothing twice"
    )
    assert (made.calls, made.places) == (2, 4)


def test_a_dong_that_pays_is_asked_before_one_that_did_not() -> None:
    keywords = ("카페", "음식점", "공원", "서점")
    history = [answer(search) for search in base_plan(REGION, keywords)]
    for keyword in keywords[:3]:
        for dong, count in (("갑동", 0), ("을동", 5)):
            search = Search(
                query=f"{REGION} {dong} {keyword}",
                sort=Sort.ACCURACY,
                keyword=keyword,
                stage=Stage.DONG,
                dong_name=dong,
            )
            history.append(answer(search, count))
    order = [
        each.query for each in carried_out(plan(history, ("갑동", "을동"), keywords), lambda _: 5)
    ]
    assert order.index(f"{REGION} 을동 서점") < order.index(f"{REGION} 갑동 서점")


def test_a_full_answer_of_known_places_promises_less_than_one_of_new_places() -> None:
    first, second = base_plan(REGION, KEYWORDS)
    new = plan(
        [answer(first, 4, places=(1, 2, 3, 4)), answer(second, places=(5, 6, 7, 8, 9))]
    ).best()
    known = plan(
        [answer(first, 4, places=(1, 2, 3, 4)), answer(second, places=(1, 2, 3, 4, 5))]
    ).best()
    assert new is not None
    assert known is not None
    assert new[1] > known[1]


def test_what_pays_nationwide_is_tried_first_where_nothing_is_known_yet() -> None:
    history = [answer(search) for search in base_plan(REGION, KEYWORDS)]
    for good, poor in (KEYWORDS, KEYWORDS[::-1]):
        tallies: dict[tuple[str, str], tuple[int, int]] = {
            (stage, word): (100, 400 if word == good else 20)
            for stage in Stage
            for word in (good, poor)
        }
        best = RegionPlan(REGION, DONGS, KEYWORDS, history, tallies=tallies).best()
        assert best is not None
        assert best[0].keyword == good


@pytest.mark.parametrize("query", [f"{REGION} 학동 카페", "전남광주통합특별시 여수시 카페", "카페"])
def test_a_search_that_today_would_be_worded_otherwise_counts_its_places_and_refines_nothing(
    query: str,
) -> None:
    made = plan(
        [answer(Search(query=query, sort=Sort.ACCURACY, keyword="카페", stage=Stage.BASE))][:1],
        dongs=(),
    )
    assert (made.places, made.best()) == (5, None)


def test_a_keyword_that_was_dropped_from_the_settings_is_refined_no_more() -> None:
    assert plan(base(5, 5), keywords=("서점",)).best() is None


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_whatever_the_answers_nothing_is_asked_twice_and_nothing_below_a_short_answer(
    seed: int,
) -> None:
    history = base(5, 5, categories=["한식>국밥", "중식"])
    done = carried_out(plan(history), chaotic(seed))
    asked = [(each.query, each.sort) for each in [*history, *done]]
    assert len(asked) == len(set(asked))
    short: list[Answered] = []
    for each in done:
        assert not any(set(before.query.split()) <= set(each.query.split()) for before in short)
        if each.result_count < 5:
            short.append(each)


@given(seed=st.integers(0, 10_000), cut=st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_a_region_rebuilt_from_any_part_of_its_history_goes_on_identically(
    seed: int, cut: int
) -> None:
    history = base(5, 5, categories=["한식>국밥", "중식"])
    done = carried_out(plan(history), chaotic(seed))
    rebuilt = plan([*history, *done[:cut]])
    assert carried_out(rebuilt, chaotic(seed)) == done[cut:]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_what_is_expected_of_a_search_is_never_more_than_it_can_bring(seed: int) -> None:
    made, count = plan(base(5, 5)), chaotic(seed)
    while best := made.best():
        assert 0 < best[1] <= 5
        made.learn(answer(best[0], count(best[0])))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=2),
    st.lists(
        st.sampled_from(["음식점>한식", "음식점>카페,디저트", "여행,명소>공원", "한식"]), max_size=3
    ),
    st.dictionaries(
        st.tuples(st.sampled_from(Stage), st.sampled_from(KEYWORDS)), st.just((40, 30)), max_size=4
    ),
    st.integers(),
)
def test_what_a_region_promises_is_what_its_best_search_does(
    counts: list[int],
    categories: list[str],
    tallies: dict[tuple[str, str], tuple[int, int]],
    seed: int,
) -> None:
    """A plan that is read at the end of a base plan, and throughout a refinement."""
    history = base(*counts, categories=categories)
    while True:
        asked, unasked = (
            RegionPlan(REGION, DONGS, KEYWORDS, history, tallies=tallies) for _ in range(2)
        )
        best = asked.best()
        assert unasked.expected_gain() == asked.expected_gain() == (best[1] if best else 0.0)
        if best is None or len(history) > 25:
            return
        history.append(answer(best[0], chaotic(seed)(best[0]), categories=categories))
