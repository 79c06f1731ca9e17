"""Refinement: COMPLETED regions get a few more searches each, the highest expected gain first.

    COMPLETED ── claim ──▶ PROCESSING, refining ── settle ──▶ COMPLETED, with a new expected gain
                                 │   release, reclaim, fail ──▶ COMPLETED, with the old one
                                 └── recollect, new_round, reopen: the refinement lost its lease

Nothing is claimed while a region waits for its base plan. Between claim and settle the checkpoint's
own guards hold.
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection

from mohe_assets.errors import LeaseLost
from mohe_assets.store.checkpoints import Also, Checkpoints, Lease
from mohe_assets.store.database import rows, statement
from mohe_assets.store.transitions import (
    COLLECTABLE,
    COMPLETED_BY_THEM,
    LEASE_END,
    LEDGER_COUNTERS,
    MINE_ALIVE,
    OURS,
)

_REFINABLE = """c.status = 'COMPLETED' AND c.promise > 0 AND c.calls_used < :calls_per_region
           AND (c.retry_at IS NULL OR c.retry_at <= now())"""
_BASE_IS_DUE = f"""EXISTS (
    SELECT FROM batch_checkpoint c
     WHERE {OURS} AND {COLLECTABLE} AND (c.status = 'PENDING' OR c.status = 'FAILED'
                                         AND c.retry_at <= now()
                                         OR c.status = 'PROCESSING' AND NOT c.refining))"""

CLAIM = f"""
WITH best AS (
    SELECT c.id FROM batch_checkpoint c
     WHERE {OURS} AND {COLLECTABLE} AND {_REFINABLE}
       AND NOT c.region_code = ANY(CAST(:without AS text[]))
       AND NOT {_BASE_IS_DUE}
       AND NOT EXISTS (SELECT FROM batch_execution_metadata e WHERE e.execution_id = :run_id
                       AND e.status <> 'RUNNING')
     ORDER BY c.promise DESC, c.region_code
     LIMIT :limit FOR UPDATE OF c SKIP LOCKED
)
UPDATE batch_checkpoint c
   SET status = 'PROCESSING', refining = true, attempt = c.attempt + 1, run_id = :run_id,
       lease_expires_at = {LEASE_END},
       retry_at = NULL
  FROM best, region r
 WHERE c.id = best.id AND r.region_type = c.region_type AND r.region_code = c.region_code
RETURNING c.region_code, c.region_name, r.partition_key, c.attempt, c.round, c.failures
"""
SETTLE = f"""
UPDATE batch_checkpoint c
   SET status = 'COMPLETED', refining = false, lease_expires_at = NULL, error_message = NULL,
       failure_kind = NULL,
       failures = 0, promise = :promise, {LEDGER_COUNTERS}
 WHERE {MINE_ALIVE} AND c.refining
"""
NEXT_EXPECTED_GAIN = f"""
SELECT coalesce(max(c.promise), 0) AS promise FROM batch_checkpoint c WHERE {OURS} AND {_REFINABLE}
"""
BACKLOG = f"""
SELECT count(*) FILTER (WHERE {_REFINABLE}) AS regions,
       count(*) FILTER (WHERE c.refining) AS refining,
       coalesce(sum(c.refinements), 0)::int AS searches, {_BASE_IS_DUE} AS base_is_due,
       min(c.retry_at) AS next_retry_at
  FROM batch_checkpoint c WHERE {OURS} AND (c.status = 'COMPLETED' OR c.refining)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefinementBacklog:
    """The work left to refine: `regions` with an expected gain, `refining` those held, `searches`
    made.
    """

    regions: int
    refining: int
    searches: int
    base_is_due: bool
    next_retry_at: dt.datetime | None

    @property
    def has_work(self) -> bool:
        """Return whether a run that refines would find a region."""
        return self.regions > 0 and not self.base_is_due


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """Claims for refinement on one batch's checkpoints. `calls_per_region` bounds the calls of a
    round for a region.
    """

    checkpoints: Checkpoints
    calls_per_region: int

    def claim(self, run_id: str, limit: int = 1, *, without: Collection[str] = ()) -> list[Lease]:
        """Claim the regions with the highest expected gain; none while a base plan is due."""
        values = {
            "run_id": run_id,
            "limit": limit,
            "without": sorted(without),
            "lease_seconds": self.checkpoints.lease_seconds,
        }
        return [Lease(**row) for row in self._select(CLAIM, **values)]  # type: ignore[arg-type]

    def next_expected_gain(self) -> float:
        """Return the expected gain of the best region that is not held."""
        return float(str(self._select(NEXT_EXPECTED_GAIN)[0]["promise"]))

    def settle(self, lease: Lease, *, expected_gain: float, also: Also) -> None:
        """PROCESSING → COMPLETED with the expected gain of the next search; 0 ends the refinement.

        Raises LeaseLost.
        """

        def work(connection: Connection) -> int:
            guard = {"code": lease.region_code, "attempt": lease.attempt}
            mine = {"codes": [lease.region_code], "attempts": [lease.attempt]}
            done = connection.execute(
                statement(SETTLE), {**self._scope, **guard, "promise": expected_gain}
            ).rowcount
            also(connection)
            # After a connection that was lost while committing, its own work is done already.
            return done or len(rows(connection, COMPLETED_BY_THEM, **self._scope, **mine))

        if not self.checkpoints.database.transaction(work):
            raise LeaseLost(
                f"{lease.region_name} was taken over while attempt {lease.attempt} refined it."
            )

    def backlog(self) -> RefinementBacklog:
        """Return the backlog for the sensor by one statement."""
        return RefinementBacklog(**self._select(BACKLOG)[0])  # type: ignore[arg-type]

    @property
    def _scope(self) -> dict[str, object]:
        return {
            **self.checkpoints.scope.values,
            "calls_per_region": self.calls_per_region,
        }

    def _select(self, sql: str, **values: object) -> list[dict[str, object]]:
        return self.checkpoints.database.transaction(
            lambda connection: rows(connection, sql, **{**self._scope, **values})
        )
