"""One row of `batch_execution_metadata` per run that collects: who it is, that it lives, how it
ended.

    start ──▶ RUNNING ── finish ──▶ COMPLETED | FAILED | INTERRUPTED
                 │ ▲
                 │ └── heartbeat, every few seconds
                 └── reap_dead_runs (no heartbeat, process gone, or over in Dagster) ──▶ INTERRUPTED

A run that is reaped has lost all its regions in the same transaction; if it was only frozen, it
finds its leases gone and its row no longer RUNNING, and ends.
"""

import os
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import psutil
from sqlalchemy import Connection

from mohe_assets.store.checkpoints import Checkpoints
from mohe_assets.store.database import Database, Scope, rows, statement


class Ending(StrEnum):
    """How a run ended, as `status` keeps it besides RUNNING."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """Identity of a process; a reused process id, a reboot or another container's process
    differs.
    """

    host: str
    process_id: int
    process_started: float

    @classmethod
    def current(cls) -> "Process":
        return cls(
            host=host_identity(),
            process_id=os.getpid(),
            process_started=psutil.Process().create_time(),
        )

    @property
    def gone(self) -> bool:
        """True only if the process is known to be gone: it ran on this host and its pid no longer
        exists.
        """
        if self.host != host_identity():
            return False
        try:
            process = psutil.Process(self.process_id)
            # Start times are derived from the boot clock and may differ by rounding.
            return (
                abs(process.create_time() - self.process_started) > 1
                or process.status() == psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return True


@cache
def host_identity() -> str:
    """Host name, boot, and process namespace: equal only where process ids mean the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # no Linux
        boot, namespace = f"{psutil.boot_time():.0f}", ""
    return f"{socket.gethostname()}/{boot}/{namespace}"


