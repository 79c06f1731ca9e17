"""The checkpoint state machine of `batch_checkpoint`: every transition once, named, guarded, in SQL.

                      seed, new_round
                             │
             ┌───────────────▼──┐   claim    ┌────────────┐  complete   ┌───────────┐
             │     PENDING      ├───────────▶│ PROCESSING ├────────────▶│ COMPLETED │
             └───▲────────▲─────┘            └┬─▲──┬──┬─▲─┘             └─────┬─────┘
                 │        └───── release ─────┘ │  │  │ └── claim afresh ─────┘
                 │               reclaim        └──┘  │     (a person asks: round + 1)
                 │                            advance │ fail
                 │ retry (a person)   ┌────────┐      │
                 └────────────────────┤ FAILED │◀─────┘
                                      └───┬────┘
                                          └── claim, once retry_at has come ──▶ PROCESSING

COMPLETED also becomes PROCESSING with `refining` set, for more searches than the base plan has, and always goes back to
COMPLETED: store/refinement.py. COMPLETED becomes PENDING again by new_round, and by replan when the base plan changed.

`attempt` is the fencing token. A claim raises it, and advance, complete, fail and release are guarded by
`attempt = :mine AND status = 'PROCESSING'`: a worker that slept through its lease can write nothing, neither places nor
status. The lease (`lease_expires_at`) says until when a holder that is not heard of is believed to live.

COMPLETED means that every search of the plan is in the ledger, and is checked against it by the same statement.
Counters are derived from the ledger, never incremented. Times are the database's, so clocks of hosts do not matter.

Lock order everywhere: the list lock (store/lifecycle.py), places, search_query, batch_checkpoint, batch_execution_metadata.
"""

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, text

from mohe_assets.errors import FailureKind, LeaseLost
from mohe_assets.search_plan import Search, plan_digest
from mohe_assets.store.database import Database, rows

RETRY_CAP_SECONDS = 6 * 3600


class Status(StrEnum):
    """The four statuses, exactly; the CHECK constraint of sql/002_checkpoints.sql has the same."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A region held by this run. `attempt` is the fencing token, `round` which collection of the region this is."""

    region_code: str
    region_name: str
    partition_key: str
    attempt: int
    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """A completed region as its checkpoint and ledger tell it. `seconds` is from first claim of the round to completion."""

    region_code: str
    region_name: str
    partition_key: str
    attempt: int
    round: int
    run_id: str
    places: int
    places_new: int
    strays: int
    searches: int
    refinements: int
    saturated: int
    set_aside: int
    calls: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A region's status and its last holder."""

    region_code: str
    region_name: str
    status: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Regions that are to be collected, by status. `given_up` are the FAILED ones that only a person tries again."""

    total: int
    completed: int
    failed: int
    processing: int
    pending: int
    given_up: int
    next_retry_at: dt.datetime | None


_ITS_LEDGER = """(q.batch_name, q.region_type, q.region_code, q.round)
                       = (c.batch_name, c.region_type, c.region_code, c.round)"""
# The region's ledger summed up; the ledger is the truth for all four.
LEDGER_COUNTERS = f"""
    searches_done = (SELECT count(*) FROM search_query q WHERE {_ITS_LEDGER} AND q.status <> 'FAILED'),
    calls_used = (SELECT coalesce(sum(q.calls), 0) FROM search_query q WHERE {_ITS_LEDGER}),
    refinements = (SELECT count(*) FROM search_query q WHERE {_ITS_LEDGER} AND q.status <> 'FAILED' AND q.stage <> 'base'),
    processed_count = (SELECT count(DISTINCT p) FROM search_query q, unnest(q.place_ids) p WHERE {_ITS_LEDGER})
