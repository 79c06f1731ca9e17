"""The base plan, and its remaining searches."""

from mohe_assets.domain.search_plan import remaining
from mohe_assets.sources.naver_local.plan import Sort, Stage, base_plan


def test_the_base_plan_asks_for_the_full_region_name_and_each_keyword_in_order() -> None:
    plan = base_plan("경기도 수원시 장안구", ("카페", "북 카페"))
    assert [search.query for search in plan] == [
        "경기도 수원시 장안구 카페",
        "경기도 수원시 장안구 북 카페",
    ]
    assert [search.keyword for search in plan] == ["카페", "북 카페"]
    assert {(search.sort, search.stage, search.dong_name) for search in plan} == {
        (Sort.ACCURACY, Stage.BASE, None)
    }


def test_the_plan_is_the_same_every_time() -> None:
    assert base_plan("세종특별자치시", ("카페",)) == base_plan("세종특별자치시", ["카페"])


def test_what_is_done_is_not_searched_again_and_the_order_stays() -> None:
    plan = base_plan("세종특별자치시", ("카페", "공원", "서점"))
    assert remaining(plan, {plan[1].identity}) == (plan[0], plan[2])
    assert remaining(plan, {search.identity for search in plan}) == ()


def test_the_other_order_of_the_same_query_is_another_search() -> None:
    plan = base_plan("세종특별자치시", ("카페",))
    assert remaining(plan, {(plan[0].query, Sort.REVIEWS.value)}) == plan


def test_a_search_of_an_earlier_keyword_list_takes_nothing_from_the_plan() -> None:
    plan = base_plan("세종특별자치시", ("카페",))
    assert remaining(plan, {("세종특별자치시 공원", "random")}) == plan
