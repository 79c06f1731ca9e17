"""A daemon whose thread hangs is noticed by its heartbeats and is started again."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import dagster as dg
from dagster._daemon.types import DaemonHeartbeat

from mohe_assets.cli.daemon_watch import DaemonWatch
from mohe_assets.cli.supervisor import Supervisor
from mohe_assets.settings import Settings
from mohe_assets_tests.support.processes import until

# It notes each start and ignores SIGTERM, as a process that hangs may.
HANGS = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "a") as file:
    file.write("started\\n")
while True:
    time.sleep(60)
"""


def beat(instance: dg.DagsterInstance, *threads: str) -> None:
    for name in threads:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), name, "a-daemon", []))


def test_a_thread_is_silent_when_its_heartbeat_stops_to_change(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    assert settings.dagster_database_url is not None
    watch = DaemonWatch(url=settings.dagster_database_url.get_secret_value(), silent_seconds=1.0)
    beat(instance, "SENSOR", "QUEUED_RUN_COORDINATOR", "ASSET")  # the last one by an earlier daemon
    assert watch.look() == ""
    for _ in range(4):
        time.sleep(0.5)
        beat(instance, "SENSOR", "QUEUED_RUN_COORDINATOR")
        assert watch.look() == ""
    time.sleep(1.2)
    beat(instance, "SENSOR")
    assert watch.look() == "no heartbeat of QUEUED_RUN_COORDINATOR for 1 s"
    assert watch.look() == "", "the new daemon has its own time"


def test_while_the_database_is_away_no_thread_is_called_silent(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    assert settings.dagster_database_url is not None
    url = settings.dagster_database_url.get_secret_value()
    watch = DaemonWatch(url=url, silent_seconds=0.5)
    beat(instance, "SENSOR")
    assert watch.look() == ""
    beat(instance, "SENSOR")
    assert watch.look() == ""
    watch.url = "postgresql://someone@127.0.0.1:1/dagster"
    time.sleep(0.6)
    assert watch.look() == ""
    watch.url = url
    assert watch.look() == "", "it is given the time that it was away"
    time.sleep(0.6)
    assert watch.look() == "no heartbeat of SENSOR for 0.5 s"


def test_a_process_that_hangs_is_ended_and_started_again(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    reasons = iter(["", "no heartbeat of SENSOR for 120 s"])
    supervisor = Supervisor(
        commands={"the daemon": [sys.executable, "-c", HANGS, str(starts)]},
        environment=dict(os.environ),
        watches={"the daemon": lambda: next(reasons, "")},
        look_seconds=0.5,
    )

    def stop_after_the_second_start() -> None:
        until(
            lambda: starts.exists() and starts.read_text().count("started") == 2,
            "it was started again",
            seconds=60,
        )
        supervisor._stop.set()

    stopping = threading.Thread(target=stop_after_the_second_start)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stopping.start()
    try:
        assert supervisor.run() == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    stopping.join()
    assert next(reasons, "none left") == "none left"
