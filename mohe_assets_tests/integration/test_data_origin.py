"""Made-up data and real data never meet: a database remembers which of the two it holds."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import text

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.errors import OriginMismatch
from mohe_assets.packaged_files import packaged_file
from mohe_assets.settings import SIMULATOR_CLIENT_IDS, SIMULATOR_GOVERNMENT_KEY
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.api_state import ApiAccount
from mohe_assets.store.database import Database, rows
from mohe_assets.store.origin import SIMULATOR_ACCOUNTS, Origin
from mohe_assets_tests.support.commands import Mohe
from mohe_assets_tests.support.environments import Environment

GANGNAM = frozenset({"11680"})
REAL = {
    "NAVER_CLIENT_ID": "an-id-of-a-person",
    "NAVER_CLIENT_SECRET": "their-secret",
    "GOVT_API_KEY": "their-government-key",
}
Open = Callable[..., App]


@pytest.fixture(scope="module")
def template(regions_template: str) -> str:
    return regions_template


@pytest.fixture
def open_platform(environment: Environment) -> Iterator[Open]:
    """With the simulator's keys, or `real=True` with keys of a person."""
    with ExitStack() as stack:

        def build(*, real: bool = False) -> App:
            variables = {**environment, "MOHE_SEARCH_KEYWORDS": "카페", **(REAL if real else {})}
            return stack.enter_context(App.open(settings_module.load(variables)))

        yield build


def collect(app: App, run_id: str = "run") -> None:
    with app.collection(run_id, ClaimFilter(codes=GANGNAM)) as run:
        assert len(list(run.outcomes())) == 1


def accept_real_keys(simulator: Simulator) -> None:
    """It stands for the real APIs from now on."""
    simulator.configure(
        client_id=REAL["NAVER_CLIENT_ID"],
        client_secret=REAL["NAVER_CLIENT_SECRET"],
        government_key=REAL["GOVT_API_KEY"],
    )


def received(simulator: Simulator) -> tuple[int, int]:
    stats = simulator.stats(brief=True)
    return stats["naver"]["received"], stats["regions"]["received"]


def read(app: App, sql: str) -> list[dict[str, Any]]:
    return app.database.transaction(lambda connection: rows(connection, sql))


def execute(app: App, sql: str) -> None:
    app.database.transaction(lambda connection: connection.execute(text(sql)))


def start_collection(app: App) -> None:
    with app.collection("another", ClaimFilter()):
        pass


def replay(app: App) -> None:
    app.replay()


ENTRIES = [
    start_collection,
    replay,
    App.refresh_regions,
    App.prepare_batch,
    App.require_same_origin,
]


@pytest.mark.parametrize("enter", ENTRIES)
@pytest.mark.parametrize("real_first", [False, True])
def test_no_entry_asks_an_api_with_data_of_the_other_origin(
    open_platform: Open, simulator: Simulator, enter: Callable[[App], Any], real_first: bool
) -> None:
    first, other = open_platform(real=real_first), open_platform(real=not real_first)
    if real_first:
        accept_real_keys(simulator)
        first.refresh_regions()
    collect(first)
    before = received(simulator)
    with pytest.raises(OriginMismatch) as refused:
        enter(other)
    assert received(simulator) == before
    sentence = str(refused.value)
    assert ("comes from the real APIs" if real_first else "made up by the simulator") in sentence
    assert "another MOHE_HOME" in sentence
    assert ("mohe db reset" in sentence) is not real_first, "nobody is led to delete real data"
    enter(first)


def test_begin_of_a_simulators_day_is_refused_on_real_data(
    open_platform: Open, simulator: Simulator
) -> None:
    accept_real_keys(simulator)
    real = open_platform(real=True)
    real.refresh_regions()
    collect(real)
    with pytest.raises(OriginMismatch):
        open_platform().begin_simulated_day()


def test_keys_that_collected_nothing_bind_nothing(open_platform: Open) -> None:
    real, simulated = open_platform(real=True), open_platform()
    start_collection(real)
    assert read(real, "SELECT origin FROM data_origin WHERE part = 'places'") == [{"origin": "api"}]
    collect(simulated)
    assert simulated.data_origin.places() is Origin.SIMULATOR


