"""Who failed, the search, the region or the API: outages, useless answers, one failing search."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from mohe_assets import app as app_module
from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.clients.http import RetryPolicy
from mohe_assets.collection.cancellation import CancellationToken
from mohe_assets.collection.rate_limiter import SharedRateLimiter
from mohe_assets.collection.region_worker import Outcome, RegionOutcome
from mohe_assets.collection.run import CollectionRun
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.errors import ApiUnavailable, QuotaExhausted, RateLimited, RequestRefused
from mohe_assets.simulator.server import Simulator
from mohe_assets.sources.naver_local.client import NaverLocalClient
from mohe_assets.store.api_calls import OUTAGE_CALLS
from mohe_assets.store.api_state import read_state
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.regions import keep_checkpoints
from mohe_assets_tests.support.stores import Store

KEYWORDS = ("카페", "음식점", "공원")
CODES = ("11110", "11680", "36110", "41135")
IN_FLIGHT = 3
# Responses of an API that is down, each with the simulator's fault for it.
OUTAGES: dict[str, dict[str, Any]] = {
    "HTTP 503": {"fault": "status", "status": 503},
    "a reset": {"fault": "reset"},
    "a time-out": {"fault": "hang", "seconds": 5},
    "a page of nginx": {"fault": "html"},
}

ITEM = {
    "title": "카페", "link": "", "category": "카페", "description": "", "telephone": "",
    "address": "서울특별시 강남구 역삼동 1", "roadAddress": "", "mapx": "309977", "mapy": "552085",
}  # fmt: skip
EMPTY = '{"lastBuildDate":"","total":0,"start":1,"display":0,"items":[]}'
# Well-formed answers without content: to single queries, or to all.
USELESS: dict[str, dict[str, Any]] = {
    "SE01": {"fault": "bad_query"},
    "coordinates": {
        "fault": "status",
        "status": 200,
        "body": json.dumps({"total": 1, "items": [ITEM]}),
    },
    "nothing at all": {"fault": "status", "status": 200, "body": EMPTY},
}

OpenPlatform = Callable[..., App]


@pytest.fixture(scope="module")
def template(regions_template: str) -> str:
    return regions_template


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short retries are as many as ever, but not seconds apart."""
    quick = partial(RetryPolicy, first_wait=0.0, max_wait=0.0, jitter=0.0, rate_first_wait=0.0)
    monkeypatch.setattr(app_module, "RetryPolicy", quick)


@pytest.fixture
def open_platform(environment: Environment, simulator: Simulator) -> Iterator[OpenPlatform]:
    """Platforms that know a few regions."""
    del simulator
    opened: list[Any] = []

    def build(codes: tuple[str, ...] = CODES, **changes: str) -> App:
        variables = {
            **environment,
            "MOHE_SEARCH_KEYWORDS": ",".join(KEYWORDS),
            "MOHE_SEARCHES_IN_FLIGHT": str(IN_FLIGHT),
            "MOHE_HTTP_TIMEOUT_SECONDS": "1",
            **changes,
        }
        opened.append(App.open(settings_module.load(variables)))
        app: App = opened[-1].__enter__()
        if len(opened) == 1:
            keep_checkpoints(app.database, codes)
        return app

    yield build
    for one in opened:
        one.__exit__(None, None, None)


@pytest.fixture
def app(open_platform: OpenPlatform) -> App:
    return open_platform()


def store_of(app: App) -> Store:
    return Store(database=app.database, checkpoints=app.checkpoints, executions=app.executions)


def run(app: App, run_id: str = "run", **request: Any) -> tuple[CollectionRun, list[RegionOutcome]]:
    with app.collection(run_id, ClaimFilter(**request)) as collection:
        return collection, list(collection.outcomes())


def received(simulator: Simulator) -> int:
    return int(simulator.stats(brief=True)["naver"]["received"])


def regions(app: App) -> list[tuple[str, int]]:
    """Status and failures of each region."""
    found = store_of(app).read("SELECT status, failures FROM batch_checkpoint ORDER BY region_code")
    return [(row["status"], row["failures"]) for row in found]


def execution(app: App, run_id: str) -> dict[str, Any]:
    sql = "SELECT * FROM batch_execution_metadata WHERE execution_id = :run"
    return store_of(app).read(sql, run=run_id)[0]


def let_pass(app: App, what: str = "next_probe_at") -> None:
    """Time passes until this moment of the API's account has come."""
    store_of(app).execute(f"UPDATE api_budget SET {what} = budget_clock() - interval '1 second'")


