"""Reforms of districts during a collection: nothing is lost or doubled, and only new regions are
collected.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, text

from mohe_assets import app as app_module
from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.collection.place_source import PlaceSource
from mohe_assets.collection.region_worker import Outcome
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.domain.regions import bundled_successions, region_points
from mohe_assets.domain.search_plan import Search, SearchResult
from mohe_assets.errors import LeaseLost, RegionListRefused
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import rows
from mohe_assets.store.ledger import Ledger, StoredSearch, Write
from mohe_assets.store.region_lifecycle import seed_successions
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.reforms import BEFORE_FEBRUARY, BEFORE_JULY, NEW_IN_JULY, OLD_OF_JULY

COLLECTED = ["11110", "28110", "28140", "28260", "29110", "46110"]
OpenPlatform = Callable[[list[dict[str, Any]]], App]


@pytest.fixture
def before(
    environment: Environment, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenPlatform]:
    """A platform that knows the list as these edits make it."""
    monkeypatch.setattr(app_module, "REGION_CALLS_PER_SECOND", 10_000.0)
    opened: list[Any] = []

    def build(edits: list[dict[str, Any]]) -> App:
        simulator.configure(region_edits=edits)
        variables = {
            **environment,
            "MOHE_SEARCH_KEYWORDS": "카페,음식점,공원",
            "MOHE_SEARCHES_IN_FLIGHT": "2",
        }
        opened.append(App.open(settings_module.load(variables)))
        app: App = opened[-1].__enter__()
        app.refresh_regions()
        return app

    yield build
    for one in opened:
        one.__exit__(None, None, None)


def read(app: App, sql: str, **values: Any) -> list[dict[str, Any]]:
    return app.database.transaction(lambda connection: rows(connection, sql, **values))


def collect(app: App, codes: list[str] | None, run_id: str) -> dict[str, Outcome]:
    with app.collection(run_id, ClaimFilter(codes=frozenset(codes) if codes else None)) as run:
        return {one.lease.region_code: one.outcome for one in run.outcomes()}


def homes(app: App) -> dict[str, str]:
    """Place → its region."""
    found = read(app, "SELECT naver_place_id AS key, region_code FROM places")
    return {row["key"]: row["region_code"] for row in found}


def astray(app: App) -> list[dict[str, Any]]:
    """Places under no active leaf."""
    sql = """SELECT p.address, p.region_code FROM places p LEFT JOIN region r
                 ON (r.region_type, r.region_code, r.status) = (p.region_type, p.region_code,
                 'ACTIVE') AND r.is_leaf
              WHERE r.region_code IS NULL"""
    return read(app, sql)


def successors(app: App) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    inferred = "SELECT old_code, new_code FROM region_succession WHERE source IS NULL"
    for row in read(app, inferred):
        found.setdefault(row["old_code"], set()).add(row["new_code"])
    return found


class TestJuly:
    def test_the_reform_of_2026_07_01_in_the_middle_of_a_collection(
        self, before: OpenPlatform, simulator: Simulator
    ) -> None:
        app = before(BEFORE_JULY)
        assert len(app.regions.leaf_names()) == 255
        assert set(collect(app, COLLECTED, "old").values()) == {Outcome.COMPLETED}
        history = read(app, "SELECT * FROM search_query ORDER BY id")
        known = homes(app)
        assert {code for code in COLLECTED if code in known.values()} == set(COLLECTED)
        assert astray(app) == []

        simulator.configure(region_edits=[])
        sync = app.refresh_regions()

        assert len(app.regions.leaf_names()) == 256
        assert (set(sync.changes.abolished), set(sync.changes.added)) == (OLD_OF_JULY, NEW_IN_JULY)
        dated = read(
            app,
            "SELECT region_code FROM region WHERE status = 'ABOLISHED' AND abolished_at IS "
            "NOT NULL",
        )
        assert {row["region_code"] for row in dated} == OLD_OF_JULY
        became = successors(app)
        assert became.keys() == OLD_OF_JULY
        assert became["28110"] == {"28125", "28155"}
        assert became["28140"] == {"28125"}
        assert became["28260"] == {"28275", "28290"}
        others = [became[code] for code in OLD_OF_JULY if not code.startswith("28")]
        assert len({next(iter(one)) for one in others}) == sum(len(one) for one in others) == 27
        names = """SELECT old_name, new_name FROM region_succession
                    WHERE (old_code LIKE '29%' OR old_code LIKE '46%') AND source IS NULL"""
        assert all(
            row["old_name"].split()[1] == row["new_name"].split()[1] for row in read(app, names)
        )

        assert astray(app) == []
        moved = homes(app)
        assert moved.keys() == known.keys()
        assert all(moved[key] in became.get(code, {code}) for key, code in known.items())
        assert sync.reassigned.moved == sum(code in OLD_OF_JULY for code in known.values())
        assert read(app, "SELECT * FROM search_query ORDER BY id") == history, (
            "the ledger is history"
        )
        kept = "SELECT DISTINCT status FROM batch_checkpoint WHERE region_code = ANY(:codes)"
        assert read(app, kept, codes=COLLECTED) == [{"status": "COMPLETED"}]
        assert app.checkpoints.claim("x", codes=sorted(OLD_OF_JULY), force_retry=True) == []
        assert app.checkpoints.progress().total == 256
        assert {key.split("_")[0] for key in app.checkpoints.due_keys()} >= NEW_IN_JULY

        new = ["28125", "28155", "28275", "28290", "12210", "12110"]
        assert set(collect(app, new, "new").values()) == {Outcome.COMPLETED}
        assert astray(app) == []
        twice = "SELECT name FROM places GROUP BY name, latitude, longitude HAVING count(*) > 1"
        assert read(app, twice) == []
        again = read(
            app,
            "SELECT count(*) AS n FROM search_query q WHERE run_id = 'new' AND place_ids && ARRAY("
            "SELECT id FROM places WHERE naver_place_id = ANY(:keys))",
            keys=list(known),
        )
        assert again[0]["n"] > 0, (
            "places known under the old codes are met again, and are the same rows"
        )
        by_run = read(app, "SELECT DISTINCT region_code FROM search_query WHERE run_id = 'new'")
        assert {row["region_code"] for row in by_run} == set(new)

    def test_a_run_that_holds_an_abolished_region_loses_it_and_goes_on_with_the_others(
        self, before: OpenPlatform, simulator: Simulator
    ) -> None:
        app = before(BEFORE_JULY)

        class Reform:
            """The real source; the list changes before its first answer in 인천 중구 is stored."""

            def __init__(self, real: PlaceSource) -> None:
                self.real, self.name, self.done = real, real.name, False

            def plan(self, region_name: str) -> list[Search]:
                return list(self.real.plan(region_name))

            def refinement_plan(self, *known: Any) -> Any:
                return self.real.refinement_plan(*known)

            async def perform(self, search: Search) -> SearchResult:
                answer = await self.real.perform(search)
                if "인천광역시 중구" in search.query and not self.done:
                    self.done = True
                    simulator.configure(region_edits=[])
                    refreshed = await asyncio.to_thread(app.refresh_regions)
                    assert refreshed.revoked >= 1
                return answer

        codes = frozenset({"28110", "28200", "28237", "28140"})
        with app.collection("run", ClaimFilter(codes=codes)) as run:
            reformed: Any = Reform(run.work.source)
            alone = dataclasses.replace(
                run.work.limits, in_flight=1
            )  # no other search of it is stored by then
            run.work = dataclasses.replace(run.work, source=reformed, limits=alone)
            outcomes = {one.lease.region_code: one.outcome for one in run.outcomes()}
        assert outcomes["28110"] is Outcome.LOST
        assert (outcomes["28200"], outcomes["28237"]) == (Outcome.COMPLETED, Outcome.COMPLETED)
        assert read(app, "SELECT 1 AS any FROM search_query WHERE region_code = '28110'") == []
        assert astray(app) == []
        gone = read(
            app, "SELECT status, lease_expires_at FROM batch_checkpoint WHERE region_code = '28110'"
        )
        assert gone == [{"status": "PENDING", "lease_expires_at": None}]

    def test_a_claim_that_won_the_race_writes_nothing(
        self, before: OpenPlatform, simulator: Simulator
    ) -> None:
        app = before(BEFORE_JULY)
        (lease,) = app.checkpoints.claim("run", codes=["28110"])
        simulator.configure(region_edits=[])
        app.refresh_regions()
        # As if the claim had been committed right after the refresh.
        held = (
            "UPDATE batch_checkpoint SET status = 'PROCESSING', attempt = 9 "
            "WHERE region_code = '28110'"
        )
        app.database.transaction(lambda connection: connection.execute(text(held)))
        lease = dataclasses.replace(lease, attempt=9)
        with app.collection("run", ClaimFilter(codes=frozenset())) as run:
            (search, *_) = run.work.source.plan(lease.region_name)
        stored = StoredSearch(
            search=search, answer={}, result_count=0, calls=1, places=[], set_aside=[]
        )
        ledger = Ledger(checkpoints=app.checkpoints, source="naver-local", run_id="run")
        (result,) = ledger.write_all([Write.done(lease, stored)])
        assert isinstance(result, LeaseLost)
        assert "abolished" in str(result)
        assert read(app, "SELECT 1 AS any FROM search_query") == []

    def test_a_search_that_is_being_stored_is_waited_for_so_that_its_places_move_too(
        self, before: OpenPlatform, simulator: Simulator
    ) -> None:
        app = before(BEFORE_JULY)
        simulator.configure(region_edits=[])
        place = """INSERT INTO places (name, category, address, latitude, longitude, naver_place_id,
                     region_code)
                   VALUES ('x', 'x', '인천광역시 중구 운서동 1', 37, 126, 'x', '28110')"""
        waiting = (
            "SELECT 1 FROM pg_locks WHERE relation = 'region_refresh'::regclass AND NOT granted"
        )
        with ThreadPoolExecutor(1) as threads, app.database.engine.begin() as storing:
            storing.execute(
                text("LOCK TABLE region_refresh IN ROW EXCLUSIVE MODE")
            )  # as store_search_results does
            storing.execute(text(place))
            refresh = threads.submit(app.refresh_regions)
            while not storing.execute(text(waiting)).all():
                assert not refresh.done()
                time.sleep(0.02)
            storing.commit()
            assert refresh.result().reassigned.moved == 1
        assert homes(app) == {"x": "28155"}


class TestFebruary:
    def test_a_city_that_gets_gu_is_left_to_them_and_its_places_move_by_dong(
        self, before: OpenPlatform, simulator: Simulator
    ) -> None:
        app = before(BEFORE_FEBRUARY)
        assert len(app.regions.leaf_names()) == 253
        assert collect(app, ["41590"], "old") == {"41590": Outcome.COMPLETED}
        assert set(homes(app).values()) >= {"41590"}
        simulator.configure(region_edits=[])
        sync = app.refresh_regions()

        gu = {"41591", "41593", "41595", "41597"}
        assert (sync.changes.abolished, set(sync.changes.added)) == (("41590",), gu)
        city = read(app, "SELECT is_leaf, status FROM region WHERE region_code = '41590'")
        assert city == [{"is_leaf": False, "status": "ACTIVE"}]
        assert successors(app) == {"41590": gu}
        assert app.checkpoints.claim("x", codes=["41590"], force_retry=True) == []
        assert astray(app) == [], "two gu have a 능동: the nearer one has the place"
        assert sync.reassigned.unassigned == 0
        assert gu & set(homes(app).values())
        assert set(collect(app, sorted(gu), "new").values()) == {Outcome.COMPLETED}


class TestTheShippedSuccessions:
    SEEDED = """SELECT old_code, new_code, share_of_old, share_of_new, as_of, source
                  FROM region_succession"""

    def test_a_fresh_installation_reads_names_of_before_reforms(self, before: OpenPlatform) -> None:
        app = before([])
        seeded = read(app, f"{self.SEEDED} WHERE old_code = '28110' ORDER BY new_code")
        assert [row["new_code"] for row in seeded] == ["28125", "28155"]
        assert [round(row["share_of_old"], 2) for row in seeded] == [0.85, 0.15]
        assert [round(row["share_of_new"], 2) for row in seeded] == [0.86, 1.0]
        assert {row["as_of"].isoformat() for row in seeded} == {"2026-07-01"}
        assert all("code.go.kr" in row["source"] for row in seeded)
        index = app.lifecycle.index()
        assert index.region_of("전라남도 담양군 담양읍 1") == "12710"
        assert index.region_of("경상북도 군위군 군위읍 1") == "27720"
        near = region_points()["41117"]
        assert index.region_of("경기도 수원시 효원로 1", point=near) == "41117"

    def test_an_upgrade_adds_them_and_keeps_what_was_inferred(self, before: OpenPlatform) -> None:
        app = before([])

        def as_if_inferred(connection: Connection) -> None:
            others = "DELETE FROM region_succession WHERE old_code <> '28110' OR new_code = '28125'"
            connection.execute(text(others))
            rest = "UPDATE region_succession SET source = NULL, share_of_old = 0.5"
            connection.execute(text(rest))

        app.database.transaction(as_if_inferred)
        kept = read(app, self.SEEDED)
        for _ in range(2):
            app.database.transaction(lambda connection: seed_successions(connection, "sigungu"))
        found = read(app, self.SEEDED)
        assert [row for row in found if row["old_code"] == "28110"] == kept
        assert len(found) == len(bundled_successions()) - 1

    def test_places_are_given_their_region_by_all_three_witnesses_when_they_move(
        self, before: OpenPlatform, simulator: Simulator
    ) -> None:
        app = before(BEFORE_JULY)
        simulator.configure(region_edits=[])
        (north, east), (south, west) = region_points()["28290"], region_points()["28275"]
        place = """INSERT INTO places (name, category, address, road_address, latitude, longitude,
                                       naver_place_id, region_code)
                   VALUES (:key, 'x', :address, :road, :latitude, :longitude, :key, '28260')"""
        stored = [
            ("lot", "인천광역시 서구 청라동 1", "인천광역시 서구 마전동 1", north, east),
            ("road", "인천광역시 가좌", "인천광역시 서구 로봇랜드로 1 (청라동)", north, east),
            ("north", "인천광역시 서구 백범로 1", "", north, east),
            ("south", "인천광역시 서구 백범로 1", "", south, west),
        ]
        columns = ("key", "address", "road", "latitude", "longitude")
        values = [dict(zip(columns, one, strict=True)) for one in stored]
        app.database.transaction(lambda connection: connection.execute(text(place), values))
        assert app.refresh_regions().reassigned.moved == 4
        found = homes(app)
        assert (found["lot"], found["road"]) == ("28275", "28275")
        assert (found["north"], found["south"]) == ("28290", "28275")


class TestTheGuard:
    def test_a_list_that_lacks_a_third_of_the_dongs_is_refused_with_the_numbers(
        self, before: OpenPlatform, simulator: Simulator
    ) -> None:
        app = before([])
        counties = read(
            app,
            """SELECT region_code, region_name FROM region JOIN legal_dong
                 USING (region_type, region_code)
                                      GROUP BY 1, 2 ORDER BY count(*) DESC LIMIT 60""",
        )
        edits: list[dict[str, Any]] = []
        for row in counties:
            code = f"{row['region_code']}00000"
            edits += [
                {"op": "drop", "code": code},
                {"op": "add", "code": code, "name": row["region_name"]},
            ]
        simulator.configure(region_edits=edits)
        with pytest.raises(RegionListRefused, match=r"lacks \d+ of the 20276 names of dongs"):
            app.refresh_regions()
        assert app.refresh_regions(accept_any_change=True).changes.abolished == ()

    def test_a_renamed_province_keeps_its_regions_and_reads_addresses_of_both_names(
        self, before: OpenPlatform, simulator: Simulator
    ) -> None:
        app = before([])
        simulator.configure(
            region_edits=[{"op": "rename", "code": "5200000000", "name": "새전북도"}]
        )
        sync = app.refresh_regions()
        assert sync.changes.abolished == sync.changes.added == ()
        index = app.lifecycle.index()
        for address in (
            "새전북도 남원시 도통동 1",
            "전북특별자치도 남원시 도통동 1",
            "전북 남원시 도통동 1",
        ):
            assert index.region_of(address) == "52190"
