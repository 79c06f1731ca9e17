"""Collections in separate processes, started as by a shell, and their results in both databases."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import dagster as dg
import psycopg2
from dagster._cli import main as dagster_command
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from mohe_assets.app import App
from mohe_assets.defs.runtime.reconciliation import disagreements, reconcile, regions_of, shown
from mohe_assets.defs.runtime.recovery import recover
from mohe_assets.store.checkpoints import Status
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read

JOB = ("dagster", "job", "execute", "-m", "mohe_assets.definitions", "-j", "place_ingestion_batch")
PLACES = dg.AssetKey("places")
# Generous: two cores may be shared with other suites. Less is enough where no process has to start.
PATIENCE = 120.0
PATIENCE_WITHIN_ONE_PROCESS = 30.0

# Type of the fixture `the_page_agrees`.
PageAgrees = Callable[[], None]


def until(condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE) -> None:
    """Waits for something outside of this process; fails with `what` did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: did not happen within {seconds:g} s"
        time.sleep(0.02)


def soon(condition: Callable[[], bool], what: str) -> None:
    """As `until`, for what this process does itself."""
    until(condition, what, seconds=PATIENCE_WITHIN_ONE_PROCESS)


class Worker:
    """One collection job in a process group of its own, its output in a file; `wrapper` is a
    command that becomes it.
    """

    def __init__(
        self, environment: Mapping[str, str], log: Path, *, wrapper: Sequence[str] = ()
    ) -> None:
        self.log = log
        self._process = self._begin(environment, log, wrapper)

    def _begin(
        self, environment: Mapping[str, str], log: Path, wrapper: Sequence[str]
    ) -> "subprocess.Popen[bytes] | _Forked":
        program, *arguments = JOB
        with log.open("wb") as output:
            return subprocess.Popen(
                [*wrapper, str(Path(sys.executable).with_name(program)), *arguments],
                env=dict(environment),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """To the worker alone, as `kill` does, not to its group."""
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill -9, and its corpse taken away, so that no process of that number is left."""
        self.send(signal.SIGKILL)
        self._process.wait(timeout=PATIENCE)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Return its exit status; fail with the end of its output if it runs for longer."""
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"The worker did not end within {seconds:g} s:\n{self.output[-3000:]}"
            ) from None

    def succeed(self) -> Self:
        """Waits for its end, which has to be a success."""
        assert self.wait() == 0, self.output[-5000:]
        return self

    def end(self) -> None:
        """End the worker and all its children."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=PATIENCE)


# Two seconds of each worker's life are imports. A process that has them done forks the workers of
# most tests.
_NURSERY = multiprocessing.get_context("forkserver")
_NURSERY.set_forkserver_preload(["dagster._cli", "mohe_assets.definitions", __name__])


class ForkedWorker(Worker):
    """The same job with the same arguments, environment and group, forked from a process that has
    imported it.
    """

    def _begin(
        self, environment: Mapping[str, str], log: Path, wrapper: Sequence[str]
    ) -> "_Forked":
        assert not wrapper, "a fork is no command line"
        return _Forked(environment, log)


# Type of the fixtures `start_worker` and `start_worker_from_a_shell`.
StartWorker = Callable[..., Worker]


class _Forked:
    """A forked process, spoken to like one of `subprocess`."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._process = _NURSERY.Process(target=_run_job, args=(dict(environment), str(log)))
        self._process.start()
        self.pid = cast("int", self._process.pid)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(JOB, timeout)
        return self._process.exitcode


