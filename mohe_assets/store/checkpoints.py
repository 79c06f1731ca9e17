"""The checkpoint state machine of `batch_checkpoint`: every transition once, named, guarded; their
SQL: transitions.py.

                      seed, new_round
                             │
             ┌───────────────▼──┐   claim    ┌────────────┐  complete   ┌───────────┐
             │     PENDING      ├───────────▶│ PROCESSING ├────────────▶│ COMPLETED │
             └───▲────────▲─────┘            └┬─▲──┬──┬─▲─┘             └─────┬─────┘
                 │        └───── release ─────┘ │  │  │ └── claim again ──────┘
                 │               reclaim        └──┘  │     (a person asks: round + 1)
                 │                            advance │ fail
                 │ retry (a person)   ┌────────┐      │
                 └────────────────────┤ FAILED │◀─────┘
                                      └───┬────┘
                                          └── claim, once retry_at has come ──▶ PROCESSING

COMPLETED also becomes PROCESSING with `refining` set, for more searches than the base plan has, and
always returns to COMPLETED: store/refinement.py. COMPLETED becomes PENDING again by new_round,
and by reopen_outdated when the base plan changed.

`attempt` is the fencing token. A claim raises it, and advance, complete, fail and release are
guarded by `attempt = :mine AND status = 'PROCESSING'`: a worker that slept through its lease can
write nothing, neither places nor status. Until the lease ends (`lease_expires_at`), a silent holder
counts as alive.

COMPLETED means that every search of the plan is in the ledger, and is checked against it by the
same statement. Counters are derived from the ledger, never incremented. Times are the database's,
so clocks of hosts do not matter.

Lock order everywhere: the list lock (store/region_lifecycle.py), places, search_query,
batch_checkpoint, batch_execution_metadata.
"""

import datetime as dt
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from mohe_assets.domain.search_plan import Search, plan_digest
from mohe_assets.errors import FailureKind, LeaseLost
from mohe_assets.store.database import Database, Scope, rows, statement
from mohe_assets.store.transitions import (
    CLAIM,
    CLAIM_DUE,
    COMPLETE,
    COMPLETED_BY_THEM,
    COMPLETIONS,
    DUE,
    DUE_KEYS,
    FAIL,
    FORCE_RELEASE,
    MARK_REPORTED,
    NEW_ROUND,
    PROGRESS,
    RECLAIM,
    RELEASE,
    RENEW,
    REOPEN_OUTDATED,
    RESET,
    RESTORE_REFINEMENT,
    RETRY,
    SEED,
    SEED_MISSING,
    STATUSES,
)

RETRY_CAP_SECONDS = 6 * 3600


