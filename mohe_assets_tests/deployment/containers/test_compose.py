"""docker-compose.yml on an engine: the users' commands, and every container ended in the middle."""

import re
from pathlib import Path

from mohe_assets.collection.scheduler import INTERRUPTED_FOUND
from mohe_assets.defs.runtime.console_logger import STOPPED
from mohe_assets_tests.support.databases import PROGRESS_QUERY
from mohe_assets_tests.support.engine import OWNER, Stack, StartStack, docker, inspected

REGIONS = 256
# Three runs with eight searches each, which MOHE_RUNS_IN_FLIGHT and the demo's rate make.
IN_FLIGHT = 3 * 8
COLOURS = "\x1b["


def log() -> str:
    return docker("logs", "mohe-batch")


def interrupted(text: str) -> list[str]:
    """The runs that the line about interrupted ones names, one entry for each time."""
    named = re.findall(rf"{re.escape(INTERRUPTED_FOUND)} \(실행 ([^)]*), 지역", text)
    return [run for one in named for run in one.split(", ")]


def test_the_users_commands_work_and_each_container_may_be_ended_at_any_time(
    stack: StartStack, tmp_path: Path
) -> None:
    demo = stack()
    demo.compose("up", "-d", "--no-build", "simulator")
    demo.compose("up", "-d", "--no-build", "batch")
    with demo.following(tmp_path / "followed"):
        demo.until("the first regions are collected", lambda: demo.completed() >= 4)
        demo.compose("up", "-d", "--no-build")
        demo.until("all are healthy", all_are_healthy)
        a_stop_in_order_is_resumed(demo)
        kills_cost_the_searches_in_flight(demo)
        names_survive_a_network_that_was_disconnected(demo)
        before_down = whole_stops_leave_nothing_held(demo)
        demo.until("all are collected", lambda: demo.statuses() == {"COMPLETED": REGIONS}, 400)
    # In flight when batch was killed, and when PostgreSQL was: what it had not committed.
    # The simulator's counts lack the moments between its last reading and its end.
    repeated, searches = demo.answered_twice()
    assert searches >= REGIONS * 15 * 0.95
    assert repeated <= 2 * IN_FLIGHT
    # It ends with the container's first stop.
    assert STOPPED in (tmp_path / "followed").read_text(encoding="utf-8")
    what_people_read_afterwards(before_down + log(), tmp_path)


def all_are_healthy() -> bool:
    states = docker("ps", "--format", "{{.Names}} {{.Status}}").splitlines()
    return len(states) == 5 and all("(healthy)" in state for state in states)


def a_stop_in_order_is_resumed(demo: Stack) -> None:
    before = log()
    docker("stop", "mohe-batch")
    assert inspected("mohe-batch")["State"]["ExitCode"] == 0
    assert "PROCESSING" not in demo.statuses()
    ended = log().removeprefix(before)
    assert STOPPED in ended
    assert "Traceback" not in ended
    assert "Stack Trace" not in ended
    # Its counts end with it.
    demo.note_answers()
    docker("kill", "mohe-simulator")
    docker("start", "mohe-simulator", "mohe-batch")
    demo.goes_on("a stop and a start of batch")
    assert interrupted(log().removeprefix(before))


def kills_cost_the_searches_in_flight(demo: Stack) -> None:
    for name in ("mohe-batch", "mohe-postgres", "mohe-daemon", "mohe-webserver"):
        docker("kill", name)
        docker("start", name)
        demo.goes_on(f"a kill of {name}")
    for name in ("mohe-postgres", "mohe-daemon"):
        docker("restart", name)
        demo.goes_on(f"a restart of {name}")


def names_survive_a_network_that_was_disconnected(demo: Stack) -> None:
    (network,) = inspected("mohe-batch")["NetworkSettings"]["Networks"]
    for name in ("mohe-batch", "mohe-postgres"):
        docker("network", "disconnect", network, name)
        docker("network", "connect", network, name)
    demo.goes_on("a disconnected network")


def whole_stops_leave_nothing_held(demo: Stack) -> str:
    """Returns the log of the container that `down` removes."""
    demo.note_answers()
    demo.compose("stop")
    assert inspected("mohe-batch")["State"]["ExitCode"] == 0
    docker("start", "mohe-postgres")
    demo.until("PostgreSQL answers", lambda: demo.completed() > 0)
    assert "PROCESSING" not in demo.statuses()
    text = log()
    demo.compose("down")
    demo.compose("up", "-d", "--no-build")
    demo.goes_on("down and up")
    return text


def what_people_read_afterwards(whole_log: str, folder: Path) -> None:
    progress = docker("exec", "-i", *OWNER, "-XAt", given=PROGRESS_QUERY).strip()
    assert progress == f"{REGIONS}|{REGIONS}|0|0|0"
    named = interrupted(whole_log)
    assert named
    assert len(named) == len(set(named)), "each interrupted run is named once"
    for name in ("mohe-batch", "mohe-daemon", "mohe-webserver"):
        text = docker("logs", name)
        assert COLOURS not in text
        times = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (\S+) - ", text, re.MULTILINE)
        assert set(times) == {"+0900"}, "Korean time"
    assert (
        docker("exec", "-i", "mohe-batch", "mohe", "db", "psql", "-XAt", "-c", "SELECT 1") == "1\n"
    )
    dump = docker("exec", "-i", "mohe-batch", "mohe", "db", "dump", "--schema-only")
    assert "CREATE TABLE public.batch_checkpoint" in dump
    docker("exec", "mohe-batch", "mohe", "doctor")
    job = ("dagster", "job", "execute", "-m", "mohe_assets.definitions", "-j", "publish_catalog")
    docker("exec", "mohe-batch", *job)
    docker("cp", "mohe-batch:/var/lib/mohe/catalog", str(folder))
    assert (folder / "catalog" / "places.parquet").stat().st_size > 100_000