"""
MINE = """c.batch_name = :batch AND c.region_type = :type AND c.region_code = :code
           AND c.attempt = :attempt AND c.status = 'PROCESSING'"""
OURS = "c.batch_name = :batch AND c.region_type = :type"
LEASE_END = "now() + make_interval(secs => :lease_seconds)"
COLLECTABLE = """EXISTS (SELECT FROM region r WHERE r.region_type = c.region_type AND r.region_code = c.region_code
                          AND r.status = 'ACTIVE' AND r.is_leaf)"""

# A region in a new life begins a new round; whoever held it in the one before is fenced off.
_REBORN = "known.life <> excluded.life"
_ANEW = ", ".join(
    f"{column} = CASE WHEN {_REBORN} THEN {anew} ELSE known.{column} END"
    for column, anew in {
        "status": "'PENDING'", "round": "known.round + 1", "attempt": "known.attempt + 1", "lease_expires_at": "NULL",
        "start_time": "NULL", "end_time": "NULL", "processed_count": "0", "searches_done": "0", "calls_used": "0",
        "failures": "0", "retry_at": "NULL", "error_message": "NULL", "failure_kind": "NULL", "reported_at": "NULL",
        "refining": "false", "refinements": "0", "promise": "0",
    }.items()
)  # fmt: skip
SEED = f"""
INSERT INTO batch_checkpoint AS known (batch_name, region_type, region_code, region_name, parent_code, life)
SELECT :batch, r.region_type, r.region_code, r.region_name, r.parent_code, r.life
  FROM region r WHERE r.region_type = :type AND r.is_leaf AND r.status = 'ACTIVE'
ON CONFLICT (batch_name, region_type, region_code) DO UPDATE
   SET region_name = excluded.region_name, parent_code = excluded.parent_code, life = excluded.life, {_ANEW}
 WHERE (known.region_name, known.parent_code, known.life)
       IS DISTINCT FROM (excluded.region_name, excluded.parent_code, excluded.life)
RETURNING (xmax = 0) AS seeded
"""

# SKIP LOCKED: two runs that claim at once take different regions instead of waiting for each other.
# A run that was declared dead while it slept takes nothing when it wakes, not even before it hears of it.
# One statement per status, tried in this order: each has an index that gives its first row at once, however many regions.
# The last takes a region from its refinement, which is fenced off and loses one search at most; it waits for the row,
# which the refinement locks for milliseconds, because a person's wish must not be lost to that.
_CLAIMABLE = (
    ("c.status = 'PENDING'", "SKIP LOCKED"),
    ("c.status = 'FAILED' AND (:by_person OR c.retry_at <= now())", "SKIP LOCKED"),
    ("c.status = 'COMPLETED' AND c.end_time < CAST(:afresh_before AS timestamptz)", "SKIP LOCKED"),
    ("c.status = 'PROCESSING' AND c.refining AND c.end_time < CAST(:afresh_before AS timestamptz)", ""),
)
_CLAIM = f"""
WITH due AS (
    SELECT c.id, c.status = 'COMPLETED' OR c.refining AS afresh FROM batch_checkpoint c
     WHERE {OURS} AND {COLLECTABLE}
       AND (:any_code OR c.region_code = ANY(CAST(:codes AS text[]))) AND NOT c.region_code = ANY(CAST(:without AS text[]))
       AND %s
       AND NOT EXISTS (SELECT FROM batch_execution_metadata e WHERE e.execution_id = :run_id AND e.status <> 'RUNNING')
     ORDER BY c.failures, c.region_code
     LIMIT :limit FOR UPDATE OF c %s
)
UPDATE batch_checkpoint c
   SET status = 'PROCESSING', attempt = c.attempt + 1, run_id = :run_id, lease_expires_at = {LEASE_END},
       round = c.round + due.afresh::int, refining = false,
       promise = CASE WHEN due.afresh THEN 0 ELSE c.promise END,
       refinements = CASE WHEN due.afresh THEN 0 ELSE c.refinements END,
       searches_done = CASE WHEN due.afresh THEN 0 ELSE c.searches_done END,
       calls_used = CASE WHEN due.afresh THEN 0 ELSE c.calls_used END,
       processed_count = CASE WHEN due.afresh THEN 0 ELSE c.processed_count END,
       reported_at = CASE WHEN due.afresh THEN NULL ELSE c.reported_at END,
       start_time = CASE WHEN due.afresh THEN now() ELSE coalesce(c.start_time, now()) END,
       end_time = NULL, retry_at = NULL
  FROM due, region r
 WHERE c.id = due.id AND r.region_type = c.region_type AND r.region_code = c.region_code
