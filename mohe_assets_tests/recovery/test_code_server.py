"""The code server ends in time and leaves no process behind, at any state of its runs and calls."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.test_utils import create_run_for_test

from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import PATIENCE, until

# A server that waits for its runs, as Dagster's does, and one of them that does not hear; another
# begins when it is late.
SERVER = """
import signal, subprocess, sys
from mohe_assets.defs.runtime import code_server

code_server.CODE_SERVER_STOP_SECONDS = 3
signal.signal(signal.SIGTERM, code_server._stop)
run = "import signal, time; signal.signal(signal.SIGTERM, signal.{how}); "
run += "print('up', flush=True); time.sleep(600)"
first = subprocess.Popen([sys.executable, "-c", run])
try:
    first.wait()
except KeyboardInterrupt:
    late = subprocess.Popen([sys.executable, "-c", run])
    print("ended", late.wait(), flush=True)
    first.wait()
"""


# One of its runs has not begun: SIGTERM ends it at once, and Dagster looks whether it is over.
ENDING = """
import signal, subprocess, sys
from mohe_assets.defs.runtime import code_server

signal.signal(signal.SIGTERM, code_server._stop)
child = "import time; print('up', flush=True); time.sleep(600)"
run = subprocess.Popen([sys.executable, "-c", child])
try:
    run.wait()
except KeyboardInterrupt:
    run.wait()
    import dagster as dg
    with dg.DagsterInstance.get() as instance:
        print(*(run.status.value for run in instance.get_runs()), flush=True)
"""


def test_a_run_that_has_not_begun_when_it_ends_is_canceled_before_it_dies(
    instance: dg.DagsterInstance, process_environment: Callable[..., Environment], tmp_path: Path
) -> None:
    create_run_for_test(instance, job_name="ingest_places", status=dg.DagsterRunStatus.STARTED)
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", ENDING], stdout=output, stderr=output, env=process_environment()
        )
    until(lambda: log.read_text().startswith("up"), "a run is there")
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=PATIENCE) == 0, log.read_text()
    assert log.read_text().split()[-1] == "CANCELED", log.read_text()


@pytest.mark.parametrize(("how", "status"), [("SIG_DFL", 0), ("SIG_IGN", 1)])
def test_it_ends_in_time_with_runs_that_do_not_hear_and_with_one_that_was_just_being_started(
    tmp_path: Path, how: str, status: int
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER.replace("{how}", how)], stdout=output, stderr=output
        )
    until(lambda: log.read_text().startswith("up"), "a run is there")
    runs = psutil.Process(server.pid).children()
    told = time.monotonic()
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=PATIENCE) == status, log.read_text()
    assert time.monotonic() - told < 3 + 20, "with what a machine under load may add"
    assert [run for run in runs if run.is_running() and run.status() != psutil.STATUS_ZOMBIE] == []
    assert ("ended -15" in log.read_text()) == (how == "SIG_DFL")
