"""A search is stored all or nothing, several at once as one by one would be, and repeating it
changes nothing.
"""

import datetime as dt
import itertools
import random
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mohe_assets.domain.places import RejectedItem, RejectionReason
from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.domain.search_plan import Search
from mohe_assets.errors import DatabaseUnavailable, LeaseLost
from mohe_assets.sources.naver_local.plan import Sort, Stage
from mohe_assets.store.checkpoints import Lease
from mohe_assets.store.database import Database
from mohe_assets.store.ledger import (
    AttributedPlace,
    Begun,
    Ledger,
    ListChanged,
    StoredSearch,
    Write,
)
from mohe_assets_tests.support.stores import ANSWERED, CODES, Store, place, plan_of

ODD = "'따옴표' \"둘\" 100% %s %(x)s \\n \\ ☕🏞 :name ::text {} $1 ; -- 가나다"


def searches(store: Store) -> list[dict[str, Any]]:
    return store.read("SELECT * FROM search_query ORDER BY id")


def places(store: Store) -> dict[str, dict[str, Any]]:
    return {row["naver_place_id"]: row for row in store.read("SELECT * FROM places")}


def numbered(number: int) -> Search:
    """One of as many searches as a test wants."""
    stage = Stage.BASE if number % 2 else Stage.DONG
    return Search(
        query=f"query {number}", sort=Sort.ACCURACY, keyword="카페", stage=stage, dong_name=None
    )


def done(
    lease: Lease, number: int, found: Collection[AttributedPlace] = (), **changes: Any
) -> Write:
    list_version = changes.pop("list_version", None)
    stored = StoredSearch(
        search=numbered(number),
        answer={"n": number},
        result_count=len(found),
        calls=1,
        places=tuple(found),
        set_aside=(),
        answered_at=ANSWERED,
    )
    return Write.done(lease, replace(stored, **changes), list_version=list_version)


def here(*keys: str) -> list[AttributedPlace]:
    return [AttributedPlace(place=place(key), region_code="11680") for key in keys]


class TestStoring:
    def test_a_search_keeps_its_answer_its_cost_and_its_places_in_the_answers_order(
        self, store: Store
    ) -> None:
        answer = {"items": [{"title": "<b>가</b>"}], "total": 1}
        aside = [RejectedItem(position=1, reason=RejectionReason.KATECH)]
        store.store(
            store.claim(),
            0,
            [place("z"), place("a")],
            answer=answer,
            calls=2,
            result_count=3,
            set_aside=aside,
        )
        (row,) = searches(store)
        ids = {key: known["id"] for key, known in places(store).items()}
        assert row["place_ids"] == [ids["z"], ids["a"]]
        assert (
            row["status"],
            row["calls"],
            row["result_count"],
            row["new_places"],
            row["strays"],
        ) == ("DONE", 2, 3, 2, 0)
        assert (row["query"], row["keyword"], row["sort"]) == (
            "서울특별시 강남구 카페",
            "카페",
            "random",
        )
        assert row["set_aside"] == [{"position": 1, "reason": "katech_coordinates"}]
        assert row["answer"] == answer
        assert (row["attempt"], row["run_id"], row["answered_at"]) == (1, "run", ANSWERED)

    def test_an_answer_without_places_is_a_finished_search(self, store: Store) -> None:
        lease = store.claim()
        search = store.store(lease)
        assert store.done(lease) == ({search.identity}, 1)
        assert (searches(store)[0]["place_ids"], store.row()["processed_count"]) == ([], 0)

    def test_a_place_is_new_once_and_a_stray_keeps_the_region_of_its_address(
        self, store: Store
    ) -> None:
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

    def test_a_place_seen_again_takes_what_is_new_and_keeps_what_an_answer_left_out(
        self, store: Store
    ) -> None:
        lease = store.claim()
        known = place(
            "a", road_address="역삼로 1", phone="02-1", website_url="http://a", category="카페"
        )
        store.store(lease, 0, [known])
        seen_again = place(
            "a", name="새 이름", category="디저트", address="서울특별시 강남구 역삼동 1 2층"
        )
        found = [AttributedPlace(place=seen_again, region_code=None)]
        store.store(lease, 1, places=found, answered_at=ANSWERED + dt.timedelta(days=1))
        row = places(store)["a"]
        assert (row["name"], row["category"], row["address"]) == (
            "새 이름",
            "디저트",
            "서울특별시 강남구 역삼동 1 2층",
        )
        assert (row["road_address"], row["phone"], row["website_url"]) == (
            "역삼로 1",
            "02-1",
            "http://a",
        )
        assert row["region_code"] == "11680"

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_the_newest_answer_wins_in_whatever_order_they_are_stored(
        self, store: Store, order: tuple[int, ...]
    ) -> None:
        answers = [
            (place("a", name="옛 이름", phone="02-1"), ANSWERED.replace(year=2024)),
            (place("a", name="가", address="옛 주소"), ANSWERED),
            (
                place("a", name="나", road_address="역삼로 1"),
                ANSWERED,
            ),  # of the same moment: its text sorts after
        ]
        lease = store.claim()
        for number, which in enumerate(order):
            record, moment = answers[which]
            search = replace(plan_of(lease)[0], query=f"query {number}")
            store.store(lease, 0, [record], search=search, answered_at=moment)
        row = places(store)["a"]
        assert (row["name"], row["address"], row["road_address"], row["phone"]) == (
            "나",
            place("a").address,
            "역삼로 1",
            "02-1",
        )
        assert (row["first_seen_at"], row["last_seen_at"]) == (
            ANSWERED.replace(year=2024),
            ANSWERED,
        )

    @pytest.mark.parametrize(
        "field", ["name", "category", "address", "road_address", "phone", "website_url"]
    )
    def test_odd_text_survives_in_every_field(self, store: Store, field: str) -> None:
        store.store(store.claim(), 0, [place("a", **{field: ODD})], answer={ODD: ODD})
        assert places(store)["a"][field] == ODD
        assert searches(store)[0]["answer"] == {ODD: ODD}

    def test_odd_text_survives_in_queries_and_reasons(self, store: Store) -> None:
        lease = store.claim()
        odd = replace(plan_of(lease)[0], query=ODD, keyword=ODD)
        store.write(Write.skipped(lease, odd, calls=1, reason=ODD))
        (row,) = searches(store)
        assert (row["query"], row["keyword"], row["error_message"]) == (ODD, ODD, ODD)
        assert store.done(lease)[0] == {(ODD, "random")}