class Status(StrEnum):
    """The four statuses, exactly; the CHECK constraint of sql/002_checkpoints.sql has the same."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A region held by this run.

    `attempt` is the fencing token, `round` the number of the region's collection; `failures` in a
    row came before this attempt.
    """

    region_code: str
    region_name: str
    partition_key: str
    attempt: int
    round: int
    failures: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanDone:
    """A held region whose plan is done; `expected_gain` is that of its first refinement."""

    lease: Lease
    plan: Sequence[Search]
    expected_gain: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """A completed region, from its checkpoint and ledger. `seconds` is from the first claim of the
    round to completion.
    """

    region_code: str
    region_name: str
    partition_key: str
    attempt: int
    round: int
    run_id: str
    places: int
    places_new: int
    out_of_region: int
    searches: int
    refinements: int
    saturated: int
    set_aside: int
    calls: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionStatus:
    """A region's status, its last holder, and when its round was completed."""

    region_code: str
    region_name: str
    status: str
    run_id: str
    end_time: dt.datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Regions to be collected, by status. `given_up` are FAILED and only retried by a person.

    `refining` are PROCESSING, were completed before and get more searches.
    """

    total: int
    completed: int
    failed: int
    processing: int
    refining: int
    pending: int
    given_up: int
    next_retry_at: dt.datetime | None


# Extra work in the same transaction: the run's totals.
Also = Callable[[Connection], None]


def _nothing_else(_: Connection) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one batch and region type. Every method is one transaction, or part of the
    caller's.
    """

    database: Database
    scope: Scope
    lease_seconds: float
    max_attempts: int = 5
    backoff_seconds: float = 60

    def _run(self, sql: str, **values: object) -> int:
        return self.database.transaction(lambda connection: self._count(connection, sql, **values))

    def _count(self, connection: Connection, sql: str, **values: object) -> int:
        return connection.execute(statement(sql), {**self.scope.values, **values}).rowcount

    def _select(self, sql: str, **values: object) -> list[dict[str, object]]:
        return self.database.transaction(
            lambda connection: rows(connection, sql, **{**self.scope.values, **values})
        )

    def seed(self, connection: Connection) -> int:
        """Add a PENDING row for every active leaf region without a row; return how many were
        new.
        """
        return sum(bool(row["seeded"]) for row in rows(connection, SEED, **self.scope.values))

    def seed_missing(self) -> int:
        """As `seed`, only for regions without a row: cheap when there are none, so it may run at
        any time.
        """
        return self._run(SEED_MISSING)

    def claim(
        self,
        run_id: str,
        *,
        limit: int = 1,
        codes: Collection[str] | None = None,
        without: Collection[str] = (),
        force_retry: bool = False,
        recollect_completed_before: dt.datetime | None = None,
    ) -> list[Lease]:
        """Claim up to `limit` due regions for the run.

        `force_retry` also claims FAILED regions before their time, `recollect_completed_before`
        those COMPLETED before that moment, with a new round: regions completed since the request
        are new already.
        """
        values = {
            "run_id": run_id,
            "any_code": codes is None,
            "codes": sorted(codes or ()),
            "without": sorted(without),
            "force_retry": force_retry,
            "recollect_completed_before": recollect_completed_before,
            "lease_seconds": self.lease_seconds,
        }
        found: list[dict[str, object]] = []
        for sql in CLAIM if recollect_completed_before is not None else CLAIM_DUE:
            if len(found) < limit:
                found += self._select(sql, limit=limit - len(found), **values)
        return sorted((Lease(**row) for row in found), key=lambda lease: lease.region_code)  # type: ignore[arg-type]

    def renew(self, leases: Collection[Lease]) -> int:
        """Renew the leases still held; return how many were."""
        if not leases:
            return 0
        return self._run(RENEW, **_codes_and_attempts(leases), lease_seconds=self.lease_seconds)

    def complete(
        self, done: Sequence[PlanDone], *, also: Also = _nothing_else
    ) -> list[Completion | Exception]:
        """PROCESSING → COMPLETED where the ledger has every search of the plan, all in one
        transaction; return the completion or LeaseLost of each, in order.

        A repeat after a connection lost while committing finds its own work done.
        """
        leases = [one.lease for one in done]

        def work(connection: Connection) -> dict[str, Completion]:
            connection.execute(
                statement(COMPLETE),
                {**self.scope.values, "done": json.dumps([_as_done(one) for one in done])},
            )
            also(connection)
            mine = rows(
                connection, COMPLETED_BY_THEM, **self.scope.values, **_codes_and_attempts(leases)
            )
            return {
                one.region_code: one
                for one in self._completions(connection, [row["region_code"] for row in mine])
            }

        completed = self.database.transaction(work)
        return [
            completed.get(lease.region_code)
            or LeaseLost(
                f"{lease.region_name} cannot be completed by attempt {lease.attempt}: "
                "it does not hold it."
            )
            for lease in leases
        ]

    def fail(
        self,
        lease: Lease,
        *,
        kind: FailureKind,
        message: str,
        final: bool = False,
        bounded_elsewhere: bool = False,
        also: Also = _nothing_else,
    ) -> bool:
        """PROCESSING → FAILED with the reason (a refinement: COMPLETED). False: the lease was lost.

        `final` allows no automatic attempt; `bounded_elsewhere` always does, because attempts are
        counted for each search.
        """

        def work(connection: Connection) -> bool:
            done = self._count(
                connection,
                FAIL,
                **_guard(lease),
                kind=kind.value,
                message=message,
                final=final,
                bounded_elsewhere=bounded_elsewhere,
                max_attempts=self.max_attempts,
                backoff_seconds=self.backoff_seconds,
                cap_seconds=RETRY_CAP_SECONDS,
            )
            also(connection)
            return bool(done)

        return self.database.transaction(work)

    def release(self, lease: Lease) -> bool:
        """PROCESSING → PENDING without a failure. False: the lease was lost."""
        return bool(self._run(RELEASE, **_guard(lease)))

    def reclaim(self, connection: Connection, dead_runs: Collection[str]) -> list[str]:
        """PROCESSING → PENDING for expired leases and regions of dead runs; return the region
        codes.
        """
        return [
            row["region_code"]
            for row in rows(
                connection,
                RECLAIM,
                **self.scope.values,
                dead_runs=sorted(dead_runs),
                lease_seconds=self.lease_seconds,
            )
        ]

    def force_release(self, codes: Collection[str]) -> list[str]:
        """PROCESSING → PENDING (a refinement: COMPLETED) on a person's request, whichever run holds
        it.
        """
        return self._changed(FORCE_RELEASE, codes=sorted(codes))

    def retry(self, codes: Collection[str] | None = None) -> list[str]:
        """FAILED → PENDING on a person's request; all without `codes`."""
        return self._changed(RETRY, any_code=codes is None, codes=sorted(codes or ()))

    def restore_refinement(self, codes: Collection[str] | None = None) -> list[str]:
        """Continue refinement that errors ended or delay, on a person's request; all without
        `codes`.
        """
        return self._changed(RESTORE_REFINEMENT, any_code=codes is None, codes=sorted(codes or ()))

    def new_round(
        self, codes: Collection[str] | None = None, *, also_unfinished: bool = False
    ) -> list[str]:
        """COMPLETED → PENDING with a new round of searches; `also_unfinished` includes PENDING and
        FAILED.
        """
        return self._changed(
            NEW_ROUND,
            any_code=codes is None,
            codes=sorted(codes or ()),
            also_unfinished=also_unfinished,
        )

    def _changed(self, sql: str, **values: object) -> list[str]:
        return sorted(str(row["region_code"]) for row in self._select(sql, **values))

    def reopen_outdated(self, digest: str) -> list[str]:
        """COMPLETED → PENDING where the base plan has another digest; the round stays."""
        return self._changed(REOPEN_OUTDATED, plan=digest)

    def completions(
        self, codes: Collection[str] | None = None, *, reported_too: bool = False
    ) -> list[Completion]:
        """Return completed regions, by default those that no run will report to Dagster."""
        return self.database.transaction(
            lambda c: self._completions(c, codes, reported_too=reported_too)
        )

    def _completions(
        self, connection: Connection, codes: Collection[str] | None, *, reported_too: bool = True
    ) -> list[Completion]:
        values = {
            "any_code": codes is None,
            "codes": sorted(codes or ()),
            "reported_too": reported_too,
        }
        return [
            Completion(**row)
            for row in rows(connection, COMPLETIONS, **self.scope.values, **values)
        ]

    def reset(self, *, before: Callable[[Connection], object] = _nothing_else) -> int:
        """Delete the batch's checkpoints, searches and places, and seed again; return the number
        seeded.

        Places belong to a region type, not to a batch: other batches over the same regions lose
        theirs, too. `before` is called first, in the same transaction.
        """

        def work(connection: Connection) -> int:
            before(connection)
            for sql in RESET:
                self._count(connection, sql)
            return self.seed(connection)

        return self.database.transaction(work)

    def due_keys(self) -> set[str]:
        """Return partition keys of the regions that a run would claim now without a person's
        request.
        """
        return {str(row["partition_key"]) for row in self._select(DUE_KEYS)}

    def due(self, *, without: Collection[str] = ()) -> int:
        """Return how many regions a run would claim now without a person's request."""
        return int(str(self._select(DUE, without=sorted(without))[0]["due"]))

    def progress(self) -> Progress:
        """Return the number of regions by status."""
        return Progress(**self._select(PROGRESS)[0])  # type: ignore[arg-type]

    def statuses(self, codes: Collection[str]) -> list[RegionStatus]:
        """Return the status of these regions, by code; codes without a checkpoint are left out."""
        return [RegionStatus(**row) for row in self._select(STATUSES, codes=sorted(codes))]  # type: ignore[arg-type]

    def mark_reported(self, completions: Collection[Completion]) -> None:
        """Record that Dagster has the events of these completions."""
        if completions:
            self._run(MARK_REPORTED, **_codes_and_attempts(completions))


def lease_lost(lease: Lease) -> LeaseLost:
    """Return the error of a worker whose fencing token is outdated."""
    return LeaseLost(
        f"{lease.region_name} is held by another run, or was abolished, "
        f"since attempt {lease.attempt} lost its lease."
    )


def _as_done(done: PlanDone) -> dict[str, object]:
    """Return the row that COMPLETE reads."""
    return {
        "code": done.lease.region_code,
        "attempt": done.lease.attempt,
        "promise": done.expected_gain,
        "plan": plan_digest(done.plan),
        "queries": [search.query for search in done.plan],
        "sorts": [search.sort for search in done.plan],
    }


def _guard(lease: Lease) -> dict[str, object]:
    return {"code": lease.region_code, "attempt": lease.attempt}


def _codes_and_attempts(held: Collection[Lease] | Collection[Completion]) -> dict[str, object]:
    return {"codes": [one.region_code for one in held], "attempts": [one.attempt for one in held]}
