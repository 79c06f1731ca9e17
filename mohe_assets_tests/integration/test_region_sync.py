"""Refreshing the regions: the whole list or nothing, and never an emptier country than before."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import make_url, text

from mohe_assets import app as app_module
from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.status import _read
from mohe_assets.clients.http import RetryPolicy
from mohe_assets.clients.region_api import RegionApiClient
from mohe_assets.domain.kst import KST
from mohe_assets.domain.regions import SNAPSHOT_AS_OF, bundled_snapshot
from mohe_assets.errors import ApiBlocked, ApiError, RegionListRefused
from mohe_assets.ops.doctor import Level, examine
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database, rows
from mohe_assets_tests.support.environments import Environment

DOWN = [{"api": "regions", "fault": "status", "status": 503}]


_QUICK = RetryPolicy(first_wait=0.0, max_wait=0.0, jitter=0.0, rate_first_wait=0.0)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many retries as ever, but not seconds apart; as many calls, but not 25 a second."""
    monkeypatch.setattr(app_module, "RegionApiClient", partial(RegionApiClient, retry=_QUICK))
    monkeypatch.setattr(app_module, "REGION_CALLS_PER_SECOND", 10_000.0)


@pytest.fixture(scope="module")
def template(regions_template: str) -> str:
    return regions_template


@pytest.fixture
def empty(app: App) -> App:
    """A platform that knows no region yet."""
    tables = "region, legal_dong, region_refresh, batch_checkpoint, unconfirmed_region_list"
    app.database.transaction(lambda connection: connection.execute(text(f"TRUNCATE {tables}")))
    return app


def read(app: App, sql: str, **values: Any) -> list[dict[str, Any]]:
    return app.database.transaction(lambda connection: rows(connection, sql, **values))


def region(app: App, code: str = "11680") -> dict[str, Any]:
    return read(app, "SELECT * FROM region WHERE region_code = :code", code=code)[0]


def tables(app: App) -> list[Any]:
    """Digests of all that a refresh may change."""
    names = ("region", "legal_dong", "batch_checkpoint", "region_refresh")
    digest = "SELECT md5(string_agg(one::text, '|' ORDER BY one::text)) AS digest FROM {} AS one"
    return [read(app, digest.format(name)) for name in names]