def seconds_to_the_next_probe(app: App) -> int:
    sql = (
        "SELECT extract(epoch FROM next_probe_at - budget_clock())::float AS seconds "
        "FROM api_budget"
    )
    return int(round(store_of(app).read(sql)[0]["seconds"], -1))


class TestAnOutage:
    @pytest.mark.parametrize("fault", OUTAGES.values(), ids=OUTAGES.keys())
    def test_no_region_is_charged_and_everything_continues_at_the_first_answer(
        self, app: App, simulator: Simulator, fault: dict[str, Any]
    ) -> None:
        simulator.add_faults([{"api": "naver", **fault}])
        halted, outcomes = run(app, "first")
        assert isinstance(halted.halted, ApiUnavailable)
        assert {one.outcome for one in outcomes} <= {Outcome.RELEASED}
        assert regions(app) == [("PENDING", 0)] * len(CODES)
        assert OUTAGE_CALLS <= received(simulator) <= OUTAGE_CALLS + 2 * IN_FLIGHT
        row = execution(app, "first")
        assert row["status"] == "COMPLETED"
        for words in ("unavailable since", "next probe is due", f"{len(CODES)} regions are left"):
            assert words in row["note"]

        before = received(simulator)
        run(app, "before the next probe")
        assert received(simulator) == before
        assert seconds_to_the_next_probe(app) == 60
        for number in range(8):  # some six hours
            let_pass(app)
            for process in ("one", "another"):
                run(app, f"{process} at probe {number}")
            assert received(simulator) == before + number + 1, "one probe for all processes"
            assert seconds_to_the_next_probe(app) == min(3600, 120 * 2**number)
        assert regions(app) == [("PENDING", 0)] * len(CODES)
        state = app.api_state()
        assert state is not None
        assert state.unavailable_since is not None

        simulator.clear_faults()
        let_pass(app)
        _, outcomes = run(app, "after it")
        assert {one.outcome for one in outcomes} == {Outcome.COMPLETED}
        assert regions(app) == [("COMPLETED", 0)] * len(CODES)
        state = app.api_state()
        assert state is not None
        assert (state.open, state.unavailable_since, state.next_probe_at) == (True, None, None)

    def test_one_that_begins_in_the_middle_keeps_what_is_stored(
        self, app: App, simulator: Simulator
    ) -> None:
        simulator.add_faults([{"api": "naver", "fault": "status", "status": 502, "from_call": 5}])
        halted, _ = run(app)
        assert isinstance(halted.halted, ApiUnavailable)
        assert all(failures == 0 for _, failures in regions(app))
        simulator.clear_faults()
        let_pass(app)
        run(app, "after it")
        assert regions(app) == [("COMPLETED", 0)] * len(CODES)
        answered = simulator.stats()["naver"]["answers_per_search"]
        assert sum(answered.values()) <= len(answered) + 1, "only the probe is made twice"

    def test_a_region_that_is_alone_is_not_charged_either(
        self, open_platform: OpenPlatform, simulator: Simulator
    ) -> None:
        app = open_platform(("11680",))
        simulator.add_faults([{"api": "naver", "fault": "status", "status": 503}])
        halted, _ = run(app)
        assert isinstance(halted.halted, ApiUnavailable)
        assert regions(app) == [("PENDING", 0)]
        assert received(simulator) <= OUTAGE_CALLS + 4

    def test_a_run_that_a_person_starts_probes_at_once(
        self, app: App, simulator: Simulator
    ) -> None:
        simulator.add_faults([{"api": "naver", "fault": "status", "status": 503}])
        run(app)
        before = received(simulator)
        run(app, "by a person", probe_now=True)
        assert received(simulator) == before + 1
        assert seconds_to_the_next_probe(app) == 60, "the interval is not changed by it"
        simulator.clear_faults()
        run(app, "by a person again", probe_now=True)
        assert regions(app) == [("COMPLETED", 0)] * len(CODES)

    def test_a_probe_of_a_clock_that_was_wrong_does_not_keep_the_api_closed(
        self, app: App, simulator: Simulator
    ) -> None:
        simulator.add_faults([{"api": "naver", "fault": "status", "status": 503}])
        run(app)
        simulator.clear_faults()
        store_of(app).execute("UPDATE api_budget SET next_probe_at = now() + interval '9 years'")
        state = app.api_state()
        assert state is not None
        assert state.probe_is_due
        run(app, "after it")
        assert regions(app) == [("COMPLETED", 0)] * len(CODES)

    def test_one_request_that_is_refused_after_others_were_answered_is_its_own_matter(
        self, open_platform: OpenPlatform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = open_platform(MOHE_MAX_ATTEMPTS="1")
        original = NaverLocalClient._read

        def read(self: NaverLocalClient, answer: Any) -> dict[str, object]:
            found = original(self, answer)
            if any("역삼" in str(item.get("address")) for item in found["items"]):  # type: ignore[attr-defined]
                raise RequestRefused("HTTP 413", api="naver-classic")
            return found

        run(app, "first", codes=frozenset({"36110"}))
        monkeypatch.setattr(NaverLocalClient, "_read", read)
        halted, _ = run(app, "second", codes=frozenset({"11110", "11680"}))
        assert halted.halted is None
        assert regions(app)[0][0] == "COMPLETED"

    def test_refinement_keeps_its_promise(self, app: App, simulator: Simulator) -> None:
        run(app)
        promised = (
            "SELECT region_code, promise, failures, retry_at FROM batch_checkpoint ORDER BY 1"
        )
        before = store_of(app).read(promised)
        assert any(row["promise"] > 0 for row in before)
        simulator.add_faults([{"api": "naver", "fault": "status", "status": 503}])
        for number in range(6):
            halted, _ = run(app, f"deeper {number}", refine=True)
            assert isinstance(halted.halted, ApiUnavailable)
            let_pass(app)
        assert store_of(app).read(promised) == before
        simulator.clear_faults()
        _, outcomes = run(app, "after it", refine=True)
        assert Outcome.REFINED in {one.outcome for one in outcomes}

    def test_failures_between_answers_are_none(self, app: App, simulator: Simulator) -> None:
        every_other = ({"from_call": call, "to_call": call} for call in range(1, 200, 2))
        simulator.add_faults(
            [{"api": "naver", "fault": "status", "status": 500, **one} for one in every_other]
        )
        for number in range(8):
            halted, _ = run(app, f"run {number}", codes=frozenset(CODES), force_retry=True)
            assert halted.halted is None
        assert {status for status, _ in regions(app)} == {"COMPLETED"}


class TestOneSearch:
    @pytest.mark.parametrize("keyword", KEYWORDS)
    def test_it_fails_for_good_and_the_others_of_its_region_are_stored(
        self, open_platform: OpenPlatform, simulator: Simulator, keyword: str
    ) -> None:
        app = open_platform(MOHE_MAX_ATTEMPTS="3")
        simulator.add_faults(
            [{"api": "naver", "fault": "system_error", "query_contains": f"강남구 {keyword}"}]
        )
        store = store_of(app)
        run(app, "run 1")
        assert Counter(regions(app)) == {("COMPLETED", 0): 3, ("FAILED", 1): 1}
        assert store.row()["searches_done"] == len(KEYWORDS) - 1
        assert "SE99" in store.row()["error_message"]
        for number in (2, 3):
            assert store.row()["retry_at"] is not None
            run(app, f"run {number}", codes=frozenset(CODES), force_retry=True)
        assert store.row()["status"] == "COMPLETED"
        (skipped,) = store.read("SELECT * FROM search_query WHERE status <> 'DONE'")
        assert (skipped["status"], skipped["failed_rounds"]) == ("SKIPPED", 3)
        assert "SE99" in skipped["error_message"]
        assert store.row()["promise"] > 0, "the region is refined"

    def test_a_search_of_a_refinement_that_fails_ends_as_skipped(
        self, open_platform: OpenPlatform, simulator: Simulator
    ) -> None:
        app = open_platform(MOHE_MAX_ATTEMPTS="1", MOHE_MAX_CALLS_PER_REGION="8")
        run(app)
        simulator.add_faults(
            [{"api": "naver", "fault": "system_error", "query_contains": "역삼동"}]
        )
        run(app, "deeper", refine=True)
        store = store_of(app)
        assert {status for status, _ in regions(app)} == {"COMPLETED"}
        left = store.read("SELECT status FROM search_query WHERE query LIKE '%역삼동%'")
        assert {row["status"] for row in left} <= {"SKIPPED"}


class TestNothingUsable:
    @pytest.mark.parametrize("how", USELESS)
    def test_an_api_that_gives_nothing_to_use_completes_no_region(
        self, app: App, simulator: Simulator, how: str
    ) -> None:
        simulator.add_faults([{"api": "naver", **USELESS[how]}])
        halted, outcomes = run(app)
        assert isinstance(halted.halted, ApiUnavailable)
        assert {one.outcome for one in outcomes} <= {Outcome.RELEASED}
        assert regions(app) == [("PENDING", 0)] * len(CODES)
        note = execution(app, "run")["note"]
        assert ("every query is refused" if how == "SE01" else "answers changed") in note
        for _ in range(3):
            let_pass(app)
            run(app, "later")
        assert regions(app) == [("PENDING", 0)] * len(CODES)

        simulator.clear_faults()
        let_pass(app)
        run(app, "after it")
        assert regions(app) == [("COMPLETED", 0)] * len(CODES)
        left = (
            "SELECT 1 AS n FROM search_query WHERE status <> 'DONE' OR answer::text LIKE '%309977%'"
        )
        assert store_of(app).read(left) == []

    def test_a_region_without_a_place_is_tried_again_before_it_is_completed(
        self, open_platform: OpenPlatform, simulator: Simulator
    ) -> None:
        app = open_platform(MOHE_MAX_ATTEMPTS="2")
        simulator.add_faults(
            [
                {
                    "api": "naver",
                    "fault": "status",
                    "status": 200,
                    "body": EMPTY,
                    "query_contains": "강남구",
                }
            ]
        )
        run(app, "run 1")
        row = store_of(app).row()
        assert (row["status"], row["failure_kind"]) == ("FAILED", "no_places")
        assert "3 came back empty" in row["error_message"]
        run(app, "run 2", codes=frozenset(CODES), force_retry=True)
        row = store_of(app).row()
        assert (row["status"], row["processed_count"]) == ("COMPLETED", 0)


class TestAnAccount:
    """The gate, by itself."""

    def judge(self, app: App, *errors: Exception, reserve: bool = True) -> SharedRateLimiter:
        async def work() -> SharedRateLimiter:
            rate_limiter = SharedRateLimiter(
                database=app.database,
                account=app.account,
                cancellation=CancellationToken(),
            )
            for error in errors:
                if reserve:
                    await rate_limiter.reserve()
                await rate_limiter.refused(error)  # type: ignore[arg-type]
            await rate_limiter.close()
            return rate_limiter

        return asyncio.run(work())

    def test_a_refused_request_is_found_with_one_call_until_credentials_or_address_change(
        self, open_platform: OpenPlatform
    ) -> None:
        app = open_platform()
        self.judge(app, RequestRefused("HTTP 404, SE05", api="naver-classic", advice="set keys"))
        state = app.api_state()
        assert state is not None
        assert "set keys" in (state.unavailable_reason or "")
        with pytest.raises(ApiUnavailable, match="set keys"):
            self.judge(app, RequestRefused("never sent", api="naver-classic"))
        assert state.used_today == 1
        for change in (
            {"NAVER_CLIENT_SECRET": "another"},
            {"MOHE_NAVER_API_URL": "http://127.0.0.1:1"},
        ):
            other = open_platform(**change)
            assert read_state(other.database, other.account).open

    def test_refusals_of_unknown_shape_and_nothing_else_are_a_quota(
        self, open_platform: OpenPlatform
    ) -> None:
        app = open_platform()
        refusal = RateLimited("HTTP 429 with HTML", api="naver-classic", unknown_shape=True)
        self.judge(app, refusal, refusal)
        assert read_state(app.database, app.account).open
        store_of(app).execute(
            "UPDATE api_budget SET refused_since = refused_since - interval '4 minutes'"
        )
        self.judge(app, refusal)
        state = read_state(app.database, app.account)
        assert state.closed_until is not None
        assert "taken for a quota" in (state.closed_why or "")
        let_pass(app, "exhausted_until")
        self.judge(app, refusal)
        assert not read_state(app.database, app.account).open, "one probe an hour"

    def test_a_quota_of_credentials_that_were_never_answered_names_the_other_cause(
        self, open_platform: OpenPlatform
    ) -> None:
        app = open_platform()
        refusal = QuotaExhausted(
            "Quota Exceeded", api="naver-hub", if_never_answered="or local search is not selected"
        )
        self.judge(app, refusal)
        state = read_state(app.database, app.account)
        assert "local search is not selected" in (state.closed_why or "")


def test_a_person_restores_the_refinement_that_an_older_version_gave_up(app: App) -> None:
    run(app)
    store = store_of(app)
    store.execute(
        """UPDATE batch_checkpoint SET promise = 0, failures = 5, failure_kind = 'transient',
                  error_message = 'HTTP 503' WHERE region_code <> '11680'"""
    )
    assert app.checkpoints.restore_refinement() == [code for code in CODES if code != "11680"]
    assert app.refinement.backlog().regions >= 3
    assert app.checkpoints.restore_refinement() == [], "once"
