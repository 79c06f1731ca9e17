"""A real `mohe up`, and its GraphQL as the web page uses it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import psutil
import requests

from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.ports import free_port
from mohe_assets_tests.support.processes import PATIENCE

_REQUEST_TIMEOUT = 60

LOADED = """{ workspaceOrError { ... on Workspace { locationEntries { loadStatus
    locationOrLoadError { __typename ... on RepositoryLocation { repositories
    { name } } } } } } }"""
STATUSES = """{ assetNodeOrError(assetKey: {path: ["places"]}) { ... on AssetNode
                { assetPartitionStatuses {
    ... on DefaultPartitionStatuses {
        materializedPartitions failedPartitions unmaterializedPartitions
        materializingPartitions } } } } }"""
LAUNCH = """mutation($parameters: LaunchBackfillParams!)
              { launchPartitionBackfill(backfillParams: $parameters) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
CANCEL = "mutation($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename } }"
BACKFILL = (
    "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { "
    "status } } }"
)
RUNS = (
    "query($status: [RunStatus!]) { runsOrError(filter: {statuses: $status}) { ... on Runs { "
    "results { runId status } } } }"
)
TICK = """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
            ... on Sensor { sensorState {
    ticks(limit: 1) { status skipReason error { message } } } } } }"""


def until(
    condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE, every: float = 0.25
) -> None:
    """Wait for a condition outside of this process, at long intervals: the processes share two
    cores.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: did not happen within {seconds:g} s"
        time.sleep(every)


@dataclass(frozen=True, kw_only=True)
class Partitions:
    """The partitions by status, as on the asset's page."""

    materialized: frozenset[str]
    failed: frozenset[str]
    missing: frozenset[str]
    under_way: frozenset[str]


class Ui:
    """The web server's GraphQL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = (
            False  # no proxy of the environment stands between a test and its own process
        )

    def close(self) -> None:
        self._session.close()

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        response = self._session.post(
            f"{self.url}/graphql",
            json={"query": query, "variables": variables},
            timeout=_REQUEST_TIMEOUT,
        )
        body = response.json()
        assert "errors" not in body, body
        return cast("dict[str, Any]", body["data"])

    @property
    def loaded(self) -> bool:
        """The web server answers and has loaded the definitions."""
        try:
            entries = self.ask(LOADED)["workspaceOrError"]["locationEntries"]
        except requests.ConnectionError:
            return False
        return bool(entries) and all(
            entry["locationOrLoadError"]["__typename"] == "RepositoryLocation" for entry in entries
        )

    def partitions(self) -> Partitions:
        found = self.ask(STATUSES)["assetNodeOrError"]["assetPartitionStatuses"]
        under_way = frozenset(found["materializingPartitions"])
        return Partitions(
            materialized=frozenset(found["materializedPartitions"]),
            failed=frozenset(found["failedPartitions"]),
            missing=frozenset(found["unmaterializedPartitions"]),
            under_way=under_way,
        )

    def backfill(self, keys: Collection[str]) -> str:
        """Launches one over these partitions and returns its id."""
        parameters = {
            "assetSelection": [{"path": ["places"]}],
            "partitionNames": sorted(keys),
            "fromFailure": False,
            "tags": [],
        }
        answer = self.ask(LAUNCH, parameters=parameters)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def backfill_missing_or_failed(self, keys: Collection[str]) -> tuple[str, frozenset[str]]:
        """As the page's choice of that name: it sends the keys that are not green. Returns the id
        and those keys.
        """
        seen = self.partitions()
        left = frozenset(keys) & (seen.missing | seen.failed)
        return self.backfill(left), left

    def cancel(self, backfill_id: str) -> None:
        assert (
            self.ask(CANCEL, id=backfill_id)["cancelPartitionBackfill"]["__typename"]
            == "CancelBackfillSuccess"
        )

    def backfill_status(self, backfill_id: str) -> str:
        return str(self.ask(BACKFILL, id=backfill_id)["partitionBackfillOrError"]["status"])

    def runs(self, *status: str) -> list[dict[str, str]]:
        found = self.ask(RUNS, status=list(status) or None)["runsOrError"]["results"]
        return [{"id": one["runId"], "status": one["status"]} for one in found]

    @property
    def idle(self) -> bool:
        """No run is under way or waiting."""
        return not self.runs("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")

    def last_tick(self) -> dict[str, Any]:
        selector = {
            "repositoryLocationName": "mohe_assets",
            "repositoryName": "__repository__",
            "sensorName": "pending_region_sensor",
        }
        ticks = self.ask(TICK, selector=selector)["sensorOrError"]["sensorState"]["ticks"]
        return dict(ticks[0]) if ticks else {}


# Dagster looks for new and cancelled backfills, and for runs whose process died, every 30 seconds;
# our sensor compares all partitions once a minute. For a process that finds this file on its path
# it is a few seconds: the tests are about what happens then, not about the wait.
_HURRIED = """
import sys

arguments = " ".join(sys.orig_argv)
if "mohe_assets.defs.runtime.daemon" in arguments:
    from dagster import DagsterInstance
    from dagster._daemon import controller

    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2
    DagsterInstance.run_monitoring_poll_interval_seconds = 5
if "mohe_assets.defs.runtime.code_server" in arguments:
    from mohe_assets.defs import sensors

    sensors.RECONCILE_SECONDS = 4
"""


class Up:
    """`mohe up` with everything below it, in a process group of its own; `hurried` waits less
    between its looks.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, *, hurried: bool = False) -> None:
        self.log = log
        self.port = free_port()
        if hurried:
            on_path = log.with_suffix(".path")
            on_path.mkdir()
            (on_path / "sitecustomize.py").write_text(_HURRIED, encoding="utf-8")
            environment = {**environment, "PYTHONPATH": str(on_path)}
        command = [str(Path(sys.executable).with_name("mohe")), "up", "--port", str(self.port)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.ui = Ui(f"http://127.0.0.1:{self.port}")

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ready(self) -> Self:
        def loaded() -> bool:
            assert self._process.poll() is None, self.output[-3000:]
            return self.ui.loaded

        until(loaded, "the page has loaded the definitions")
        return self

    def family(self) -> list[psutil.Process]:
        """Itself and all below it."""
        itself = psutil.Process(self._process.pid)
        return [itself, *itself.children(recursive=True)]

    def code_server(self) -> psutil.Process:
        """The one that runs now; waits for it while it is started again."""
        until(lambda: self._code_server() is not None, "a code server runs")
        return cast("psutil.Process", self._code_server())

    def _code_server(self) -> psutil.Process | None:
        for process in self.family()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if "mohe_assets.defs.runtime.code_server" in process.cmdline():
                    return process
        return None

    @property
    def code_server_serves(self) -> bool:
        """Return whether the code server answers; the page may still show the previous one's
        definitions.
        """
        server = self._code_server()
        if server is None:
            return False
        words = server.cmdline()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(words[words.index("--socket") + 1])
            return True
        return False

    def terminate(self) -> int:
        """SIGTERM to `mohe up` alone, as `docker stop` does; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"mohe up did not end:\n{self.output[-3000:]}") from None

    def end(self) -> None:
        """End everything that still runs."""
        self.ui.close()
        left = self.family() if self._process.poll() is None else []
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        kill(left)
        self._process.wait(timeout=PATIENCE)


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill -9 of all of them at once, and waits until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=PATIENCE)


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that have not ended; zombies have."""
    return [one for one in processes if _status(one) not in {None, psutil.STATUS_ZOMBIE}]


def _status(process: psutil.Process) -> str | None:
    try:
        return str(process.status()) if process.is_running() else None
    except psutil.NoSuchProcess:
        return None


def keys_with(database: Database, *status: str) -> frozenset[str]:
    """Partition keys of the regions whose checkpoint has one of these statuses."""
    sql = """SELECT r.partition_key FROM batch_checkpoint c JOIN region r
               USING (region_type, region_code)
              WHERE c.status = ANY(:status)"""
    return frozenset(row["partition_key"] for row in read(database, sql, status=list(status)))