RETURNING c.region_code, c.region_name, r.partition_key, c.attempt, c.round
"""
CLAIM = tuple(_CLAIM % (condition, locking) for condition, locking in _CLAIMABLE)
CLAIM_DUE = CLAIM[:2]

# A region abolished meanwhile is nobody's: what its holder writes next finds the lease lost.
MINE_ALIVE = f"{MINE} AND {COLLECTABLE}"

ADVANCE = f"UPDATE batch_checkpoint c SET lease_expires_at = {LEASE_END}, {LEDGER_COUNTERS} WHERE {MINE_ALIVE}"

RENEW = f"""
UPDATE batch_checkpoint c SET lease_expires_at = {LEASE_END}
  FROM unnest(CAST(:codes AS text[]), CAST(:attempts AS integer[])) AS held (code, attempt)
 WHERE {OURS} AND c.region_code = held.code AND c.attempt = held.attempt AND c.status = 'PROCESSING'
"""

COMPLETE = f"""
UPDATE batch_checkpoint c
   SET status = 'COMPLETED', refining = false, end_time = now(), lease_expires_at = NULL, error_message = NULL,
       failure_kind = NULL, retry_at = NULL, failures = 0, reported_at = NULL, promise = :promise, plan = :plan, {LEDGER_COUNTERS}
 WHERE {MINE_ALIVE}
   AND NOT EXISTS (
        SELECT FROM unnest(CAST(:queries AS text[]), CAST(:sorts AS text[])) AS plan (query, sort)
         WHERE NOT EXISTS (SELECT FROM search_query q
                            WHERE {_ITS_LEDGER} AND (q.query, q.sort) = (plan.query, plan.sort) AND q.status <> 'FAILED'))
"""
COMPLETED_BY_ME = f"""
SELECT 1 FROM batch_checkpoint c WHERE {OURS} AND c.region_code = :code AND c.attempt = :attempt AND c.status = 'COMPLETED'
"""

# Back-off doubles with every failure in a row; at the last attempt retry_at stays NULL and only a person asks again.
# A refinement that fails leaves its region COMPLETED, with the reason; one that is given up promises nothing more.
FAIL = f"""
UPDATE batch_checkpoint c
   SET status = CASE WHEN c.refining THEN 'COMPLETED' ELSE 'FAILED' END, refining = false,
       end_time = CASE WHEN c.refining THEN c.end_time ELSE now() END,
       promise = CASE WHEN :final OR c.failures + 1 >= :max_attempts THEN 0 ELSE c.promise END,
       lease_expires_at = NULL, error_message = :message, failure_kind = :kind,
       failures = c.failures + 1,
       retry_at = CASE WHEN :final OR c.failures + 1 >= :max_attempts THEN NULL
                       ELSE now() + make_interval(
                           secs => least(:cap_seconds, :backoff_seconds * power(2, least(c.failures, 30)))) END,
       {LEDGER_COUNTERS}
 WHERE {MINE_ALIVE}
"""

# A refinement is fenced off besides: back to COMPLETED by somebody else looks like completed by itself.
_BACK = """status = CASE WHEN c.refining THEN 'COMPLETED' ELSE 'PENDING' END, refining = false, lease_expires_at = NULL,
       attempt = c.attempt + c.refining::int"""
RELEASE = f"UPDATE batch_checkpoint c SET {_BACK} WHERE {MINE}"

# A region whose lease ran out, or whose holder is known to be dead before that.
# Rows that are locked are left for the next look: by a worker that is storing, or by one frozen in the middle of it.
RECLAIM = f"""
WITH lost AS (
    SELECT c.id FROM batch_checkpoint c
     WHERE {OURS} AND c.status = 'PROCESSING'
       AND (c.lease_expires_at IS NULL OR c.lease_expires_at < now() OR c.run_id = ANY(CAST(:dead_runs AS text[])))
       FOR UPDATE SKIP LOCKED
)
UPDATE batch_checkpoint c SET {_BACK} FROM lost WHERE c.id = lost.id
RETURNING c.region_code
"""

RETRY = f"""
UPDATE batch_checkpoint c SET status = 'PENDING', failures = 0, retry_at = NULL, end_time = NULL
 WHERE {OURS} AND c.status = 'FAILED' AND (:any_code OR c.region_code = ANY(CAST(:codes AS text[])))