def test_places_that_were_given_their_regions_by_an_older_list_are_not_stored(store: Store) -> None:
    lease = store.claim()
    known = store.read("SELECT max(id) AS version FROM region_refresh")[0]["version"]
    search = plan_of(lease)[0]
    stored = StoredSearch(
        search=search, answer={}, result_count=0, calls=1, places=(), set_aside=()
    )
    store.take_over(CODES)
    before = store.everything()
    with pytest.raises(ListChanged):
        store.write(Write.done(lease, stored, list_version=known))
    assert store.everything() == before
    store.write(Write.done(lease, stored, list_version=known + 1))
    assert store.row()["searches_done"] == 1


class TestRepeating:
    def test_storing_again_after_an_unclear_commit_changes_nothing(self, store: Store) -> None:
        lease = store.claim()
        store.store(lease, 0, [place("b"), place("a")], calls=3)
        before = searches(store), set(places(store))
        counters = {
            name: store.row()[name]
            for name in ("searches_done", "calls_used", "processed_count", "status")
        }
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
            "skip": lambda: store.write(Write.skipped(lease, search, calls=9, reason="SE01")),
            "failed": lambda: store.write(Write.failed(lease, search, calls=9, reason="HTTP 500")),
        }
        again[how]()
        assert searches(store) == before
        assert (store.row()["calls_used"], store.row()["processed_count"]) == (1, 1)

    def test_a_failed_search_is_done_later_with_all_it_cost(self, store: Store) -> None:
        lease = store.claim()
        search = plan_of(lease)[0]
        store.write(Write.failed(lease, search, calls=4, reason="HTTP 500"))
        assert store.done(lease) == (set(), 4)
        assert (store.row()["searches_done"], store.row()["calls_used"]) == (0, 4)
        store.write(Write.failed(lease, search, calls=2, reason="HTTP 502"))
        store.store(lease, 0, [place("a")])
        (row,) = searches(store)
        assert (row["status"], row["calls"], row["error_message"]) == ("DONE", 7, None)
        assert store.done(lease) == ({search.identity}, 7)

    def test_a_new_round_has_searches_of_its_own(self, store: Store) -> None:
        store.complete(store.claim())
        store.checkpoints.new_round()
        lease = store.claim()
        assert store.done(lease) == (set(), 0)
        store.store(lease, 0)
        assert [row["round"] for row in searches(store)] == [1, 1, 2]