START = """
INSERT INTO batch_execution_metadata
       (batch_name, execution_id, status, start_time, heartbeat_at, host, process_id,
        process_started)
VALUES (:batch, :run_id, 'RUNNING', now(), clock_timestamp(), :host, :process_id, :process_started)
ON CONFLICT (execution_id) DO UPDATE
   SET status = 'RUNNING', heartbeat_at = clock_timestamp(), end_time = NULL,
       note = NULL, dagster_ended_at = NULL,
       host = excluded.host, process_id = excluded.process_id,
       process_started = excluded.process_started
"""
# The moment after the row's lock was waited for, which may take longer than a lease.
HEARTBEAT = """
WITH mine AS MATERIALIZED (
    SELECT id FROM batch_execution_metadata
     WHERE execution_id = :run_id AND status = 'RUNNING' FOR UPDATE
)
UPDATE batch_execution_metadata e SET heartbeat_at = clock_timestamp()
  FROM mine WHERE e.id = mine.id
"""
# Derived from the checkpoints each time, so that a repeat or a takeover cannot count a region
# twice.
TALLY = """
UPDATE batch_execution_metadata e
   SET total_regions = greatest(e.total_regions, CAST(:total AS integer), held.touched),
       completed_regions = held.completed,
       failed_regions = held.failed, last_checkpoint_id = coalesce(held.last_id,
                                                                   e.last_checkpoint_id)
  FROM (SELECT count(*) AS touched,
               count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
               count(*) FILTER (WHERE status = 'FAILED') AS failed,
               (array_agg(id ORDER BY updated_at DESC,
                          id DESC) FILTER (WHERE status IN ('COMPLETED', 'FAILED')))[1] AS last_id
          FROM batch_checkpoint WHERE run_id = :run_id) held
 WHERE e.execution_id = :run_id
"""
FINISH = """
UPDATE batch_execution_metadata
   SET status = :status, note = :note, end_time = now(), heartbeat_at = clock_timestamp(),
       calls_used = (SELECT coalesce(sum(q.calls), 0) FROM search_query q WHERE q.run_id = :run_id)
 WHERE execution_id = :run_id AND status = 'RUNNING'
"""
SUSPECTS = """
SELECT execution_id, host, process_id, process_started,
       coalesce(heartbeat_at < now() - make_interval(secs => :lease_seconds), true) AS silent
  FROM batch_execution_metadata WHERE batch_name = :batch AND status = 'RUNNING'
"""
RUNNING = """
SELECT execution_id FROM batch_execution_metadata
 WHERE batch_name = :batch AND status = 'RUNNING' ORDER BY execution_id
"""
REAP = """
UPDATE batch_execution_metadata e
   SET status = 'INTERRUPTED', end_time = coalesce(heartbeat_at, now()), note = :note,
       calls_used = (SELECT coalesce(sum(q.calls), 0) FROM search_query q
                     WHERE q.run_id = e.execution_id)
 WHERE execution_id = ANY(CAST(:dead AS text[])) AND status = 'RUNNING'
RETURNING execution_id
"""
NOT_ENDED_IN_DAGSTER = """
SELECT execution_id FROM batch_execution_metadata
 WHERE batch_name = :batch AND status = 'INTERRUPTED' AND dagster_ended_at IS NULL ORDER BY id
"""
KNOWN = """
SELECT execution_id FROM batch_execution_metadata
 WHERE execution_id = ANY(CAST(:run_ids AS text[]))
"""
ENDED_IN_DAGSTER = """
UPDATE batch_execution_metadata SET dagster_ended_at = now()
 WHERE execution_id = ANY(CAST(:ended AS text[])) AND dagster_ended_at IS NULL
RETURNING execution_id, note
"""
# Notes of runs that did not end by themselves.
HEARTBEAT_LOST = "the run stopped without a word"
RELEASED = "declared dead by `mohe release`"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReapResult:
    """Runs declared dead now, and the regions reclaimed from them."""

    dead_runs: tuple[str, ...]
    regions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Executions:
    """The runs of one batch."""

    database: Database
    scope: Scope
    lease_seconds: float

    def start(self, run_id: str, *, total: int = 0) -> None:
        """Add a RUNNING row for this process; a Dagster run that starts again takes over its
        row.
        """
        process = Process.current()

        def work(connection: Connection) -> None:
            values = {
                "host": process.host,
                "process_id": process.process_id,
                "process_started": process.process_started,
            }
            connection.execute(
                statement(START), {"batch": self.scope.batch_name, "run_id": run_id, **values}
            )
            self.tally(connection, run_id, total=total)

        self.database.transaction(work)

    def expect(self, run_id: str, total: int) -> None:
        """Record the number of regions that the run is going to collect, as known now."""
        self.database.transaction(lambda connection: self.tally(connection, run_id, total=total))

    def heartbeat(self, run_id: str) -> bool:
        """Renew the heartbeat; False when the run was declared dead and has to end."""
        return bool(
            self.database.transaction(
                lambda c: c.execute(statement(HEARTBEAT), {"run_id": run_id}).rowcount
            )
        )

    def tally(self, connection: Connection, run_id: str, *, total: int = 0) -> None:
        """Derive the run's totals, in the transaction that changes them."""
        connection.execute(statement(TALLY), {"run_id": run_id, "total": total})

    def finish(self, run_id: str, ending: Ending, note: str | None = None) -> bool:
        """End the row with its final totals; False when the run had been declared dead."""

        def work(connection: Connection) -> bool:
            self.tally(connection, run_id)
            done = connection.execute(
                statement(FINISH), {"run_id": run_id, "status": ending.value, "note": note}
            )
            return bool(done.rowcount)

        return self.database.transaction(work)

    def reap_dead_runs(
        self,
        checkpoints: Checkpoints,
        *,
        over: Callable[[Collection[str]], Collection[str]] | None = None,
        own_run: str | None = None,
    ) -> ReapResult:
        """Declare dead runs INTERRUPTED and reclaim their regions, and any region whose lease
        expired.

        A run is dead if its heartbeat is older than the lease, this host knows that its process is
        gone, or `over` returns it from the run ids in doubt. `own_run` is never dead.
        """

        def work(connection: Connection) -> ReapResult:
            suspects = rows(
                connection, SUSPECTS, batch=self.scope.batch_name, lease_seconds=self.lease_seconds
            )
            dead = {row["execution_id"] for row in suspects if row["silent"] or _process_gone(row)}
            doubtful = {row["execution_id"] for row in suspects} - dead
            if over is not None and doubtful:
                dead |= set(over(sorted(doubtful)))
            dead.discard(own_run or "")
            return _reap(connection, checkpoints, dead, note=HEARTBEAT_LOST)

        return self.database.transaction(work)

    def declare_dead(self, run_id: str, checkpoints: Checkpoints) -> ReapResult:
        """Declare the run INTERRUPTED on a person's request: if it lives, it notices and ends."""
        return self.database.transaction(lambda c: _reap(c, checkpoints, {run_id}, note=RELEASED))

    def running(self) -> list[str]:
        """Return the unfinished runs, dead or alive."""
        found = self.database.transaction(lambda c: rows(c, RUNNING, batch=self.scope.batch_name))
        return [str(row["execution_id"]) for row in found]

    def known(self, run_ids: Collection[str]) -> set[str]:
        """Return those of the runs that have a row, with any status."""
        found = self.database.transaction(lambda c: rows(c, KNOWN, run_ids=sorted(run_ids)))
        return {str(row["execution_id"]) for row in found}

    def not_ended_in_dagster(self) -> list[str]:
        """Return interrupted runs that Dagster may still show as running."""
        return self.database.transaction(
            lambda c: [
                row["execution_id"]
                for row in rows(c, NOT_ENDED_IN_DAGSTER, batch=self.scope.batch_name)
            ]
        )

    def mark_ended_in_dagster(self, run_ids: Collection[str]) -> list[str]:
        """These runs hold no queue slot any more. Return those that were stopped in order and are
        marked for the first time: their interruption has not been reported as a death.
        """
        marked = self.database.transaction(
            lambda c: rows(c, ENDED_IN_DAGSTER, ended=sorted(run_ids))
        )
        reported = (HEARTBEAT_LOST, RELEASED)
        return sorted(row["execution_id"] for row in marked if row["note"] not in reported)


def _reap(
    connection: Connection, checkpoints: Checkpoints, dead: Collection[str], *, note: str
) -> ReapResult:
    # Checkpoints before executions: the lock order of the whole store.
    regions = checkpoints.reclaim(connection, dead)
    reaped = rows(connection, REAP, dead=sorted(dead), note=note)
    return ReapResult(
        dead_runs=tuple(row["execution_id"] for row in reaped), regions=tuple(regions)
    )


def _process_gone(row: dict[str, object]) -> bool:
    host, process_id, started = row["host"], row["process_id"], row["process_started"]
    if (
        not isinstance(host, str)
        or not isinstance(process_id, int)
        or not isinstance(started, float)
    ):
        return False
    return Process(host=host, process_id=process_id, process_started=started).gone