RETURNING c.region_code
"""

# A region that is being refined begins the round, too: its refinement finds its lease lost.
NEW_ROUND = f"""
UPDATE batch_checkpoint c
   SET status = 'PENDING', refining = false, refinements = 0, promise = 0, lease_expires_at = NULL,
       round = c.round + 1, start_time = NULL, end_time = NULL, processed_count = 0,
       searches_done = 0, calls_used = 0, failures = 0, retry_at = NULL,
       error_message = NULL, failure_kind = NULL, reported_at = NULL
 WHERE {OURS} AND {COLLECTABLE} AND (c.status = 'COMPLETED' OR c.refining OR :also_unfinished AND c.status <> 'PROCESSING')
RETURNING c.region_code
"""

# Regions completed with another base plan are due again, in the same round: what their ledger has is not asked again.
# Those of the batch system have no plan, and are left as they are.
REPLAN = f"""
UPDATE batch_checkpoint c SET status = 'PENDING', refining = false, lease_expires_at = NULL
 WHERE {OURS} AND {COLLECTABLE} AND (c.status = 'COMPLETED' OR c.refining) AND c.plan <> :plan
RETURNING c.region_code
"""

COMPLETIONS = f"""
SELECT c.region_code, c.region_name, r.partition_key, c.attempt, c.round, coalesce(c.run_id, '') AS run_id,
       c.processed_count AS places, c.searches_done AS searches, c.refinements, c.calls_used AS calls,
       coalesce(extract(epoch FROM c.end_time - c.start_time), 0)::float AS seconds,
       coalesce(l.places_new, 0) AS places_new, coalesce(l.strays, 0) AS strays,
       coalesce(l.saturated, 0) AS saturated, coalesce(l.set_aside, 0) AS set_aside
  FROM batch_checkpoint c
  JOIN region r ON r.region_type = c.region_type AND r.region_code = c.region_code
  LEFT JOIN LATERAL (
        SELECT sum(q.new_places) AS places_new, sum(q.strays) AS strays, sum(jsonb_array_length(q.set_aside)) AS set_aside,
               count(*) FILTER (WHERE q.result_count >= 5) AS saturated
          FROM search_query q
         WHERE {_ITS_LEDGER}) l ON true
 WHERE {OURS} AND c.status = 'COMPLETED' AND (:any_code OR c.region_code = ANY(CAST(:codes AS text[])))
   AND (:reported_too OR c.reported_at IS NULL
        AND NOT EXISTS (SELECT FROM batch_execution_metadata e WHERE e.execution_id = c.run_id AND e.status = 'RUNNING'))
 ORDER BY c.region_code
"""

DUE = f"""
SELECT count(*) AS due FROM batch_checkpoint c
 WHERE {OURS} AND {COLLECTABLE} AND (c.status = 'PENDING' OR c.status = 'FAILED' AND c.retry_at <= now())
"""
DUE_KEYS = f"""
SELECT r.partition_key FROM batch_checkpoint c
  JOIN region r ON r.region_type = c.region_type AND r.region_code = c.region_code AND r.status = 'ACTIVE' AND r.is_leaf
 WHERE {OURS} AND (c.status = 'PENDING' OR c.status = 'FAILED' AND c.retry_at <= now())
"""
RESET = (
    "DELETE FROM places WHERE region_type = :type",
    "DELETE FROM search_query WHERE batch_name = :batch AND region_type = :type",
    "DELETE FROM batch_checkpoint WHERE batch_name = :batch AND region_type = :type",
)
PROGRESS = f"""
SELECT count(*) AS total, count(*) FILTER (WHERE c.status = 'COMPLETED') AS completed,
       count(*) FILTER (WHERE c.status = 'FAILED') AS failed, count(*) FILTER (WHERE c.status = 'PROCESSING') AS processing,
       count(*) FILTER (WHERE c.status = 'PENDING') AS pending,
       count(*) FILTER (WHERE c.status = 'FAILED' AND c.retry_at IS NULL) AS given_up,
       min(c.retry_at) FILTER (WHERE c.status = 'FAILED') AS next_retry_at
  FROM batch_checkpoint c WHERE {OURS} AND {COLLECTABLE}
