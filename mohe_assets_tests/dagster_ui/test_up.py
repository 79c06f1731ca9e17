"""A real `mohe up`: the sensor, backfills as the page launches them, signals and kills. Checkpoints
and page agree at the end.

Each test starts it once, which takes ten seconds; so each goes through several scenes of one life.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from mohe_assets.settings import KEYS
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import execute, read
from mohe_assets_tests.support.environments import KEYWORDS, Environment
from mohe_assets_tests.support.processes import executions, repeated, statuses
from mohe_assets_tests.support.rate_and_quota import set_noon
from mohe_assets_tests.support.regions import FewRegions, keys_of
from mohe_assets_tests.support.ui import Up, alive, keys_with, kill, until

THREADS = 4
# Longest stop, and the time that a machine under load may add.
STOP_SECONDS = 10
UNDER_LOAD = 20

StartUp = Callable[..., Up]


@pytest.fixture
def start_up(process_environment: Callable[..., Environment], tmp_path: Path) -> Iterator[StartUp]:
    """Starts `mohe up` with the changes given to its environment and waits for its page; none
    outlives the test.
    """
    started: list[Up] = []

    def start(**changes: str) -> Up:
        up = Up(process_environment(**changes), tmp_path / f"up-{len(started)}.log", hurried=True)
        started.append(up)
        return up.ready()

    yield start
    for up in started:
        up.end()


def completed(database: Database) -> int:
    return statuses(database).get("COMPLETED", 0)


def page_agrees(up: Up, database: Database) -> bool:
    seen = up.ui.partitions()
    known = frozenset(keys_of(database))
    return (
        seen.materialized == keys_with(database, "COMPLETED")
        and seen.failed == keys_with(database, "FAILED")
        and seen.missing & known == keys_with(database, "PENDING")
        and not seen.under_way
    )


def test_the_sensor_alone_completes_all_regions_and_a_backfill_meanwhile_repeats_nothing(
    start_up: StartUp, simulator: Simulator, database: Database, few: FewRegions
) -> None:
    keys = few(
        129
    )  # of which the first three runs take 87: those of the backfill are in none of them
    # A region takes two calls of 200 ms: the last regions are not reached before the backfill over
    # them is launched.
    simulator.configure(calls_per_second=120, latency_ms=200)
    up = start_up(MOHE_CALLS_PER_SECOND="120", MOHE_REGIONS_PER_RUN="43", MOHE_RUNS_IN_FLIGHT="3")
    until(lambda: completed(database) > 0, "the sensor's first region")
    backfill = up.ui.backfill(keys[-40:])

    until(lambda: statuses(database) == {"COMPLETED": 129}, "all regions are completed")
    until(lambda: up.ui.idle, "all runs are over")
    until(
        lambda: up.ui.backfill_status(backfill) == "COMPLETED_SUCCESS",
        "the backfill is done, whoever did its work",
    )
    assert {run["status"] for run in up.ui.runs()} == {"SUCCESS"}
    assert page_agrees(up, database)
    answers = simulator.stats()["naver"]["answers_per_search"]
    assert len(answers) == 129 * len(KEYWORDS)
    assert repeated(answers) == 0
    until(
        lambda: "129 of 129" in str(up.ui.last_tick().get("skipReason")),
        "the sensor says that nothing is due",
    )


def test_a_backfill_can_be_cancelled_and_resumed_and_a_stopped_code_server_releases_its_regions(
    start_up: StartUp, simulator: Simulator, database: Database
) -> None:
    keys = keys_of(database)[:40]
    # Two threads in each of two runs and three seconds a call: a minute in which to cancel it.
    simulator.configure(latency_ms=3_000)
    up = start_up(
        CHECKPOINT_AUTO_RESUME="false", MOHE_REGIONS_PER_RUN="20", MOHE_SEARCHES_IN_FLIGHT="2"
    )
    until(
        lambda: "CHECKPOINT_AUTO_RESUME" in str(up.ui.last_tick().get("skipReason")),
        "the sensor says that it waits",
    )
    assert simulator.stats(brief=True)["naver"]["received"] == 0

    # Cancelled in the middle: what it held is released, nothing is red.
    first = up.ui.backfill(keys)
    until(lambda: completed(database) >= 2, "a few regions")
    up.ui.cancel(first)
    until(lambda: up.ui.backfill_status(first) == "CANCELED", "the backfill is cancelled")
    until(lambda: up.ui.idle, "its runs have ended")
    assert set(statuses(database)) == {"COMPLETED", "PENDING"}, "its regions are released"
    done = completed(database)
    assert 2 <= done < 40
    until(lambda: page_agrees(up, database), "the page shows the same")

    # The remaining regions and no other.
    before = ledger(database)
    simulator.configure(latency_ms=100)
    last, left = up.ui.backfill_missing_or_failed(keys)
    assert left == frozenset(keys) - keys_with(database, "COMPLETED")
    until(lambda: up.ui.backfill_status(last) == "COMPLETED_SUCCESS", "the rest is collected")
    assert keys_with(database, "COMPLETED") == frozenset(keys)
    assert statuses(database) == {"COMPLETED": 40, "PENDING": 216}
    assert page_agrees(up, database)
    assert before.items() <= ledger(database).items(), "nothing that was done was done again"
    answers = simulator.stats()["naver"]["answers_per_search"]
    assert len(answers) == 40 * len(KEYWORDS)
    assert repeated(answers) <= 4, (
        "at most what was in flight in four threads when they were stopped"
    )

    # Only the code server is stopped: its run releases its regions, nothing is red, and it is
    # started again.
    simulator.configure(latency_ms=1_000)
    more = keys_of(database)[100:110]
    up.ui.backfill(more)
    until(lambda: completed(database) >= 42, "a few regions more")
    server = up.code_server()
    told = time.monotonic()
    server.terminate()
    until(lambda: not alive([server]), "the code server ends")
    assert time.monotonic() - told < STOP_SECONDS + UNDER_LOAD
    assert "PROCESSING" not in statuses(database)
    assert frozenset(more) - keys_with(database, "COMPLETED"), "it ended in the middle"
    simulator.configure(latency_ms=50)
    # Dagster tries a backfill that cannot reach it five times, which at these intervals is sooner
    # than it has started.
    until(
        lambda: up.code_server().pid != server.pid and up.code_server_serves,
        "the code server is started again",
    )
    until(lambda: up.ui.idle, "the run is over")
    assert up.ui.partitions().failed == frozenset()
    rest, _ = up.ui.backfill_missing_or_failed(more)
    until(lambda: up.ui.backfill_status(rest) == "COMPLETED_SUCCESS", "the rest is collected")
    assert keys_with(database, "COMPLETED") == frozenset([*keys, *more])
    until(lambda: page_agrees(up, database), "the page shows the same")


def ledger(database: Database) -> dict[int, tuple[str, int]]:
    """Count the searches of each region by run and round."""
    sql = "SELECT id, run_id, round FROM search_query WHERE status = 'DONE'"
    return {row["id"]: (row["run_id"], row["round"]) for row in read(database, sql)}


def test_killed_it_goes_on_and_told_to_stop_it_leaves_nothing_behind(
    start_up: StartUp, simulator: Simulator, database: Database, few: FewRegions
) -> None:
    keys = few(48)
    # 24 regions in a run, two calls of a second each, four threads: twelve seconds in which to kill
    # it.
    simulator.configure(latency_ms=1_000)
    up = start_up(MOHE_REGIONS_PER_RUN="24", MOHE_RUNS_IN_FLIGHT="2", MOHE_LEASE_SECONDS="6")

    # kill -9 of the code server and of the runs below it.
    until(
        lambda: len(executions(database)) == 2 and completed(database) >= 2,
        "a few regions, and both runs are under way",
    )
    server = up.code_server()
    kill([server, *server.children(recursive=True)])
    simulator.configure(latency_ms=250)
    until(lambda: completed(database) == 48, "all regions are completed nevertheless")
    until(lambda: up.ui.idle, "all runs are over")
    interrupted = {
        run["execution_id"] for run in executions(database) if run["status"] == "INTERRUPTED"
    }
    assert interrupted
    assert {run["id"] for run in up.ui.runs("CANCELED")} >= interrupted
    seen = up.ui.partitions()
    assert (seen.materialized, seen.failed) == (frozenset(keys), frozenset())
    answers = simulator.stats()["naver"]["answers_per_search"]
    assert len(answers) == 48 * len(KEYWORDS)
    assert repeated(answers) <= 2 * THREADS

    # SIGTERM in the middle of another round.
    execute(
        database,
        """UPDATE batch_checkpoint SET status = 'PENDING', round = round + 1, searches_done = 0,
             start_time = NULL,
                  end_time = NULL, reported_at = NULL""",
    )
    until(
        lambda: statuses(database).get("PROCESSING", 0) >= THREADS and completed(database) >= 2,
        "a few regions again",
    )
    family = up.family()
    assert len(family) >= 5
    told = time.monotonic()
    assert up.terminate() == 0, up.output[-3000:]
    assert time.monotonic() - told < STOP_SECONDS + UNDER_LOAD
    assert alive(family) == []
    assert set(statuses(database)) <= {"COMPLETED", "PENDING"}
    assert "RUNNING" not in {run["status"] for run in executions(database)}


def test_the_sensor_finishes_a_backfill_that_the_quota_ended_and_the_rest_is_missing_till_then(
    start_up: StartUp, simulator: Simulator, database: Database, few: FewRegions
) -> None:
    keys = few(20)
    set_noon(database, simulator)
    simulator.configure(daily_quota=15, latency_ms=100)
    # Two runs of ten regions; the sensor's own tick sees the work only when the backfill's runs
    # have taken it.
    up = start_up(CHECKPOINT_AUTO_RESUME="false", MOHE_REGIONS_PER_RUN="10")
    backfill = up.ui.backfill(keys)
    until(
        lambda: len(executions(database)) == 2 and up.ui.idle, "both runs of the backfill are over"
    )
    until(
        lambda: up.ui.backfill_status(backfill) not in {"REQUESTED", "CANCELING"},
        "the backfill is over",
    )
    left = keys_with(database, "PENDING")
    assert 0 < len(left) < 20
    assert {run["status"] for run in up.ui.runs()} == {"SUCCESS"}
    until(
        lambda: page_agrees(up, database),
        "what the quota did not reach is missing, and nothing is red",
    )
    assert up.terminate() == 0

    # With the sensor launching: it waits for the day to end, gives the time, and resumes by
    # itself.
    up = start_up(MOHE_REGIONS_PER_RUN="10")
    until(
        lambda: "Waiting for the quota until" in str(up.ui.last_tick().get("skipReason")),
        "the sensor waits",
    )
    assert f"{20 - len(left)} of 20 regions are completed" in str(
        up.ui.last_tick().get("skipReason")
    )
    assert keys_with(database, "PENDING") == left
    set_noon(database, simulator, days_ahead=2)
    simulator.configure(daily_quota=None)
    until(lambda: statuses(database) == {"COMPLETED": 20}, "the sensor finishes it")
    until(lambda: up.ui.idle, "all runs are over")
    until(lambda: page_agrees(up, database), "all is green")
    assert set(simulator.stats()["naver"]["answers_per_search"].values()) == {1}


def test_a_run_ended_in_its_first_second_leaves_regions_that_nobody_tried_missing(
    start_up: StartUp, database: Database, few: FewRegions, simulator: Simulator
) -> None:
    keys = few(6)
    up = start_up(CHECKPOINT_AUTO_RESUME="false", MOHE_REGIONS_PER_RUN="6")
    server = up.code_server()
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        before = len(up.ui.runs())
        up.ui.backfill(keys)
        until(partial(a_run_begins, up, server, before), "a run's process has begun", every=0.02)
        for process in runs_below(server):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal_number)
        assert executions(database) == [], "before anything of ours ran"
        # Dagster calls the one a failure; of the other it never hears, which the monitoring tells
        # after its time-out.
        execute(
            database, "UPDATE runs SET update_timestamp = update_timestamp - interval '10 minutes'"
        )
        until(lambda: up.ui.idle, "the run is over")
        until(lambda: page_agrees(up, database), "nobody tried them, nothing is red")
    assert statuses(database) == {"PENDING": 6}
    assert simulator.stats(brief=True)["naver"]["received"] == 0


def a_run_begins(up: Up, server: psutil.Process, before: int) -> bool:
    return bool(runs_below(server)) and len(up.ui.runs()) > before


def test_keys_are_given_to_the_code_server_and_its_runs_alone_and_no_other_account_reaches_it(
    start_up: StartUp, simulator: Simulator, database: Database, few: FewRegions
) -> None:
    few(2)
    simulator.configure(latency_ms=2_000)
    up = start_up(CHECKPOINT_AUTO_RESUME="false", MOHE_COLLECTOR_PASSWORD="of-a-role")
    up.ui.backfill(keys_of(database))
    server = up.code_server()
    until(lambda: bool(executions(database)), "a run collects")
    given = {
        one: {name for name in KEYS if name in process.environ()}
        for process in [*up.family()[1:], *runs_below(server)]
        for one in ("run", "daemon", "web_server", "code_server")
        if belongs(process, server, one)
    }
    keys = {"GOVT_API_KEY", "NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET"}
    everything = keys | {"MOHE_COLLECTOR_PASSWORD"}
    assert given == {
        "code_server": everything,
        "run": everything,
        "daemon": set(),
        "web_server": set(),
    }
    until(lambda: statuses(database) == {"COMPLETED": 2}, "the run has the keys")

    assert [one for process in up.family() for one in listening(process)] == [
        ("127.0.0.1", up.port)
    ]
    words = server.cmdline()
    folder = Path(words[words.index("--socket") + 1]).parent
    assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, os.geteuid())


def belongs(process: psutil.Process, server: psutil.Process, kind: str) -> bool:
    if kind == "run":
        return process in runs_below(server)
    words = " ".join(process.cmdline())
    return (
        process not in server.children(recursive=True)
        and {
            "daemon": "mohe_assets.defs.runtime.daemon" in words,
            "web_server": "mohe_assets.defs.runtime.web_server" in words,
            "code_server": process == server,
        }[kind]
    )


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    with contextlib.suppress(psutil.NoSuchProcess):
        found = process.net_connections(kind="inet")
        return [(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN]
    return []


def runs_below(server: psutil.Process) -> list[psutil.Process]:
    """The processes of runs; the interpreter's own helper is none."""
    found = []
    for one in server.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "resource_tracker" not in " ".join(one.cmdline()):
                found.append(one)
    return found