def test_a_run_that_is_about_to_store_its_first_answer_keeps_its_claim(open_platform: Open) -> None:
    real, simulated = open_platform(real=True), open_platform()
    with real.session("real-run"):
        real.data_origin.claim(Origin.API, "real-run")
        with pytest.raises(OriginMismatch):
            start_collection(simulated)


def test_a_reset_gives_the_database_free_with_a_list_to_be_read_again(
    open_platform: Open, simulator: Simulator
) -> None:
    simulated, real = open_platform(), open_platform(real=True)
    simulated.refresh_regions()
    collect(simulated)
    assert simulated.reset() == 256
    assert read(simulated, "SELECT sum(reserved)::int AS calls FROM api_usage") == [{"calls": 0}]
    assert simulated.data_origin.places() is Origin.NONE
    assert real.list_is_missing(), "the list is the simulator's"
    accept_real_keys(simulator)
    # Of 256 regions half are gone, which would not be believed of the same API.
    execute(
        real,
        "INSERT INTO region SELECT * FROM (SELECT region_type, 'x' || region_code, region_name, "
        "sido_name, "
        "sigungu_name, parent_code, is_leaf, 'x' || partition_key, status, abolished_at, source, "
        "as_of, created_at, "
        "updated_at FROM region WHERE is_leaf) doubled",
    )
    real.refresh_regions()
    assert not real.list_is_missing()
    collect(real)
    assert real.data_origin.places() is Origin.API


def test_a_reset_of_real_data_keeps_the_count_of_calls_and_other_batches(
    open_platform: Open, simulator: Simulator
) -> None:
    accept_real_keys(simulator)
    real = open_platform(real=True)
    real.refresh_regions()
    collect(real)
    execute(real, "UPDATE batch_checkpoint SET batch_name = 'another' WHERE region_code = '11110'")
    real.reset()
    assert read(real, "SELECT sum(reserved)::int AS calls FROM api_usage") == [{"calls": 1}]
    assert read(real, "SELECT region_code FROM batch_checkpoint WHERE batch_name = 'another'") == [
        {"region_code": "11110"}
    ]


def test_a_new_simulator_has_a_day_of_its_own(open_platform: Open) -> None:
    app = open_platform()
    collect(app)
    execute(app, "UPDATE api_usage SET reserved = 1000000")
    execute(
        app,
        "UPDATE api_budget SET exhausted_until = now() + interval '1 day', exhausted_why = 'over'",
    )
    state = app.api_state()
    assert state is not None
    assert not state.open
    app.begin_simulated_day()
    state = app.api_state()
    assert state is not None
    assert (state.open, state.used_today) == (True, 0)


def test_doctor_names_it_as_an_error_and_status_as_a_warning(
    open_platform: Open, mohe: Mohe, simulator: Simulator
) -> None:
    collect(open_platform())
    accept_real_keys(simulator)
    done = mohe("doctor", "--json", **REAL)
    (data,) = [one for one in json.loads(done.out) if one["check"] == "data"]
    assert (done.status, data["level"]) == (1, "error")
    assert "mohe db reset" in data["advice"]
    assert (
        "made up by the simulator"
        in json.loads(mohe("status", "--json", **REAL).out)["warnings"][0]
    )
    fine = json.loads(mohe("doctor", "--no-calls", "--json").out)
    assert [(one["level"], one["found"]) for one in fine if one["check"] == "data"] == [
        ("ok", "made up by the simulator")
    ]


def test_up_refuses_with_the_sentence_before_anything_starts(
    open_platform: Open, mohe: Mohe, simulator: Simulator
) -> None:
    collect(open_platform())
    before = received(simulator)
    done = mohe("up", "--port", "39417", **REAL)
    assert done.status == 1
    assert "made up by the simulator" in done.err
    assert "The UI is at" not in done.out
    assert received(simulator) == before


def test_status_without_keys_shows_the_simulators_day_and_promises_no_rate(
    open_platform: Open, mohe: Mohe
) -> None:
    collect(open_platform())
    done = mohe(
        "status",
        without=("NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET", "GOVT_API_KEY", "MOHE_CALLS_PER_SECOND"),
    )
    assert "the simulator's: 1 of 1,000,000 calls used today" in done.out
    assert "are allowed" not in done.out
    assert "none is made now: no keys are set" in " ".join(done.out.split())