"""

STANDING = f"""
SELECT c.region_code, c.region_name, c.status, coalesce(c.run_id, '') AS run_id FROM batch_checkpoint c
 WHERE {OURS} AND c.region_code = ANY(CAST(:codes AS text[])) ORDER BY c.region_code
"""

MARK_REPORTED = f"""
UPDATE batch_checkpoint c SET reported_at = now()
  FROM unnest(CAST(:codes AS text[]), CAST(:attempts AS integer[])) AS told (code, attempt)
 WHERE {OURS} AND c.region_code = told.code AND c.attempt = told.attempt AND c.status = 'COMPLETED'
"""


# What else belongs into the same transaction: the run's totals.
Also = Callable[[Connection], None]


def _nothing_else(_: Connection) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one batch and region type. Every method is one transaction, or takes part in the caller's."""

    database: Database
    batch_name: str
    region_type: str
    lease_seconds: float
    max_attempts: int = 5
    backoff_seconds: float = 60

    def _run(self, sql: str, **values: object) -> int:
        return self.database.transact(lambda connection: self._count(connection, sql, **values))

    def _count(self, connection: Connection, sql: str, **values: object) -> int:
        return connection.execute(text(sql), {**self._scope, **values}).rowcount

    def _select(self, sql: str, **values: object) -> list[dict[str, object]]:
        return self.database.transact(lambda connection: rows(connection, sql, **{**self._scope, **values}))

    @property
    def _scope(self) -> dict[str, object]:
        return {"batch": self.batch_name, "type": self.region_type}

    def seed(self, connection: Connection) -> int:
        """A PENDING row for every active leaf region that has none; returns how many were new."""
        return sum(bool(row["seeded"]) for row in rows(connection, SEED, **self._scope))

    def claim(
        self,
        run_id: str,
        *,
        limit: int = 1,
        codes: Collection[str] | None = None,
        without: Collection[str] = (),
        by_person: bool = False,
        afresh_before: dt.datetime | None = None,
    ) -> list[Lease]:
        """Takes up to `limit` due regions for the run, or nothing.

        `by_person` also takes FAILED regions before their time, `afresh_before` also those COMPLETED before that moment, with
        a new round: what was completed since it was asked for is fresh already.
        """
        values = {
            "run_id": run_id, "any_code": codes is None, "codes": sorted(codes or ()), "without": sorted(without),
            "by_person": by_person, "afresh_before": afresh_before, "lease_seconds": self.lease_seconds,
        }  # fmt: skip
        found: list[dict[str, object]] = []
        for sql in CLAIM if afresh_before is not None else CLAIM_DUE:
            if len(found) < limit:
                found += self._select(sql, limit=limit - len(found), **values)
        return sorted((Lease(**row) for row in found), key=lambda lease: lease.region_code)  # type: ignore[arg-type]

    def advance(self, connection: Connection, lease: Lease) -> None:
        """Renews the lease and derives the counters, last in a search's transaction. Raises LeaseLost."""
        if not self._count(connection, ADVANCE, **_guard(lease), lease_seconds=self.lease_seconds):
            raise LeaseLost(
                f"{lease.region_name} is held by another run, or was abolished, since attempt {lease.attempt} lost its lease."
            )

    def renew(self, leases: Collection[Lease]) -> int:
        """Renews the leases still held; returns how many were."""
        if not leases:
            return 0
        return self._run(RENEW, **_codes_and_attempts(leases), lease_seconds=self.lease_seconds)

    def complete(self, lease: Lease, plan: Sequence[Search], *, promise: float = 0.0, also: Also = _nothing_else) -> None:
        """PROCESSING → COMPLETED if the ledger has every search of the plan. Raises LeaseLost.

        `promise` is the number of new places expected of the region's first refinement.

        A repeat after a connection lost while committing finds its own work done, and is content.
        """

        def work(connection: Connection) -> bool:
            values = {"queries": [search.query for search in plan], "sorts": [search.sort.value for search in plan]}
            known = {"promise": promise, "plan": plan_digest(plan)}
            done = self._count(connection, COMPLETE, **_guard(lease), **values, **known)
            also(connection)
            return bool(done or rows(connection, COMPLETED_BY_ME, **self._scope, **_guard(lease)))

        if not self.database.transact(work):
            raise LeaseLost(f"{lease.region_name} cannot be completed by attempt {lease.attempt}: it does not hold it.")

    def fail(self, lease: Lease, *, kind: FailureKind, message: str, final: bool = False, also: Also = _nothing_else) -> bool:
        """PROCESSING → FAILED with the reason; `final` allows no further attempt by itself. False: the lease was lost."""

        def work(connection: Connection) -> bool:
            done = self._count(
                connection, FAIL, **_guard(lease), kind=kind.value, message=message, final=final,
                max_attempts=self.max_attempts, backoff_seconds=self.backoff_seconds, cap_seconds=RETRY_CAP_SECONDS,
            )  # fmt: skip
            also(connection)
            return bool(done)

        return self.database.transact(work)

    def release(self, lease: Lease) -> bool:
        """PROCESSING → PENDING, nothing went wrong. False: the lease was lost."""
        return bool(self._run(RELEASE, **_guard(lease)))

    def reclaim(self, connection: Connection, dead_runs: Collection[str]) -> list[str]:
        """PROCESSING → PENDING for expired leases and for regions of dead runs; returns the region codes."""
        return [row["region_code"] for row in rows(connection, RECLAIM, **self._scope, dead_runs=sorted(dead_runs))]

    def retry(self, codes: Collection[str] | None = None) -> list[str]:
        """FAILED → PENDING because a person asks; all of them without `codes`."""
        return [str(row["region_code"]) for row in self._select(RETRY, any_code=codes is None, codes=sorted(codes or ()))]

    def new_round(self, *, also_unfinished: bool = False) -> list[str]:
        """COMPLETED → PENDING with a new round of searches; `also_unfinished` starts PENDING and FAILED anew too."""
        return [str(row["region_code"]) for row in self._select(NEW_ROUND, also_unfinished=also_unfinished)]

    def replan(self, digest: str) -> list[str]:
        """COMPLETED → PENDING where the base plan was another than that of this digest; the round stays."""
        return [str(row["region_code"]) for row in self._select(REPLAN, plan=digest)]

    def completions(self, codes: Collection[str] | None = None, *, reported_too: bool = False) -> list[Completion]:
        """Completed regions, by default those that Dagster was not told of and whose run is over, so that nobody will."""
        found = self._select(COMPLETIONS, any_code=codes is None, codes=sorted(codes or ()), reported_too=reported_too)
        return [Completion(**row) for row in found]  # type: ignore[arg-type]

    def reset(self) -> int:
        """Deletes the batch's checkpoints, searches and places, and seeds PENDING ones again; returns how many.

        Places belong to a region type, not to a batch: those of other batches over the same regions go, too.
        """

        def work(connection: Connection) -> int:
            for sql in RESET:
                self._count(connection, sql)
            return self.seed(connection)

        return self.database.transact(work)

    def due_keys(self) -> set[str]:
        """Partition keys of the regions a run would take now without a person's wish."""
        return {str(row["partition_key"]) for row in self._select(DUE_KEYS)}

    def due(self) -> int:
        """How many regions a run would take now without a person's wish."""
        return int(str(self._select(DUE)[0]["due"]))

    def progress(self) -> Progress:
        """How far the collection is."""
        return Progress(**self._select(PROGRESS)[0])  # type: ignore[arg-type]

    def standing(self, codes: Collection[str]) -> list[Standing]:
        """How these regions stand, by code; a code without a checkpoint is missing from it."""
        return [Standing(**row) for row in self._select(STANDING, codes=sorted(codes))]  # type: ignore[arg-type]

    def mark_reported(self, completions: Collection[Completion]) -> None:
        """Dagster has the events of these completions."""
        if completions:
            self._run(MARK_REPORTED, **_codes_and_attempts(completions))


def _guard(lease: Lease) -> dict[str, object]:
    return {"code": lease.region_code, "attempt": lease.attempt}


def _codes_and_attempts(held: Collection[Lease] | Collection[Completion]) -> dict[str, object]:
    return {"codes": [one.region_code for one in held], "attempts": [one.attempt for one in held]}