class TestFirstRefresh:
    def test_the_whole_list_is_taken_over_and_every_leaf_is_pending(
        self, empty: App, simulator: Simulator
    ) -> None:
        assert empty.refresh_is_due()
        sync = empty.refresh_regions()

        assert (sync.calls, sync.seeded, sync.warning) == (21, 256, None)
        assert simulator.stats(brief=True)["regions"]["received"] == 21
        assert (len(sync.changes.added), sync.changes.abolished) == (256, ())
        assert {one.region_code: one for one in empty.regions.active()} == {
            one.region_code: one for one in bundled_snapshot().regions
        }
        assert len(empty.regions.leaf_names()) == 256
        assert empty.regions.partition_keys(["11680"]) == {"11680": "11680_서울특별시_강남구"}
        dongs = "SELECT count(*) AS n, count(dong_code) AS coded FROM legal_dong"
        assert read(empty, dongs) == [{"n": 20_276, "coded": 20_276}]
        assert read(empty, "SELECT source, rows_read, calls, added, note FROM region_refresh") == [
            {"source": "api", "rows_read": 20_560, "calls": 21, "added": 256, "note": None}
        ]
        assert empty.checkpoints.progress().pending == 256
        assert not empty.refresh_is_due()
        known = (
            "SELECT reltuples::int AS n FROM pg_class WHERE relname IN ('legal_dong', "
            "'batch_checkpoint') ORDER BY 1"
        )
        assert read(empty, known) == [{"n": 256}, {"n": 20_276}], (
            "the planner knows of them at once"
        )

    def test_the_whole_list_is_taken_over_in_seconds_though_the_planner_believes_the_tables_empty(
        self, empty: App, database_url: str
    ) -> None:
        # PostgreSQL 15 chooses a loop over 20,276 × 20,276 dongs by itself; a newer one only when
        # it is left nothing else.
        slow_plans = "-c enable_hashjoin=off -c enable_mergejoin=off -c statement_timeout=8s"
        url = make_url(database_url).update_query_dict({"options": slow_plans})
        database = Database.connect(url.render_as_string(hide_password=False))
        try:
            assert dataclasses.replace(empty, database=database).refresh_regions().seeded == 256
        finally:
            database.close()

    def test_without_an_api_the_bundled_list_is_not_taken_for_dongs(
        self, environment: Environment, empty: App, simulator: Simulator
    ) -> None:
        simulator.add_faults(DOWN)
        settings = settings_module.load({**environment, "CHECKPOINT_REGION_TYPE": "legal_dong"})
        with pytest.raises(ApiError):
            dataclasses.replace(empty, settings=settings).refresh_regions()
        assert read(empty, "SELECT count(*) AS n FROM region") == [{"n": 0}]

    def test_without_an_api_the_bundled_list_is_taken_with_a_warning_and_the_refresh_stays_due(
        self, empty: App, simulator: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        simulator.add_faults(DOWN)
        sync = empty.refresh_regions()
        assert sync.warning is not None
        assert f"{SNAPSHOT_AS_OF}" in sync.warning
        assert sync.warning in caplog.text
        assert len(empty.regions.leaf_names()) == 256
        (noted,) = read(empty, "SELECT source, as_of, note FROM region_refresh")
        assert noted == {"source": "snapshot", "as_of": SNAPSHOT_AS_OF, "note": sync.warning}
        assert empty.refresh_is_due()

        simulator.clear_faults()
        assert empty.refresh_regions().warning is None
        assert read(
            empty,
            "SELECT count(dong_code) AS coded, count(*) AS n FROM legal_dong "
            "WHERE status = 'ACTIVE'",
        ) == [{"coded": 20_276, "n": 20_276}]
        assert not empty.refresh_is_due()

    def test_a_wrong_key_is_no_reason_for_the_bundled_list(
        self, empty: App, environment: Environment, simulator: Simulator
    ) -> None:
        del empty
        with App.open(
            settings_module.load({**environment, "GOVT_API_KEY": "recognisable-wrong-key"})
        ) as app:
            with pytest.raises(ApiBlocked, match="GOVT_API_KEY") as caught:
                app.refresh_regions()
            assert "recognisable-wrong-key" not in str(caught.value)
            assert read(app, "SELECT 1 AS any FROM region") == []
        assert simulator.stats(brief=True)["regions"]["received"] == 1


class TestLaterRefreshes:
    @pytest.mark.parametrize(
        "changes",
        [{"region_short_by": 7}, {"region_totals_disagree": True}, {"region_duplicates": 3}],
        ids=["short", "totals disagree", "duplicates"],
    )
    def test_a_list_that_is_not_whole_is_an_error_and_the_old_one_stays(
        self, app: App, simulator: Simulator, changes: dict[str, Any]
    ) -> None:
        before = tables(app)
        simulator.configure(**changes)
        with pytest.raises(ApiError):
            app.refresh_regions()
        assert tables(app) == before

    def test_an_api_that_is_down_is_an_error_and_the_old_list_stays(
        self, app: App, simulator: Simulator
    ) -> None:
        before = tables(app)
        simulator.add_faults(DOWN)
        with pytest.raises(ApiError):
            app.refresh_regions()
        assert tables(app) == before

    def test_an_unchanged_list_changes_nothing_but_the_date(self, app: App) -> None:
        _, *before, _ = tables(app)
        sync = app.refresh_regions()
        assert (sync.seeded, sync.changes.added, sync.changes.abolished, sync.changes.renamed) == (
            0,
            (),
            (),
            (),
        )
        _, *after, _ = tables(app)
        assert after == before

    def test_a_region_that_vanished_is_dated_and_kept_and_begins_a_new_life_when_it_comes_back(
        self, app: App, simulator: Simulator
    ) -> None:
        key = region(app)["partition_key"]
        checkpoint = "SELECT id, attempt, status FROM batch_checkpoint WHERE region_code = '11680'"
        before = read(app, checkpoint)
        simulator.configure(region_edits=[{"op": "drop", "code": "1168000000"}])
        assert app.refresh_regions(accept_any_change=True).changes.abolished == ("11680",)

        gone = region(app)
        assert gone["status"] == "ABOLISHED"
        assert isinstance(gone["abolished_at"], dt.datetime)
        assert read(app, "SELECT DISTINCT status FROM legal_dong WHERE region_code = '11680'") == [
            {"status": "ABOLISHED"}
        ]
        assert read(app, checkpoint) == before
        assert app.checkpoints.claim("run", codes=["11680"], force_retry=True) == []
        assert "11680" not in app.regions.partition_keys()
        dated = gone["abolished_at"]
        app.refresh_regions()
        assert region(app)["abolished_at"] == dated, "the date is that of the first list without it"

        simulator.configure(region_edits=[])
        assert app.refresh_regions().changes.added == ("11680",)
        back = region(app)
        assert (back["status"], back["abolished_at"], back["life"]) == ("ACTIVE", None, 2)
        assert back["partition_key"] == f"{key}_2", (
            "Dagster shows a key that comes back as materialized"
        )
        assert read(app, "SELECT DISTINCT status FROM legal_dong WHERE region_code = '11680'") == [
            {"status": "ACTIVE"}
        ]
        assert read(app, checkpoint) == [{**before[0], "attempt": before[0]["attempt"] + 1}]
        (lease,) = app.checkpoints.claim("run", codes=["11680"])
        assert (lease.round, lease.partition_key) == (2, back["partition_key"])

    def test_a_renamed_region_keeps_its_partition_key_and_its_checkpoint_takes_the_name(
        self, app: App, simulator: Simulator
    ) -> None:
        simulator.configure(
            region_edits=[{"op": "rename", "code": "1168000000", "name": "서울특별시 새강남구"}]
        )
        sync = app.refresh_regions()
        assert (sync.changes.renamed, sync.seeded) == (("11680",), 0)
        renamed = region(app)
        assert (renamed["region_name"], renamed["partition_key"]) == (
            "서울특별시 새강남구",
            "11680_서울특별시_강남구",
        )
        assert app.checkpoints.claim("run", codes=["11680"])[0].region_name == "서울특별시 새강남구"

    def test_a_city_that_gets_gu_is_left_for_its_gu(self, app: App, simulator: Simulator) -> None:
        simulator.configure(
            region_edits=[{"op": "add", "code": "5011100000", "name": "제주특별자치도 제주시 동구"}]
        )
        sync = app.refresh_regions()
        assert (sync.changes.added, sync.changes.abolished) == (("50111",), ("50110",))
        assert (region(app, "50110")["is_leaf"], region(app, "50110")["status"]) == (
            False,
            "ACTIVE",
        )
        assert region(app, "50111")["parent_code"] == "50110"
        assert app.checkpoints.claim("run", codes=["50110"]) == []

    def test_a_list_that_lacks_a_third_of_the_country_is_taken_only_if_a_person_says_so(
        self, app: App, simulator: Simulator
    ) -> None:
        before = tables(app)
        simulator.configure(
            region_edits=[{"op": "drop", "code": f"{sido}00000000"} for sido in (11, 41, 47)]
        )
        with pytest.raises(RegionListRefused, match=r"lacks \d+ of the 256 regions known"):
            app.refresh_regions()
        assert tables(app) == before
        pass_a_day(app)
        with pytest.raises(RegionListRefused):
            app.refresh_regions()
        abolished = app.refresh_regions(accept_any_change=True).changes.abolished
        assert len(abolished) > 64
        assert len(app.regions.leaf_names()) == 256 - len(abolished)


def drop(codes: Sequence[str]) -> list[dict[str, Any]]:
    return [{"op": "drop", "code": f"{code}00000"} for code in codes]


def pass_a_day(app: App) -> None:
    """Move the disbelieved list one day into the past."""
    sql = """UPDATE unconfirmed_region_list
                SET first_seen_on = first_seen_on - 1, last_seen_on = last_seen_on - 1"""
    app.database.transaction(lambda connection: connection.execute(text(sql)))


class TestAListThatIsNotBelieved:
    SIXTY = tuple(leaf.region_code for leaf in bundled_snapshot().leaves)[::4][:60]

    def test_sixty_leaves_without_successors_are_not_abolished_at_first_sight_but_on_another_day(
        self, app: App, simulator: Simulator
    ) -> None:
        before = tables(app)
        simulator.configure(region_edits=drop(self.SIXTY))
        for _ in range(2):
            with pytest.raises(RegionListRefused, match="lacks 60 of the 256 regions") as refused:
                app.refresh_regions()
        assert tables(app) == before
        assert "accept_any_change: true" in str(refused.value)
        unconfirmed = app.regions.unconfirmed()
        assert unconfirmed is not None
        assert f"since {unconfirmed.first_seen_on}" in unconfirmed.sentence
        assert "lacks 60 of the 256 regions known" in unconfirmed.sentence
        assert not app.refresh_is_due(), "it was seen today"

        pass_a_day(app)
        assert app.refresh_is_due()
        assert app.refresh_regions().changes.abolished == tuple(sorted(self.SIXTY))
        assert app.regions.unconfirmed() is None
        assert app.refresh_regions().changes.abolished == ()

    def test_another_list_is_refused_too(self, app: App, simulator: Simulator) -> None:
        simulator.configure(region_edits=drop(self.SIXTY))
        with pytest.raises(RegionListRefused):
            app.refresh_regions()
        pass_a_day(app)
        simulator.configure(region_edits=drop(self.SIXTY[1:]))
        with pytest.raises(RegionListRefused, match="lacks 59 of"):
            app.refresh_regions()

    def test_a_whole_list_settles_it(self, app: App, simulator: Simulator) -> None:
        simulator.configure(region_edits=drop(self.SIXTY))
        with pytest.raises(RegionListRefused):
            app.refresh_regions()
        simulator.configure(region_edits=[])
        app.refresh_regions()
        assert app.regions.unconfirmed() is None
        pass_a_day(app)
        simulator.configure(region_edits=drop(self.SIXTY))
        with pytest.raises(RegionListRefused):
            app.refresh_regions()

    def test_it_may_be_accepted_at_once(self, app: App, simulator: Simulator) -> None:
        simulator.configure(region_edits=drop(["11680"]))
        with pytest.raises(RegionListRefused, match="11680 서울특별시 강남구"):
            app.refresh_regions()
        assert app.refresh_regions(accept_any_change=True).changes.abolished == ("11680",)
        assert app.regions.unconfirmed() is None

    def test_the_bundled_list_replaces_a_first_list_of_three_provinces(
        self,
        empty: App,
        simulator: Simulator,
    ) -> None:
        others = {leaf.region_code[:2] for leaf in bundled_snapshot().leaves} - {"11", "41", "47"}
        edits = [{"op": "drop", "code": f"{sido}00000000"} for sido in sorted(others - {"36"})]
        simulator.configure(region_edits=edits)
        sync = empty.refresh_regions()
        assert (sync.seeded, sync.listed.source) == (256, "snapshot")
        assert sync.warning is not None
        assert "of the 256 regions known" in sync.warning
        assert f"The bundled list of {SNAPSHOT_AS_OF} is used" in sync.warning
        (noted,) = read(empty, "SELECT source, note FROM region_refresh")
        assert noted == {"source": "snapshot", "note": sync.warning}
        assert empty.regions.unconfirmed() is not None
        with pytest.raises(RegionListRefused):
            empty.refresh_regions()

        simulator.configure(region_edits=[])
        assert empty.refresh_regions().warning is None
        assert empty.regions.unconfirmed() is None

    def test_a_first_list_that_lacks_a_few_regions_is_believed_on_another_day(
        self, empty: App, simulator: Simulator
    ) -> None:
        simulator.configure(region_edits=drop(["11680", "50130"]))
        assert empty.refresh_regions().listed.source == "snapshot"
        pass_a_day(empty)
        assert empty.refresh_regions().changes.abolished == ("11680", "50130")

    def test_dongs_as_regions_are_judged_by_their_sigungu(
        self, empty: App, environment: Environment, simulator: Simulator
    ) -> None:
        variables = {**environment, "CHECKPOINT_REGION_TYPE": "legal_dong"}
        del empty
        with App.open(settings_module.load(variables)) as app:
            simulator.configure(region_edits=drop(self.SIXTY))
            with pytest.raises(RegionListRefused, match="lacks 60 of the 256 regions known"):
                app.refresh_regions()
            simulator.configure(region_edits=[])
            assert app.refresh_regions().seeded > 15_000
            simulator.configure(region_edits=drop(self.SIXTY[:2]))
            with pytest.raises(RegionListRefused, match="lacks 2 of the 256 regions known"):
                app.refresh_regions()
            pass_a_day(app)
            assert app.refresh_regions().changes.abolished

    def test_status_and_doctor_name_it_with_its_day_and_what_to_do(
        self, app: App, simulator: Simulator, environment: Environment
    ) -> None:
        simulator.configure(region_edits=drop(self.SIXTY))
        with pytest.raises(RegionListRefused):
            app.refresh_regions()
        today = f"{dt.datetime.now(KST):%Y-%m-%d}"
        (warning,) = [one for one in _read(app).warnings if one.startswith("Region list")]
        (finding,) = [one for one in examine(environment, calls=False) if one.check == "regions"]
        for text_shown in (warning, f"{finding.found} {finding.advice}"):
            assert f"Not believed since {today}" in text_shown
            assert "lacks 60 of the 256 regions known" in text_shown
            assert "accept_any_change: true" in text_shown
        assert finding.level is Level.WARNING
