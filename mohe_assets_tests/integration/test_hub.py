"""NAVER API HUB: a whole collection and its refinement in its form, its errors, its month, and the
change to it in the middle.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import text

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.collection.region_worker import RegionOutcome
from mohe_assets.collection.run import CollectionRun
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.domain.forecast import forecast
from mohe_assets.domain.kst import KST
from mohe_assets.errors import ApiBlocked, QuotaExhausted
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.stores import Store

CODES = ("11110", "11140", "11680", "36110", "41111", "50110")
KEYWORDS = ("카페", "공원")
SEARCHES = len(CODES) * len(KEYWORDS)
HUB = {
    "NCP_APIGW_API_KEY_ID": SimulatorConfig().hub_key_id,
    "NCP_APIGW_API_KEY": SimulatorConfig().hub_key,
}
LAST_OF_NOVEMBER = dt.datetime(2026, 11, 30, 12, tzinfo=KST)

OpenPlatform = Callable[..., App]


@pytest.fixture
def open_platform(environment: Environment, database: Database) -> Iterator[OpenPlatform]:
    """Platforms on one database, each with its own changes to the environment."""
    Store.of(database, codes=CODES)
    with ExitStack() as opened:

        def build(**changes: str) -> App:
            some = {"MOHE_SEARCH_KEYWORDS": ",".join(KEYWORDS), "MOHE_SEARCHES_IN_FLIGHT": "2"}
            return opened.enter_context(
                App.open(settings_module.load({**environment, **some, **changes}))
            )

        yield build


def collect(
    app: App, run_id: str = "run", **request: Any
) -> tuple[list[RegionOutcome], CollectionRun]:
    with app.collection(run_id, ClaimFilter(**request)) as run:
        return list(run.outcomes()), run


def set_clocks(database: Database, simulator: Simulator, moment: dt.datetime) -> None:
    """The budget's and the simulator's."""
    simulator.set_clock(moment.isoformat())
    ahead = (moment - dt.datetime.now(KST)).total_seconds()
    clock = f"""CREATE OR REPLACE FUNCTION budget_clock() RETURNS timestamptz LANGUAGE sql VOLATILE
                AS $$ SELECT clock_timestamp() + make_interval(secs => {ahead}) $$"""
    database.transaction(lambda connection: connection.execute(text(clock)))


def answers(simulator: Simulator) -> dict[str, int]:
    return dict(simulator.stats()["naver"]["answers_per_search"])


def test_a_collection_and_its_refinement_run_in_the_form_of_the_hub(
    simulator: Simulator, open_platform: OpenPlatform
) -> None:
    hub = open_platform(**HUB, MOHE_MAX_CALLS_PER_REGION="6")
    outcomes, run = collect(hub)
    assert (len(outcomes), run.halted) == (len(CODES), None)
    collect(hub, "deeper", refine=True)
    assert set(answers(simulator).values()) == {1}
    assert len(answers(simulator)) > SEARCHES
    state = hub.api_state()
    assert state is not None
    assert (state.used_today, state.used_this_month, state.monthly_quota) == (
        len(answers(simulator)),
    ) * 2 + (775_000,)
    assert hub.settings.calls_per_second == 5_000, "set by the test's environment"
    assert settings_module.load(HUB).calls_per_second == 50


def test_the_change_to_the_hub_goes_on_where_classic_stopped(
    simulator: Simulator, open_platform: OpenPlatform
) -> None:
    classic = open_platform(MOHE_DAILY_QUOTA="5")
    _, run = collect(classic)
    assert isinstance(run.halted, QuotaExhausted)
    assert len(answers(simulator)) == 5

    # The day of the classic API is over, that of the HUB has not begun.
    hub = open_platform(**HUB)
    _, run = collect(hub, "another")
    assert run.halted is None
    assert hub.checkpoints.progress().completed == len(CODES)
    assert (len(answers(simulator)), set(answers(simulator).values())) == (SEARCHES, {1})
    assert collect(open_platform(), "back again")[0] == [], (
        "nor does the change back make anything due"
    )


@pytest.mark.parametrize(
    ("theirs", "ours"), [(5, 775_000), (None, 5)], ids=["their count", "our count"]
)
def test_a_used_up_month_closes_until_the_first_of_the_next(
    simulator: Simulator,
    database: Database,
    open_platform: OpenPlatform,
    theirs: int | None,
    ours: int,
) -> None:
    set_clocks(database, simulator, LAST_OF_NOVEMBER - dt.timedelta(days=10))
    simulator.configure(monthly_quota=theirs)
    hub = open_platform(**HUB, MOHE_MONTHLY_QUOTA=str(ours))
    _, run = collect(hub)
    assert isinstance(run.halted, QuotaExhausted)
    assert len(answers(simulator)) == 5
    first = dt.datetime(2026, 12, 1, tzinfo=KST)
    state = hub.api_state()
    assert state is not None
    assert not state.open
    if theirs is None:
        assert (state.closed_until, state.closed_why) == (first, "the month's 5 calls are used")
        left = hub.quota_state(hub.api_state())
        assert (left.left_today, left.left_month, left.monthly_quota) == (0, 0, 5)
        assert forecast(7, left, now=LAST_OF_NOVEMBER).done_at.astimezone(KST).month == 1, (
            "five in December, two in January"
        )

    set_clocks(database, simulator, LAST_OF_NOVEMBER)
    received = simulator.stats()["naver"]["received"]
    assert collect(hub, "too early")[1].halted is not None
    # The server does not name the month: one call a day finds out.
    assert simulator.stats()["naver"]["received"] - received == (0 if theirs is None else 1)

    set_clocks(database, simulator, first + dt.timedelta(hours=2))
    simulator.configure(monthly_quota=None)
    _, run = collect(open_platform(**HUB), "december")
    assert run.halted is None
    assert (len(answers(simulator)), set(answers(simulator).values())) == (SEARCHES, {1})


def test_wrong_keys_of_the_hub_name_its_variables_and_fail_no_region(
    simulator: Simulator, open_platform: OpenPlatform
) -> None:
    hub = open_platform(**{**HUB, "NCP_APIGW_API_KEY": "not-the-secret"})
    _, run = collect(hub)
    assert isinstance(run.halted, ApiBlocked)
    assert "NCP_APIGW_API_KEY_ID and NCP_APIGW_API_KEY" in str(run.halted)
    assert hub.checkpoints.progress().pending == len(CODES)
    assert simulator.stats()["naver"]["received"] == 1
    # The other API is not affected.
    assert len(collect(open_platform(), "classic")[0]) == len(CODES)


def test_its_refusals_for_the_rate_slow_down_and_lose_nothing(
    simulator: Simulator, open_platform: OpenPlatform
) -> None:
    simulator.add_faults([{"api": "naver", "fault": "rate", "times": 2}])
    outcomes, _ = collect(open_platform(**HUB))
    assert len(outcomes) == len(CODES)
    assert set(answers(simulator).values()) == {1}