def test_the_counters_are_the_sums_of_the_ledger(store: Store) -> None:
    lease = store.claim()
    store.store(lease, 0, [place("a"), place("b")], calls=2)
    store.write(Write.failed(lease, plan_of(lease)[1], calls=4, reason="HTTP 500"))
    store.write(Write.skipped(lease, plan_of(lease)[1], calls=1, reason="SE01"))
    sums = """SELECT count(*) FILTER (WHERE status <> 'FAILED') AS searches_done,
                sum(calls)::int AS calls_used,
                     (SELECT count(DISTINCT p) FROM search_query,
                     unnest(place_ids) p) AS processed_count FROM search_query"""
    expected = store.read(sums)[0]
    assert expected == {"searches_done": 2, "calls_used": 7, "processed_count": 2}
    assert {name: store.row()[name] for name in expected} == expected


def test_many_that_store_the_same_places_in_opposite_orders_do_not_lock_each_other_out(
    database: Database,
) -> None:
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

    threads = [
        threading.Thread(target=work, args=(code, 1 if n % 2 else -1))
        for n, code in enumerate(codes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(places(store)) == 60
    assert sum(row["new_places"] for row in searches(store)) == 60


class TestTogether:
    @pytest.mark.parametrize("seed", range(20))
    def test_searches_stored_together_are_stored_as_one_by_one_in_the_order_of_their_answers(
        self, store: Store, seed: int
    ) -> None:
        chance = random.Random(seed)
        number_of_batches = chance.choice([1, 3])
        leases = [store.claim(code) for code in CODES[:3]]
        batches = [list(_made_up(chance, leases)) for _ in range(number_of_batches)]
        for batch in batches:
            for write in sorted(batch, key=_answered_at):
                store.write(write)
        one_by_one = _kept(store)
        store.checkpoints.reset()
        assert [store.claim(code) for code in CODES[:3]] == leases
        for batch in batches:
            results = store.ledger().write_all(batch)
            assert [_keys(store, result) for result in results] == [
                _answered_keys(write) for write in batch
            ]
        assert _kept(store) == one_by_one
        for batch in batches:  # as after an unclear commit
            store.ledger().write_all([write for write in batch if write.status != "FAILED"])
        again = _kept(store)
        assert again["searches"] == one_by_one["searches"]
        assert again["checkpoints"] == one_by_one["checkpoints"]

    def test_they_are_one_transaction(self, store: Store) -> None:
        lease = store.claim()
        store.ledger().write_all(
            [done(lease, number, here("a", f"{number}")) for number in range(5)]
        )
        (row,) = store.read(
            "SELECT count(DISTINCT xmin::text) AS transactions, count(*) AS searches "
            "FROM search_query"
        )
        assert row == {"transactions": 1, "searches": 5}

    def test_a_place_that_two_of_them_have_is_new_and_novel_once_for_each_region(
        self, store: Store
    ) -> None:
        gangnam, jongno = store.claim("11680"), store.claim("11110")
        later = ANSWERED + dt.timedelta(seconds=1)
        store.ledger().write_all(
            [
                done(gangnam, 1, here("a", "b"), answered_at=later),
                done(gangnam, 2, here("b", "c")),
                done(jongno, 1, here("c")),
            ]
        )
        found = store.read(
            "SELECT region_code, query, novel, new_places FROM search_query "
            "ORDER BY region_code, query"
        )
        assert [tuple(row.values()) for row in found] == [
            ("11110", "query 1", 1, 0), ("11680", "query 1", 1, 1), ("11680", "query 2", 2, 2),
        ]  # fmt: skip
        assert store.row("11680")["processed_count"] == 3

    def test_none_of_a_lost_region_is_written_and_all_of_the_others_are(self, store: Store) -> None:
        stale = store.claim("11680")
        store.checkpoints.release(stale)
        again, other, gone = store.claim("11680"), store.claim("11110"), store.claim("11140")
        store.take_over([code for code in CODES if code != "11140"])
        writes = [
            done(stale, 1, here("stale")),
            done(other, 1, here("a")),
            Write.failed(gone, numbered(1), calls=4, reason="HTTP 500"),
            done(again, 2, here("b")),
            Write.skipped(stale, numbered(3), calls=1, reason="SE01"),
        ]
        results = store.ledger().write_all(writes)
        assert [type(result) for result in results] == [
            LeaseLost,
            tuple,
            LeaseLost,
            tuple,
            LeaseLost,
        ]
        assert "서울특별시 강남구" in str(results[0])
        assert set(places(store)) == {"a", "b"}
        assert [(row["region_code"], row["attempt"]) for row in searches(store)] == [
            ("11110", 1),
            ("11680", 2),
        ]

    def test_a_list_that_changed_keeps_those_without_places_from_nothing(
        self, store: Store
    ) -> None:
        lease = store.claim()
        known = store.read("SELECT max(id) AS version FROM region_refresh")[0]["version"]
        store.take_over(CODES)
        writes = [
            done(lease, 1, here("a"), list_version=known),
            Write.failed(lease, numbered(2), calls=1, reason="HTTP 500"),
            done(lease, 3, list_version=known + 1),
        ]
        results = store.ledger().write_all(writes)
        assert [type(result) for result in results] == [ListChanged, tuple, ListChanged]
        assert [row["query"] for row in searches(store)] == ["query 2"]

    def test_a_lost_lease_and_a_changed_list_at_once(self, store: Store) -> None:
        lease, stale = store.claim("11680"), store.claim("11110")
        store.checkpoints.release(stale)
        writes = [done(lease, 1, list_version=999), done(stale, 1), done(lease, 2)]
        assert [type(result) for result in store.ledger().write_all(writes)] == [
            ListChanged,
            LeaseLost,
            tuple,
        ]

    @pytest.mark.parametrize("poison", ["\x00", "\ud800"])
    def test_an_answer_that_cannot_be_stored_does_not_keep_the_others_from_it(
        self, store: Store, poison: str
    ) -> None:
        lease = store.claim()
        writes = [
            done(lease, 1, here("a")),
            done(lease, 2, answer={"title": poison}),
            done(lease, 3, here("b")),
        ]
        results = store.ledger().write_all(writes)
        assert [isinstance(result, Exception) for result in results] == [False, True, False]
        assert [row["query"] for row in searches(store)] == ["query 1", "query 3"]

    def test_a_search_that_is_there_twice_is_stored_once(self, store: Store) -> None:
        lease = store.claim()
        first, second = store.ledger().write_all(
            [done(lease, 1, here("a")), done(lease, 1, here("a"))]
        )
        assert first == second == tuple(row["id"] for row in places(store).values())
        assert (len(searches(store)), store.row()["calls_used"]) == (1, 1)

    def test_nothing_is_asked_for_nothing(self, store: Store) -> None:
        assert store.ledger().write_all([]) == []
        assert store.ledger().begun([]) == {}

    def test_without_a_database_none_of_them_is_said_to_be_stored(self, store: Store) -> None:
        lease = store.claim()
        nowhere = Database(
            engine=Database.connect("postgresql://nobody@127.0.0.1:1/mohe").engine,
            reconnect_seconds=0,
        )
        ledger = Ledger(
            checkpoints=replace(store.checkpoints, database=nowhere),
            source="naver-local",
            run_id="run",
        )
        with pytest.raises(DatabaseUnavailable):
            ledger.write_all([done(lease, 1), done(lease, 2)])


def _made_up(chance: random.Random, leases: Sequence[Lease]) -> Sequence[Write]:
    """Searches of a few regions with a few common places, in different forms and sometimes at the
    same moment.
    """
    picked = chance.sample(
        [(lease, number) for lease in leases for number in range(12)], chance.randint(2, 30)
    )
    return [_made_up_write(chance, lease, number) for lease, number in picked]


def _made_up_write(chance: random.Random, lease: Lease, number: int) -> Write:
    if chance.random() < 0.2:
        made = chance.choice([Write.failed, Write.skipped])
        return made(lease, numbered(number), calls=chance.randint(1, 4), reason="made up")
    found = [
        AttributedPlace(
            place=place(
                key,
                name=chance.choice("가나"),
                phone=chance.choice(["", "1", "2"]),
                website_url=chance.choice(["", "a"]),
            ),
            region_code=chance.choice([None, "11680", "11110", "99999"]),
        )
        for key in chance.sample("abcdefgh", chance.randint(0, 5))
    ]
    return done(
        lease, number, found, answered_at=ANSWERED + dt.timedelta(seconds=chance.randint(0, 4))
    )


def _answered_at(write: Write) -> dt.datetime:
    return write.stored.answered_at if write.stored else ANSWERED


def _answered_keys(write: Write) -> list[str]:
    return [one.place.place_key for one in write.stored.places] if write.stored else []


def _keys(store: Store, result: object) -> list[str]:
    assert isinstance(result, tuple)
    keys = {row["id"]: key for key, row in places(store).items()}
    return [keys[one] for one in result]


def _kept(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All that is kept, without what numbers rows and when they were written."""
    return {
        "places": store.read("""SELECT to_jsonb(p) - '{id, created_at, updated_at}'::text[] AS place
                                  FROM places p ORDER BY naver_place_id"""),
        "searches": store.read("""
            SELECT to_jsonb(q) - '{id, created_at, place_ids}'::text[] AS search,
                   ARRAY(SELECT p.naver_place_id
                   FROM unnest(q.place_ids) WITH ORDINALITY AS found (id, position)
                           JOIN places p USING (id) ORDER BY position) AS keys
              FROM search_query q ORDER BY region_code, query, sort"""),
        "checkpoints": store.read("""SELECT region_code, status, attempt, searches_done, calls_used,
                                       refinements, processed_count
                                       FROM batch_checkpoint ORDER BY region_code"""),
    }


class TestBeginning:
    def test_the_history_of_several_regions_is_read_at_once(self, store: Store) -> None:
        gangnam, jongno, new = store.claim("11680"), store.claim("11110"), store.claim("11140")
        later = ANSWERED + dt.timedelta(seconds=1)
        found = [
            AttributedPlace(place=place(key, category=f"분류 {key}"), region_code="11680")
            for key in "zab"
        ]
        writes = [
            done(gangnam, 1, found, answered_at=later),
            done(gangnam, 2, found[:1], calls=2),
            Write.skipped(gangnam, numbered(3), calls=1, reason="SE01"),
            Write.failed(gangnam, numbered(4), calls=4, reason="HTTP 500"),
            done(jongno, 1),
        ]
        results = store.ledger().write_all(writes)
        begun = store.ledger().begun([gangnam, jongno, new])
        history, calls, failed = begun["11680"]
        assert [(one.query, one.result_count) for one in history] == [
            ("query 2", 1),
            ("query 1", 3),
            ("query 3", 0),
        ]
        assert [one.place_ids for one in history] == [results[1], results[0], ()]
        assert [one.categories for one in history] == [
            ("분류 z",),
            ("분류 z", "분류 a", "분류 b"),
            (),
        ]
        assert {(one.sort, one.keyword, one.dong_name) for one in history} == {
            (Sort.ACCURACY, "카페", None)
        }
        assert [one.stage for one in history] == [Stage.DONG, Stage.BASE, Stage.BASE]
        assert calls == 8
        assert failed == {numbered(4).identity}
        assert ([one.query for one in begun["11110"].history], begun["11110"].calls) == (
            ["query 1"],
            1,
        )
        assert begun["11140"] == Begun([], 0, set())

    def test_what_another_source_found_is_not_done_but_its_calls_count(self, store: Store) -> None:
        lease = store.claim()
        other = Ledger(checkpoints=store.checkpoints, source="another", run_id="run")
        other.write_all([done(lease, 1, here("a"))])
        assert store.ledger().begun([lease]) == {"11680": Begun([], 1, set())}


def test_two_runs_that_store_the_same_places_for_the_same_regions_in_opposite_orders_never_deadlock(
    database: Database,
) -> None:
    store = Store.of(Database(engine=database.engine, reconnect_seconds=0))
    leases = [store.claim(code) for code in CODES]
    everybodys = here(*(f"{number:02}" for number in range(30)))
    problems: list[BaseException] = []
    start = threading.Barrier(4, timeout=30)

    def attempt(work: Callable[[int, int], object], order: int) -> None:
        try:
            start.wait()
            for turn in range(40):
                work(turn, order)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            problems.append(error)

    def storing(turn: int, order: int) -> None:
        numbers = range(turn * 2, turn * 2 + 2)
        batch = [
            done(lease, number, everybodys[::order])
            for lease in leases[::order]
            for number in numbers
        ]
        problems.extend(
            one for one in store.ledger().write_all(batch[::order]) if isinstance(one, Exception)
        )

    def renewing(_: int, order: int) -> None:
        assert store.checkpoints.renew(leases[::order]) == len(leases)
        store.checkpoints.new_round()  # of none of them: they are held

    work = [(storing, 1), (storing, -1), (renewing, 1), (renewing, -1)]
    threads = [threading.Thread(target=attempt, args=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    database.close()  # so that the server has heard of all that its connections counted
    assert store.read(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ) == [{"deadlocks": 0}]
    assert sum(row["new_places"] for row in searches(store)) == 30
    assert {row["calls_used"] for row in store.read("SELECT calls_used FROM batch_checkpoint")} == {
        80
    }