def _run_job(environment: dict[str, str], log: str) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(Path(log).parent)
    sys.stdout.flush()
    sys.stderr.flush()
    for path, flags, descriptor in (
        (os.devnull, os.O_RDONLY, 0),
        (log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    sys.argv = list(JOB)
    dagster_command()  # type: ignore[no-untyped-call]


def statuses(database: Database) -> dict[str, int]:
    """How many regions have which status."""
    found = read(
        database, "SELECT status, count(*) AS regions FROM batch_checkpoint GROUP BY status"
    )
    return {row["status"]: row["regions"] for row in found}


def executions(database: Database) -> list[dict[str, Any]]:
    """The runs as our own table has them, in the order of their start."""
    return read(database, "SELECT * FROM batch_execution_metadata ORDER BY id")


def taken_from(database: Database, run_id: str) -> set[str]:
    sql = "SELECT region_code FROM batch_checkpoint WHERE attempt > 1 AND run_id <> :run"
    return {row["region_code"] for row in read(database, sql, run=run_id)}


def written_by(database: Database, run_id: str) -> list[dict[str, object]]:
    """Return the rows of the ledger that this run wrote."""
    return read(database, "SELECT * FROM search_query WHERE run_id = :run ORDER BY id", run=run_id)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The result of a collection: place ids by (region, query) in the answer's order, and places by
    id.
    """

    searches: Mapping[tuple[str, str], tuple[str, ...]]
    places: Mapping[str, tuple[Any, ...]]

    @classmethod
    def of(cls, database: Database) -> "Collected":
        # The ledger first: workers continue, and a place is stored with its search at the
        # latest.
        ledger = read(
            database, "SELECT region_code, query, place_ids FROM search_query WHERE status = 'DONE'"
        )
        ids = {
            row["id"]: row["naver_place_id"]
            for row in read(database, "SELECT id, naver_place_id FROM places")
        }
        places = read(
            database,
            """SELECT naver_place_id, name, category, address, road_address, latitude, longitude,
                 phone,
                                          website_url, source, region_type, region_code
                                          FROM places""",
        )
        return cls(
            searches={
                (row["region_code"], row["query"]): tuple(ids[one] for one in row["place_ids"])
                for row in ledger
            },
            places={row["naver_place_id"]: tuple(row.values()) for row in places},
        )

    def only(self, codes: Collection[str]) -> "Collected":
        """The same for a part of the regions."""
        searches = {key: found for key, found in self.searches.items() if key[0] in codes}
        kept = {one for found in searches.values() for one in found}
        return Collected(
            searches=searches,
            places={key: place for key, place in self.places.items() if key in kept},
        )


def repeated(answers_per_search: Mapping[str, int]) -> int:
    """Answers beyond the first of each search."""
    return sum(answers_per_search.values()) - len(answers_per_search)


def run_status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    return cast("dg.DagsterRun", instance.get_run_by_id(run_id)).status


def assert_the_page_agrees(instance: dg.DagsterInstance, app: App) -> None:
    """Assert that Dagster shows the checkpoints after one tick of the sensor."""
    recover(instance, app)
    reconcile(instance, app)
    seen = shown(instance)
    assert disagreements(regions_of(app), seen) == {}
    assert AssetPartitionStatus.IN_PROGRESS not in seen.values(), (
        "no run is left that holds a partition"
    )
    by_status = {
        status: {one.partition_key for one in regions_of(app).values() if one.status == status}
        for status in Status
    }
    assert {
        key for key, status in seen.items() if status is AssetPartitionStatus.FAILED
    } == by_status[Status.FAILED]
    green = {key for key, status in seen.items() if status is AssetPartitionStatus.MATERIALIZED}
    assert by_status[Status.COMPLETED] <= green


def materializations(instance: dg.DagsterInstance) -> Sequence[dg.EventLogRecord]:
    """All events of completed regions."""
    return instance.fetch_materializations(PLACES, limit=5_000).records


def partition_of(event: dg.EventLogEntry) -> str:
    return cast("str", cast("dg.DagsterEvent", event.dagster_event).partition)


@contextlib.contextmanager
def holding(url: str, sql: str) -> Iterator[None]:
    """Hold the locks that `sql` takes, so that others wait where they need them."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
        yield
    finally:
        connection.close()


# Backends of a database that wait for a lock.
_WAITING = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def backends_waiting(url: str) -> int:
    return int(_ask(url, f"SELECT count(*) {_WAITING}"))


def end_waiting_backends(url: str) -> int:
    """End waiting backends: a killed client's statement must not run once the lock is free."""
    return int(_ask(url, f"SELECT count(pg_terminate_backend(pid, 5000)) {_WAITING}"))


def _ask(url: str, sql: str) -> Any:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return (cursor.fetchone() or (0,))[0]
