"""One search is one transaction: its places, its ledger row and its checkpoint, and repeating it changes nothing."""

import datetime as dt
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mohe_assets.places import SetAside, SetAsideReason
from mohe_assets.regions import bundled_snapshot
from mohe_assets.store.database import Database
from mohe_assets.store.ledger import AttributedPlace, ListChanged, StoredSearch
from mohe_assets_tests.integration.stores import ANSWERED, CODES, Store, place, plan_of

ODD = "'따옴표' \"둘\" 100% %s %(x)s \\n \\ ☕🏞 :name ::text {} $1 ; -- 가나다"


def searches(store: Store) -> list[dict[str, Any]]:
    return store.read("SELECT * FROM search_query ORDER BY id")


def places(store: Store) -> dict[str, dict[str, Any]]:
    return {row["naver_place_id"]: row for row in store.read("SELECT * FROM places")}


class TestStoring:
    def test_a_search_keeps_its_answer_its_cost_and_its_places_in_the_answers_order(self, store: Store) -> None:
        answer = {"items": [{"title": "<b>가</b>"}], "total": 1}
        aside = [SetAside(position=1, reason=SetAsideReason.KATECH)]
        store.store(store.claim(), 0, [place("z"), place("a")], answer=answer, calls=2, result_count=3, set_aside=aside)
        (row,) = searches(store)
        ids = {key: known["id"] for key, known in places(store).items()}
        assert row["place_ids"] == [ids["z"], ids["a"]]
        assert (row["status"], row["calls"], row["result_count"], row["new_places"], row["strays"]) == ("DONE", 2, 3, 2, 0)
        assert (row["query"], row["keyword"], row["sort"]) == ("서울특별시 강남구 카페", "카페", "random")
        assert row["set_aside"] == [{"position": 1, "reason": "katech_coordinates"}]
        assert row["answer"] == answer
        assert (row["attempt"], row["run_id"], row["answered_at"]) == (1, "run", ANSWERED)

    def test_an_answer_without_places_is_a_finished_search(self, store: Store) -> None:
        lease = store.claim()
        search = store.store(lease)
        assert store.ledger().done(lease) == (frozenset({search.identity}), 1)
        assert (searches(store)[0]["place_ids"], store.row()["processed_count"]) == ([], 0)

    def test_a_place_is_new_once_and_a_stray_keeps_the_region_of_its_address(self, store: Store) -> None:
        lease = store.claim()
        store.store(lease, 0, [place("a")])
        found = [
            AttributedPlace(place=place("a"), region_code="11680"),
            AttributedPlace(place=place("stray"), region_code="11110"),
            AttributedPlace(place=place("nowhere"), region_code=None),
        ]
        store.store(lease, 1, places=found)
        first, second = searches(store)
        assert (first["new_places"], first["strays"]) == (1, 0)
        assert (second["new_places"], second["strays"]) == (2, 2)
        assert {key: row["region_code"] for key, row in places(store).items()} == {
            "a": "11680", "stray": "11110", "nowhere": None,
        }  # fmt: skip
        assert store.row()["processed_count"] == 3

    def test_a_place_seen_again_takes_what_is_new_and_keeps_what_an_answer_left_out(self, store: Store) -> None:
        lease = store.claim()
        known = place("a", road_address="역삼로 1", phone="02-1", website_url="http://a", category="카페")
        store.store(lease, 0, [known])
        seen_again = place("a", name="새 이름", category="디저트", address="서울특별시 강남구 역삼동 1 2층")
        found = [AttributedPlace(place=seen_again, region_code=None)]
        store.store(lease, 1, places=found, answered_at=ANSWERED + dt.timedelta(days=1))
        row = places(store)["a"]
        assert (row["name"], row["category"], row["address"]) == ("새 이름", "디저트", "서울특별시 강남구 역삼동 1 2층")
        assert (row["road_address"], row["phone"], row["website_url"]) == ("역삼로 1", "02-1", "http://a")
        assert row["region_code"] == "11680"

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_the_newest_answer_wins_in_whatever_order_they_are_stored(self, store: Store, order: tuple[int, ...]) -> None:
        answers = [
            (place("a", name="옛 이름", phone="02-1"), ANSWERED.replace(year=2024)),
            (place("a", name="가", address="옛 주소"), ANSWERED),
            (place("a", name="나", road_address="역삼로 1"), ANSWERED),  # of the same moment: its text sorts after
        ]
        lease = store.claim()
        for number, which in enumerate(order):
            record, moment = answers[which]
            search = replace(plan_of(lease)[0], query=f"query {number}")
            store.store(lease, 0, [record], search=search, answered_at=moment)
        row = places(store)["a"]
        assert (row["name"], row["address"], row["road_address"], row["phone"]) == ("나", place("a").address, "역삼로 1", "02-1")
        assert (row["first_seen_at"], row["last_seen_at"]) == (ANSWERED.replace(year=2024), ANSWERED)

    @pytest.mark.parametrize("field", ["name", "category", "address", "road_address", "phone", "website_url"])
    def test_odd_text_survives_in_every_field(self, store: Store, field: str) -> None:
        store.store(store.claim(), 0, [place("a", **{field: ODD})], answer={ODD: ODD})
        assert places(store)["a"][field] == ODD
        assert searches(store)[0]["answer"] == {ODD: ODD}

    def test_odd_text_survives_in_queries_and_reasons(self, store: Store) -> None:
        lease = store.claim()
        odd = replace(plan_of(lease)[0], query=ODD, keyword=ODD)
        store.ledger().skip(lease, odd, calls=1, reason=ODD)
        (row,) = searches(store)
        assert (row["query"], row["keyword"], row["error_message"]) == (ODD, ODD, ODD)
        assert store.ledger().done(lease)[0] == {(ODD, "random")}


