"""The search API hangs, resets, lies or fails for one region only: what can be had is had, the rest
is named.
"""

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.processes import Collected, StartWorker, executions, statuses
from mohe_assets_tests.support.regions import FewRegions

SHARE = 0.03


def calls_in_the_ledger(database: Database) -> int:
    return int(
        read(database, "SELECT coalesce(sum(calls), 0) AS calls FROM search_query")[0]["calls"]
    )


def test_a_flaky_api_delays_a_collection_and_changes_nothing_in_it(
    simulator: Simulator,
    database: Database,
    start_worker: StartWorker,
    few: FewRegions,
    reference: Collected,
) -> None:
    codes = few(30)
    kinds: list[dict[str, object]] = [{"fault": "status", "status": 500}]
    kinds += [{"fault": kind} for kind in ("blank", "html", "garbage", "reset")]
    simulator.add_faults(
        [{"api": "naver", "fault": "hang", "seconds": 20, "from_call": 5, "to_call": 7}]
    )
    simulator.add_faults([{"api": "naver", "probability": SHARE, **kind} for kind in kinds])

    # One search in two thousand fails four times in a row, and its region with it; the next run
    # gets it.
    for _ in range(3):
        if start_worker(MOHE_HTTP_TIMEOUT_SECONDS="2").wait() == 0:
            break

    assert statuses(database) == {"COMPLETED": 30}
    assert Collected.of(database) == reference.only(codes)
    seen = simulator.stats()["naver"]
    assert seen["faulted"] >= 5
    assert calls_in_the_ledger(database) == seen["received"], "calls that failed are counted, too"
    assert set(seen["answers_per_search"].values()) == {1}


def test_a_region_that_always_fails_is_given_up_with_its_reason_and_stops_no_other(
    simulator: Simulator,
    database: Database,
    start_worker: StartWorker,
    few: FewRegions,
    settings: settings_module.Settings,
) -> None:
    codes = few(6)
    name = read(
        database,
        "SELECT region_name FROM batch_checkpoint WHERE region_code = :code",
        code=codes[3],
    )[0]["region_name"]
    simulator.add_faults(
        [{"api": "naver", "fault": "status", "status": 503, "query_contains": name}]
    )
    bounded = {"MOHE_MAX_ATTEMPTS": "2"}

    first = start_worker(**bounded)
    assert first.wait() != 0
    assert name in first.output
    assert statuses(database) == {"COMPLETED": 5, "FAILED": 1}
    failed = read(database, "SELECT * FROM batch_checkpoint WHERE status = 'FAILED'")[0]
    assert failed["region_code"] == codes[3]
    assert "503" in failed["error_message"]
    assert failed["failure_kind"] == "transient"
    assert failed["retry_at"] is not None
    assert failed["calls_used"] == 8, "the client's own four attempts at each of two searches"

    assert start_worker(**bounded).wait() != 0
    given_up = read(database, "SELECT * FROM batch_checkpoint WHERE status = 'FAILED'")[0]
    assert given_up["retry_at"] is None
    assert given_up["failures"] == 2
    assert [run["status"] for run in executions(database)] == ["FAILED", "FAILED"]

    with App.open(settings) as app:
        assert app.checkpoints.due() == 0, "it asks for nothing any more"
        assert app.checkpoints.retry() == [codes[3]]
        assert app.checkpoints.due() == 1, "until a person does"
