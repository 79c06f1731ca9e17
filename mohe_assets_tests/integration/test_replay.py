"""A replay gives the places of a new collection without a call, or changes nothing."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from mohe_assets.app import App
from mohe_assets.cli import commands
from mohe_assets.domain.attribution import RegionIndex
from mohe_assets.domain.places import clean_title
from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.errors import ReplayRefused
from mohe_assets.settings import process_environment
from mohe_assets.simulator.server import Simulator
from mohe_assets.sources.naver_local import items as items_module
from mohe_assets.sources.naver_local.items import parse_items
from mohe_assets.store import replay as store_replay
from mohe_assets.store.database import Database
from mohe_assets.store.executions import Ending
from mohe_assets.store.ledger import attributed
from mohe_assets.store.replay import Reading, Replays, StoredAnswer
from mohe_assets_tests.support.collections import collect
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.stores import Store

pytestmark = pytest.mark.usefixtures("no_waiting")

THREE = frozenset({"11110", "11680", "36110"})
OF_A_PLACE = """naver_place_id, name, category, address, road_address, latitude, longitude,
                phone, website_url, source,
                region_type, region_code, first_seen_at, last_seen_at"""
LEGACY = """INSERT INTO places (name, category, address, latitude, longitude, naver_place_id)
            VALUES ('옛 가게', '카페', '서울특별시 강남구 역삼동 1', 37.5, 127.0, '1234567')"""
# Queries without times, which differ in a new collection.
TIMELESS = (
    "SELECT naver_place_id, name, category, address, latitude, longitude, region_code FROM places "
    "ORDER BY 1"
)
DERIVED = (
    "SELECT id, place_ids, new_places, strays, set_aside, result_count FROM search_query "
    "ORDER BY id"
)


@pytest.fixture
def store(database: Database) -> Store:
    """All regions without their dongs, which a base plan does not need."""
    return Store.of(database, codes=[region.region_code for region in bundled_snapshot().regions])


def snapshot(store: Store) -> list[dict[str, Any]]:
    return store.read(f"SELECT {OF_A_PLACE} FROM places ORDER BY naver_place_id")


def everything(store: Store) -> list[Any]:
    """All columns of all rows, the times of the last change included."""
    tables = ("places", "search_query", "batch_checkpoint")
    return [store.read(f"SELECT * FROM {table} ORDER BY id") for table in tables]


def shouting(title: str) -> str:
    return original_title(title).upper() + "!"


def by_name_and_a_kilometre(name: str, latitude: Decimal, longitude: Decimal) -> str:
    return f"{name[:1]} {latitude:.2f} {longitude:.2f}"


original_title = clean_title
CHANGES: dict[str, Callable[..., str]] = {
    "clean_title": shouting,
    "place_key": by_name_and_a_kilometre,
}


@pytest.fixture(scope="module")
def template(regions_template: str) -> str:
    return regions_template


@pytest.fixture
def collected(few: App) -> App:
    """Three regions, collected."""
    _, outcomes = collect(few, THREE)
    assert len(outcomes) == 3
    return few


class TestReplaying:
    def test_places_that_were_lost_come_back_as_they_were(
        self, collected: App, store: Store, simulator: Simulator
    ) -> None:
        before, calls = snapshot(store), simulator.stats(brief=True)["naver"]["received"]
        searches = store.read(
            "SELECT id, new_places, strays, set_aside, result_count FROM search_query ORDER BY id"
        )
        store.execute("DELETE FROM places")
        done = collected.replay()
        assert (done.places, done.added, done.removed, done.changed) == (
            len(before),
            len(before),
            0,
            0,
        )
        assert snapshot(store) == before
        assert len(before) > 0
        assert (
            store.read(
                "SELECT id, new_places, strays, set_aside, result_count FROM search_query "
                "ORDER BY id"
            )
            == searches
        )
        dangling = """SELECT count(*) AS n FROM search_query, unnest(place_ids) AS one (id)
                       WHERE NOT EXISTS (SELECT FROM places p WHERE p.id = one.id)"""
        assert store.read(dangling) == [{"n": 0}]
        assert simulator.stats(brief=True)["naver"]["received"] == calls

    def test_a_replay_of_what_is_there_touches_no_row(self, collected: App, store: Store) -> None:
        before = everything(store)
        done = collected.replay()
        assert (done.added, done.removed, done.changed, done.searches) == (0, 0, 0, 6)
        assert everything(store) == before

    @pytest.mark.parametrize("name", CHANGES)
    def test_after_a_change_places_are_those_of_a_fresh_collection(
        self, collected: App, store: Store, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        before = store.read(TIMELESS)
        monkeypatch.setattr(items_module, name, CHANGES[name])
        done = collected.replay()
        replayed, counts = (
            store.read(TIMELESS),
            store.read("SELECT processed_count FROM batch_checkpoint ORDER BY region_code"),
        )
        assert done.added > 0
        assert done.removed > 0
        assert replayed != before
        collected.checkpoints.reset()
        collect(collected, THREE, run_id="fresh")
        assert store.read(TIMELESS) == replayed
        assert (
            store.read("SELECT processed_count FROM batch_checkpoint ORDER BY region_code")
            == counts
        )

    def test_a_place_whose_key_is_unchanged_keeps_its_id(
        self, collected: App, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = store.read("SELECT id, naver_place_id FROM places ORDER BY id")
        monkeypatch.setattr(
            items_module, "clean_address", lambda address: f"어딘가 {address}" if address else ""
        )
        done = collected.replay()
        assert (done.added, done.removed, done.changed) == (0, 0, len(ids))
        assert store.read("SELECT id, naver_place_id FROM places ORDER BY id") == ids
        assert store.read("SELECT DISTINCT region_code FROM places") == [{"region_code": None}]

    def test_ledger_and_checkpoints_are_derived_anew(
        self, collected: App, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = store.read(DERIVED)
        monkeypatch.setattr(items_module, "place_key", by_name_and_a_kilometre)
        collected.replay()
        sums = store.read(
            "SELECT sum(new_places) AS new, (SELECT count(*) FROM places) AS places "
            "FROM search_query"
        )
        assert sums[0]["new"] == sums[0]["places"]
        assert store.read(DERIVED) != before
        collected.replay()
        monkeypatch.undo()
        collected.replay()
        assert [{**row, "place_ids": len(row["place_ids"])} for row in store.read(DERIVED)] == [
            {**row, "place_ids": len(row["place_ids"])} for row in before
        ]

    def test_a_ledger_longer_than_a_page_is_read_to_its_end(
        self, collected: App, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = snapshot(store)
        store.execute("DELETE FROM places")
        store.execute(
            "UPDATE search_query SET answered_at = :moment",
            moment=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        )
        monkeypatch.setattr(store_replay, "SEARCHES_AT_ONCE", 2)
        assert collected.replay().searches == 6
        assert len(snapshot(store)) == len(before)

    def test_a_search_that_is_stored_while_it_reads_is_read_too(
        self, collected: App, store: Store
    ) -> None:
        index = RegionIndex(collected.regions.active())
        late = """INSERT INTO search_query (batch_name, region_type, region_code, round, source,
                    query, sort, keyword, stage,
                                            status, attempt, run_id, calls, answer, answered_at)
                  SELECT batch_name, region_type, region_code, round, source, 'late', sort, keyword,
                  stage,
                         status, attempt, run_id, calls, answer, answered_at - interval '1 hour'
                    FROM search_query ORDER BY id LIMIT 1"""
        seen: list[int] = []

        def read(stored: StoredAnswer) -> Reading:
            if not seen:
                store.execute(late)
            seen.append(stored.id)
            places, set_aside = parse_items(stored.answer["items"])
            return Reading(
                places=attributed(places, index), set_aside=set_aside, result_count=len(places)
            )

        done = Replays(checkpoints=collected.checkpoints, source="naver-local").rebuild(
            read, dry_run=False
        )
        assert (done.searches, done.added, done.removed) == (7, 0, 0)
        first, last = (
            store.read(
                f"SELECT place_ids, new_places FROM search_query ORDER BY id {order} LIMIT 1"
            )[0]
            for order in ("ASC", "DESC")
        )
        assert last["place_ids"] == first["place_ids"]
        assert (first["new_places"], last["new_places"]) == (0, len(last["place_ids"]))


class TestLeavingAlone:
    def test_places_that_no_search_found_stay(
        self, collected: App, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.execute(LEGACY)
        legacy = store.read("SELECT * FROM places WHERE naver_place_id = '1234567'")
        monkeypatch.setattr(items_module, "place_key", by_name_and_a_kilometre)
        collected.replay()
        assert store.read("SELECT * FROM places WHERE naver_place_id = '1234567'") == legacy

    def test_a_dry_run_counts_and_changes_nothing(
        self, collected: App, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(items_module, "place_key", by_name_and_a_kilometre)
        before = everything(store)
        planned = collected.replay(dry_run=True)
        assert everything(store) == before
        assert collected.replay() == planned

    def test_it_refuses_beside_a_run_that_is_alive(self, collected: App, store: Store) -> None:
        collected.executions.start("at-work")
        store.execute("DELETE FROM places")
        with pytest.raises(ReplayRefused, match="Run at-work is collecting"):
            collected.replay()
        with pytest.raises(ReplayRefused):
            collected.replay(dry_run=True)
        assert store.read("SELECT FROM places") == []

    @pytest.mark.parametrize("how", ["silent", "ended"])
    def test_a_run_that_is_dead_or_over_does_not_hinder_it(
        self, collected: App, store: Store, how: str
    ) -> None:
        collected.executions.start("was-at-work")
        if how == "ended":
            collected.executions.finish("was-at-work", Ending.COMPLETED)
        else:
            store.execute(
                "UPDATE batch_execution_metadata SET heartbeat_at = now() - interval '1 hour'"
            )
        assert collected.replay().searches == 6

    def test_one_that_breaks_off_leaves_the_old_places(
        self, collected: App, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = everything(store)
        monkeypatch.setattr(items_module, "place_key", by_name_and_a_kilometre)
        monkeypatch.setattr(store_replay, "MERGE", (*store_replay.MERGE, "SELECT 1 / 0"))
        with pytest.raises(Exception, match="division by zero"):
            collected.replay()
        assert everything(store) == before


def test_the_command_says_what_it_did_and_what_it_would_do(
    collected: App, store: Store, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    del collected
    for name in process_environment():
        if name.startswith(("MOHE_", "NAVER_", "GOVT_", "NCP_", "CHECKPOINT_", "BATCH_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    count = len(snapshot(store))
    store.execute("DELETE FROM places")
    would = CliRunner().invoke(commands, ["replay", "--dry-run"])
    assert (
        f"6 searches read again, {count} places: {count} would be added, 0 would be removed"
        in would.output
    )
    assert store.read("SELECT FROM places") == []
    assert f"{count} added, 0 removed, 0 changed" in CliRunner().invoke(commands, ["replay"]).output
    assert len(snapshot(store)) == count