def test_places_that_were_given_their_regions_by_an_older_list_are_not_stored(store: Store) -> None:
    lease = store.claim()
    known = store.read("SELECT max(id) AS version FROM region_refresh")[0]["version"]
    search = plan_of(lease)[0]
    stored = StoredSearch(search=search, answer={}, result_count=0, calls=1, places=(), set_aside=())
    store.take_over(CODES)
    before = store.everything()
    with pytest.raises(ListChanged):
        store.ledger().store(lease, stored, list_version=known)
    assert store.everything() == before
    store.ledger().store(lease, stored, list_version=known + 1)
    assert store.row()["searches_done"] == 1


class TestRepeating:
    def test_storing_again_after_an_unclear_commit_changes_nothing(self, store: Store) -> None:
        lease = store.claim()
        store.store(lease, 0, [place("b"), place("a")], calls=3)
        before = searches(store), set(places(store))
        counters = {name: store.row()[name] for name in ("searches_done", "calls_used", "processed_count", "status")}
        store.store(lease, 0, [place("b"), place("a")], calls=3)
        assert (searches(store), set(places(store))) == before
        assert {name: store.row()[name] for name in counters} == counters

    @pytest.mark.parametrize("how", ["store", "skip", "failed"])
    def test_a_search_that_is_done_is_never_overwritten(self, store: Store, how: str) -> None:
        lease = store.claim()
        search = store.store(lease, 0, [place("a")])
        before = searches(store)
        again: dict[str, Callable[[], object]] = {
            "store": lambda: store.store(lease, 0, [place("b")], answer={"other": 1}, calls=9),
            "skip": lambda: store.ledger().skip(lease, search, calls=9, reason="SE01"),
            "failed": lambda: store.ledger().failed(lease, search, calls=9, reason="HTTP 500"),
        }
        again[how]()
        assert searches(store) == before
        assert (store.row()["calls_used"], store.row()["processed_count"]) == (1, 1)

    def test_a_failed_search_is_done_later_with_all_it_cost(self, store: Store) -> None:
        lease = store.claim()
        search = plan_of(lease)[0]
        store.ledger().failed(lease, search, calls=4, reason="HTTP 500")
        assert store.ledger().done(lease) == (frozenset(), 4)
        assert (store.row()["searches_done"], store.row()["calls_used"]) == (0, 4)
        store.ledger().failed(lease, search, calls=2, reason="HTTP 502")
        store.store(lease, 0, [place("a")])
        (row,) = searches(store)
        assert (row["status"], row["calls"], row["error_message"]) == ("DONE", 7, None)
        assert store.ledger().done(lease) == (frozenset({search.identity}), 7)

    def test_a_new_round_has_searches_of_its_own(self, store: Store) -> None:
        store.complete(store.claim())
        store.checkpoints.new_round()
        lease = store.claim()
        assert store.ledger().done(lease) == (frozenset(), 0)
        store.store(lease, 0)
        assert [row["round"] for row in searches(store)] == [1, 1, 2]


def test_the_counters_are_the_sums_of_the_ledger(store: Store) -> None:
    lease = store.claim()
    store.store(lease, 0, [place("a"), place("b")], calls=2)
    store.ledger().failed(lease, plan_of(lease)[1], calls=4, reason="HTTP 500")
    store.ledger().skip(lease, plan_of(lease)[1], calls=1, reason="SE01")
    sums = """SELECT count(*) FILTER (WHERE status <> 'FAILED') AS searches_done, sum(calls)::int AS calls_used,
                     (SELECT count(DISTINCT p) FROM search_query, unnest(place_ids) p) AS processed_count FROM search_query"""
    expected = store.read(sums)[0]
    assert expected == {"searches_done": 2, "calls_used": 7, "processed_count": 2}
    assert {name: store.row()[name] for name in expected} == expected


def test_many_that_store_the_same_places_in_opposite_orders_do_not_lock_each_other_out(database: Database) -> None:
    codes = [region.region_code for region in bundled_snapshot().leaves[:8]]
    # Without patience, so that a deadlock is an error instead of another try.
    store = Store.of(Database(engine=database.engine, reconnect_seconds=0), codes=codes)
    everybodys = [place(f"{number:02}") for number in range(60)]
    problems: list[BaseException] = []
    start = threading.Barrier(len(codes), timeout=30)

    def work(code: str, order: int) -> None:
        try:
            lease = store.claim(code)
            start.wait()
            for number in (0, 1):
                store.store(lease, number, everybodys[::order])
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            problems.append(error)

    threads = [threading.Thread(target=work, args=(code, 1 if n % 2 else -1)) for n, code in enumerate(codes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(places(store)) == 60
    assert sum(row["new_places"] for row in searches(store)) == 60