def spent(account: str, *, until: int) -> str:
    """Calls of an account, the last at that hour."""
    return f"""
    INSERT INTO api_budget (api, account, updated_at) VALUES ('naver-classic', '{account}',
    '2026-11-20 {until}:00+09');
    INSERT INTO api_usage (api, account, day, reserved) VALUES ('naver-classic', '{account}',
    '2026-11-20', 10);
    """


ANSWERED = """
INSERT INTO search_query (batch_name, region_type, region_code, round, source, query, sort, keyword,
stage, status, attempt,
                          run_id, calls, answer, answered_at)
VALUES ('b', 'sigungu', '11680', 1, 'naver-local', 'q', 'random', 'q', 'base', 'DONE', 1, 'r', 1,
'{}', '2026-11-20 12:00+09');
"""
PLACE = """
INSERT INTO places (name, category, address, latitude, longitude, naver_place_id, first_seen_at)
VALUES ('n', 'c', 'a', 37, 127, 'k', '2026-11-20 12:00+09');
"""


@pytest.mark.parametrize(
    ("before", "origin"),
    [
        pytest.param("", "none", id="nothing"),
        pytest.param(ANSWERED, "api", id="real answers"),
        pytest.param(PLACE, "api", id="places of the batch system"),
        pytest.param(spent(SIMULATOR_ACCOUNTS[0], until=13) + ANSWERED, "simulator", id="demo"),
        pytest.param(
            spent(SIMULATOR_ACCOUNTS[1], until=13) + PLACE, "simulator", id="demo, ledger deleted"
        ),
        pytest.param(
            spent(SIMULATOR_ACCOUNTS[0], until=11) + ANSWERED, "api", id="demo, reset, real"
        ),
        pytest.param(spent("0" * 32, until=13) + ANSWERED, "api", id="another account"),
    ],
)
def test_data_from_before_the_mark_is_told_by_the_account_that_paid_for_it(
    open_platform: Open, before: str, origin: str
) -> None:
    database = open_platform().database
    statements = (packaged_file("sql") / "013_data_origin.sql").read_text("utf-8")
    for sql in ("DROP TABLE data_origin", before, statements, statements):
        if sql:
            run(database, sql)
    assert database.transaction(lambda c: rows(c, "SELECT part, origin FROM data_origin")) == [
        {"part": "places", "origin": origin}
    ]


def run(database: Database, sql: str) -> None:
    database.transaction(lambda connection: connection.connection.cursor().execute(sql))


def test_the_simulators_keys_and_accounts_are_those_that_are_recognised() -> None:
    config = SimulatorConfig()
    assert (config.client_id, config.hub_key_id) == SIMULATOR_CLIENT_IDS
    assert config.government_key == SIMULATOR_GOVERNMENT_KEY
    accounts = [
        ApiAccount.of(api, client_id, "", rate=1, daily=1, monthly=None).account
        for api, client_id in zip(("naver-classic", "naver-hub"), SIMULATOR_CLIENT_IDS, strict=True)
    ]
    assert tuple(accounts) == SIMULATOR_ACCOUNTS
    text_of_013 = (packaged_file("sql") / "013_data_origin.sql").read_text("utf-8")
    assert all(account in text_of_013 for account in accounts)


@pytest.mark.parametrize(
    ("variables", "simulated"),
    [
        ({}, None),
        ({"GOVT_API_KEY": SIMULATOR_GOVERNMENT_KEY}, True),
        ({"GOVT_API_KEY": "other"}, False),
        (
            {
                "GOVT_API_KEY": "other",
                "NAVER_CLIENT_ID": "demo-client-id",
                "NAVER_CLIENT_SECRET": "x",
            },
            True,
        ),
        (
            {
                "GOVT_API_KEY": SIMULATOR_GOVERNMENT_KEY,
                "NAVER_CLIENT_ID": "mine",
                "NAVER_CLIENT_SECRET": "x",
            },
            False,
        ),
        (
            {
                "NAVER_CLIENT_ID": "demo-client-id",
                "NAVER_CLIENT_SECRET": "x",
                "NCP_APIGW_API_KEY_ID": "mine",
                "NCP_APIGW_API_KEY": "x",
            },
            False,
        ),
        ({"NCP_APIGW_API_KEY_ID": "demo-hub-key-id", "NCP_APIGW_API_KEY": "x"}, True),
    ],
)
def test_the_search_keys_in_use_say_whether_it_is_the_simulator(
    variables: dict[str, str], simulated: bool | None
) -> None:
    assert settings_module.load(variables).simulated is simulated
