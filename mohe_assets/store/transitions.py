"""The SQL of the checkpoint state machine: every transition once, named, guarded. Its meaning:
store/checkpoints.py.

Statements only; they are run, and their answers read, by the modules that import them. `advance` is
the end of store_search_results in sql/012_locks_and_digests.sql, with the places and the ledger
rows it belongs to.

Statements that lock several checkpoints do so in the order of their codes, as store_search_results,
or skip locked ones: no two of these statements wait for each other.
"""

from collections.abc import Mapping

from mohe_assets.domain.places import MAX_RESULTS

_ITS_LEDGER = """(q.batch_name, q.region_type, q.region_code, q.round)
                       = (c.batch_name, c.region_type, c.region_code, c.round)"""
# The region's ledger summed up, in sql/009_searches_together.sql.
LEDGER_COUNTERS = """(searches_done, calls_used, refinements, processed_count)
           = (SELECT l.searches_done, l.calls_used, l.refinements, l.processed_count
                FROM ledger_counters(c.batch_name, c.region_type, c.region_code, c.round) l)"""
MINE = """c.batch_name = :batch AND c.region_type = :type AND c.region_code = :code
           AND c.attempt = :attempt AND c.status = 'PROCESSING'"""
OURS = "c.batch_name = :batch AND c.region_type = :type"
# The time after the wait for the row's lock; `now()` is the start of the transaction.
LEASE_END = "clock_timestamp() + make_interval(secs => :lease_seconds)"
COLLECTABLE = """EXISTS (SELECT FROM region r
                        WHERE r.region_type = c.region_type AND r.region_code = c.region_code
                          AND r.status = 'ACTIVE' AND r.is_leaf)"""

# Columns that a new round of a region resets, for every statement that begins one.
_NEW_ROUND = {
    "round": "{row}.round + 1",
    **dict.fromkeys(
        ("refinements", "promise", "processed_count", "searches_done", "calls_used", "failures"),
        "0",
    ),
    **dict.fromkeys(("error_message", "failure_kind", "reported_at"), "NULL"),
}
_DUE_AGAIN = {
    "status": "'PENDING'",
    "refining": "false",
    **dict.fromkeys(("lease_expires_at", "start_time", "end_time", "retry_at"), "NULL"),
}


def _assignments(row: str, values: Mapping[str, str], *, when: str = "") -> str:
    """Return SQL that assigns these values to the columns of `row` where `when` holds."""
    new = {column: value.format(row=row) for column, value in values.items()}
    if not when:
        return ", ".join(f"{column} = {value}" for column, value in new.items())
    return ", ".join(
        f"{column} = CASE WHEN {when} THEN {value} ELSE {row}.{column} END"
        for column, value in new.items()
    )


# A region of a new generation begins a new round; an earlier holder is fenced off.
_REACTIVATED = _assignments(
    "known",
    {**_NEW_ROUND, **_DUE_AGAIN, "attempt": "{row}.attempt + 1"},
    when="known.life <> excluded.life",
)
# Only a checkpoint that was deleted by hand leaves searches behind: its region begins the round
# after theirs, and its first attempt is a later one.
_NEW_CHECKPOINT = """
INSERT INTO batch_checkpoint AS known
       (batch_name, region_type, region_code, region_name, parent_code, life, round, attempt)
SELECT :batch, r.region_type, r.region_code, r.region_name, r.parent_code, r.life,
       coalesce(last.round, 0) + 1, coalesce(last.attempt + 1, 0)
  FROM region r
  LEFT JOIN LATERAL (SELECT q.round, q.attempt FROM search_query q
                      WHERE (q.batch_name, q.region_type, q.region_code)
                            = (:batch, r.region_type, r.region_code)
                      ORDER BY q.round DESC LIMIT 1) last ON true
 WHERE r.region_type = :type AND r.is_leaf AND r.status = 'ACTIVE'"""
SEED = f"""{_NEW_CHECKPOINT} ORDER BY r.region_code
ON CONFLICT (batch_name, region_type, region_code) DO UPDATE
   SET region_name = excluded.region_name, parent_code = excluded.parent_code, life = excluded.life,
       {_REACTIVATED}
 WHERE (known.region_name, known.parent_code, known.life)
       IS DISTINCT FROM (excluded.region_name, excluded.parent_code, excluded.life)
RETURNING (xmax = 0) AS seeded
"""
SEED_MISSING = f"""{_NEW_CHECKPOINT}
   AND NOT EXISTS (SELECT FROM batch_checkpoint c
                    WHERE (c.batch_name, c.region_type, c.region_code)
                          = (:batch, r.region_type, r.region_code))
 ORDER BY r.region_code
ON CONFLICT DO NOTHING
"""

# SKIP LOCKED: two runs that claim at once take different regions instead of waiting. A run that was
# declared dead while it slept claims nothing when it wakes. One statement per status, in this
# order: an index gives the first row of each at once. The last takes a region from its refinement,
# which is fenced off and loses its searches in flight; it waits for the row, which the refinement
# locks for milliseconds, because a person's request must not be lost, and so goes by code alone.
_FIRST_TRIED = "c.failures, c.region_code"
_CLAIMABLE = (
    ("c.status = 'PENDING'", _FIRST_TRIED, "SKIP LOCKED"),
    ("c.status = 'FAILED' AND (:force_retry OR c.retry_at <= now())", _FIRST_TRIED, "SKIP LOCKED"),
    (
        "c.status = 'COMPLETED' AND c.end_time < CAST(:recollect_completed_before AS timestamptz)",
        _FIRST_TRIED,
        "SKIP LOCKED",
    ),
    (
        """c.status = 'PROCESSING' AND c.refining
       AND c.end_time < CAST(:recollect_completed_before AS timestamptz)""",
        "c.region_code",
        "",
    ),
)
_CLAIM = f"""
WITH due AS (
    SELECT c.id, c.status = 'COMPLETED' OR c.refining AS new_round FROM batch_checkpoint c
     WHERE {OURS} AND {COLLECTABLE}
       AND (:any_code OR c.region_code = ANY(CAST(:codes AS text[])))
       AND NOT c.region_code = ANY(CAST(:without AS text[]))
       AND %s
       AND NOT EXISTS (SELECT FROM batch_execution_metadata e WHERE e.execution_id = :run_id
                       AND e.status <> 'RUNNING')
     ORDER BY %s
     LIMIT :limit FOR UPDATE OF c %s
)
UPDATE batch_checkpoint c
   SET status = 'PROCESSING', refining = false, attempt = c.attempt + 1, run_id = :run_id,
       lease_expires_at = {LEASE_END},
       start_time = CASE WHEN due.new_round THEN now() ELSE coalesce(c.start_time, now()) END,
       end_time = NULL, retry_at = NULL,
       {_assignments("c", _NEW_ROUND, when="due.new_round")}
  FROM due, region r
 WHERE c.id = due.id AND r.region_type = c.region_type AND r.region_code = c.region_code
RETURNING c.region_code, c.region_name, r.partition_key, c.attempt, c.round, c.failures
"""
CLAIM = tuple(_CLAIM % how for how in _CLAIMABLE)
CLAIM_DUE = CLAIM[:2]

# An abolished region has no holder: the next write of its holder finds the lease lost.
MINE_ALIVE = f"{MINE} AND {COLLECTABLE}"

_IN_ORDER = "ORDER BY c.region_code FOR UPDATE OF c"

RENEW = f"""
WITH mine AS (
    SELECT c.id FROM batch_checkpoint c
      JOIN unnest(CAST(:codes AS text[]), CAST(:attempts AS integer[])) AS held (code, attempt)
        ON c.region_code = held.code AND c.attempt = held.attempt
     WHERE {OURS} AND c.status = 'PROCESSING' {_IN_ORDER}
)
UPDATE batch_checkpoint c SET lease_expires_at = {LEASE_END} FROM mine WHERE c.id = mine.id
"""

# Locked in order of code, as everywhere.
COMPLETE = f"""
WITH done AS MATERIALIZED (
    SELECT c.id, d.promise, d.plan, d.queries, d.sorts
      FROM jsonb_to_recordset(CAST(:done AS jsonb)) AS d (
               code text, attempt integer, promise double precision, plan text, queries text[],
               sorts text[])
      JOIN batch_checkpoint c ON {OURS} AND c.region_code = d.code AND c.attempt = d.attempt
          AND c.status = 'PROCESSING'
     WHERE {COLLECTABLE}
     ORDER BY c.region_code FOR UPDATE OF c
)
UPDATE batch_checkpoint c
   SET status = 'COMPLETED', refining = false, end_time = now(), lease_expires_at = NULL,
       error_message = NULL,
       failure_kind = NULL, retry_at = NULL, failures = 0, reported_at = NULL,
       promise = done.promise, plan = done.plan,
       {LEDGER_COUNTERS}
  FROM done
 WHERE c.id = done.id
   AND NOT EXISTS (
        SELECT FROM unnest(done.queries, done.sorts) AS plan (query, sort)
         WHERE NOT EXISTS (SELECT FROM search_query q
                            WHERE {_ITS_LEDGER} AND (q.query, q.sort) = (plan.query, plan.sort)
                              AND q.status <> 'FAILED'))
"""
COMPLETED_BY_THEM = f"""
SELECT c.region_code FROM batch_checkpoint c
  JOIN unnest(CAST(:codes AS text[]), CAST(:attempts AS integer[])) AS held (code, attempt)
    ON c.region_code = held.code AND c.attempt = held.attempt
 WHERE {OURS} AND c.status = 'COMPLETED'
"""

# Back-off doubles with every failure in a row; after the last attempt retry_at stays NULL and only
# a person retries. A refinement that fails leaves its region COMPLETED, with the reason; it is
# never given up.
FAIL = f"""
UPDATE batch_checkpoint c
   SET status = CASE WHEN c.refining THEN 'COMPLETED' ELSE 'FAILED' END, refining = false,
       end_time = CASE WHEN c.refining THEN c.end_time ELSE now() END,
       lease_expires_at = NULL, error_message = :message, failure_kind = :kind,
       failures = c.failures + 1,
       retry_at = CASE WHEN NOT c.refining AND (:final OR NOT :bounded_elsewhere
                                                AND c.failures + 1 >= :max_attempts) THEN NULL
                       ELSE now() + make_interval(
                           secs => least(:cap_seconds,
                                         :backoff_seconds * power(2, least(c.failures, 30)))) END,
       {LEDGER_COUNTERS}
 WHERE {MINE_ALIVE}
"""

# A refinement is fenced off, too: COMPLETED by another statement looks like its own COMPLETED.
_BACK = """status = CASE WHEN c.refining THEN 'COMPLETED' ELSE 'PENDING' END, refining = false,
       lease_expires_at = NULL,
       attempt = c.attempt + c.refining::int"""
RELEASE = f"UPDATE batch_checkpoint c SET {_BACK} WHERE {MINE}"

# Regions whose lease expired or whose holder is known to be dead. A live holder renews its leases
# with each heartbeat, unless the table was locked: then they stay its own for LIVE_HOLDER_LEASES
# more. Locked rows (a worker that is storing, or is frozen in that) are left for the next call.
LIVE_HOLDER_LEASES = 10
RECLAIM = f"""
WITH lost AS (
    SELECT c.id FROM batch_checkpoint c
     WHERE {OURS} AND c.status = 'PROCESSING'
       AND (c.run_id = ANY(CAST(:dead_runs AS text[])) OR c.lease_expires_at IS NULL
            OR c.lease_expires_at < now() - make_interval(secs => :lease_seconds
               * CASE WHEN EXISTS (
                SELECT FROM batch_execution_metadata e
                 WHERE e.execution_id = c.run_id AND e.status = 'RUNNING'
                   AND e.heartbeat_at >= now() - make_interval(secs => :lease_seconds))
               THEN {LIVE_HOLDER_LEASES} ELSE 0 END))
       FOR UPDATE SKIP LOCKED
)
UPDATE batch_checkpoint c SET {_BACK} FROM lost WHERE c.id = lost.id
RETURNING c.region_code
"""

# A person releases regions of a live or dead holder, which finds its lease lost at its next write.
FORCE_RELEASE = f"""
WITH chosen AS (
    SELECT c.id FROM batch_checkpoint c
     WHERE {OURS} AND c.status = 'PROCESSING'
       AND c.region_code = ANY(CAST(:codes AS text[])) {_IN_ORDER}
)
UPDATE batch_checkpoint c SET {_BACK} FROM chosen WHERE c.id = chosen.id
RETURNING c.region_code
"""

RETRY = f"""
WITH chosen AS (
    SELECT c.id FROM batch_checkpoint c
     WHERE {OURS} AND c.status = 'FAILED'
       AND (:any_code OR c.region_code = ANY(CAST(:codes AS text[]))) {_IN_ORDER}
)
UPDATE batch_checkpoint c SET status = 'PENDING', failures = 0, retry_at = NULL, end_time = NULL
  FROM chosen WHERE c.id = chosen.id
RETURNING c.region_code
"""

# Older versions gave up a refinement after errors; its region has the expected gain 0 and the
# reason.
RESTORE_REFINEMENT = f"""
WITH chosen AS (
    SELECT c.id FROM batch_checkpoint c
     WHERE {OURS} AND c.status = 'COMPLETED' AND c.failures > 0
       AND (c.promise = 0 OR c.retry_at IS NOT NULL)
       AND (:any_code OR c.region_code = ANY(CAST(:codes AS text[]))) {_IN_ORDER}
)
UPDATE batch_checkpoint c
   SET promise = CASE WHEN c.promise = 0 THEN 5 ELSE c.promise END, failures = 0, retry_at = NULL,
       error_message = NULL, failure_kind = NULL
  FROM chosen WHERE c.id = chosen.id
RETURNING c.region_code
"""

# A region that is being refined begins the round, too: its refinement finds its lease lost.
NEW_ROUND = f"""
WITH chosen AS (
    SELECT c.id FROM batch_checkpoint c
     WHERE {OURS} AND {COLLECTABLE}
       AND (c.status = 'COMPLETED' OR c.refining OR :also_unfinished AND c.status <> 'PROCESSING')
       AND (:any_code OR c.region_code = ANY(CAST(:codes AS text[]))) {_IN_ORDER}
)
UPDATE batch_checkpoint c SET {_assignments("c", {**_NEW_ROUND, **_DUE_AGAIN})}
  FROM chosen WHERE c.id = chosen.id
RETURNING c.region_code
"""

# Regions completed with another base plan are due again, in the same round: searches of their
# ledger are not repeated. Regions of the batch system have no plan and stay.
REOPEN_OUTDATED = f"""
WITH other AS (
    SELECT c.id FROM batch_checkpoint c
     WHERE {OURS} AND {COLLECTABLE} AND (c.status = 'COMPLETED' OR c.refining)
       AND c.plan <> :plan {_IN_ORDER}
)
UPDATE batch_checkpoint c SET status = 'PENDING', refining = false, lease_expires_at = NULL,
       plan = ''
  FROM other WHERE c.id = other.id
RETURNING c.region_code
"""

COMPLETIONS = f"""
SELECT c.region_code, c.region_name, r.partition_key, c.attempt, c.round,
       coalesce(c.run_id, '') AS run_id,
       c.processed_count AS places, c.searches_done AS searches, c.refinements,
       c.calls_used AS calls,
       coalesce(extract(epoch FROM c.end_time - c.start_time), 0)::float AS seconds,
       coalesce(l.places_new, 0) AS places_new, coalesce(l.strays, 0) AS out_of_region,
       coalesce(l.saturated, 0) AS saturated, coalesce(l.set_aside, 0) AS set_aside
  FROM batch_checkpoint c
  JOIN region r ON r.region_type = c.region_type AND r.region_code = c.region_code
  LEFT JOIN LATERAL (
        SELECT sum(q.new_places) AS places_new, sum(q.strays) AS strays,
               sum(jsonb_array_length(q.set_aside)) AS set_aside,
               count(*) FILTER (WHERE q.result_count >= {MAX_RESULTS}) AS saturated
          FROM search_query q
         WHERE {_ITS_LEDGER}) l ON true
 WHERE {OURS} AND c.status = 'COMPLETED' AND (:any_code
                                              OR c.region_code = ANY(CAST(:codes AS text[])))
   AND (:reported_too OR c.reported_at IS NULL
        AND NOT EXISTS (SELECT FROM batch_execution_metadata e WHERE e.execution_id = c.run_id
                        AND e.status = 'RUNNING'))
 ORDER BY c.region_code
"""

DUE = f"""
SELECT count(*) AS due FROM batch_checkpoint c
 WHERE {OURS} AND {COLLECTABLE} AND NOT c.region_code = ANY(CAST(:without AS text[]))
   AND (c.status = 'PENDING' OR c.status = 'FAILED' AND c.retry_at <= now())
"""
DUE_KEYS = f"""
SELECT r.partition_key FROM batch_checkpoint c
  JOIN region r ON r.region_type = c.region_type AND r.region_code = c.region_code
      AND r.status = 'ACTIVE' AND r.is_leaf
 WHERE {OURS} AND (c.status = 'PENDING' OR c.status = 'FAILED' AND c.retry_at <= now())
"""
RESET = (
    "DELETE FROM places WHERE region_type = :type",
    "DELETE FROM search_query WHERE batch_name = :batch AND region_type = :type",
    "DELETE FROM batch_checkpoint WHERE batch_name = :batch AND region_type = :type",
)
PROGRESS = f"""
SELECT count(*) AS total, count(*) FILTER (WHERE c.status = 'COMPLETED') AS completed,
       count(*) FILTER (WHERE c.status = 'FAILED') AS failed,
       count(*) FILTER (WHERE c.status = 'PROCESSING') AS processing,
       count(*) FILTER (WHERE c.refining) AS refining,
       count(*) FILTER (WHERE c.status = 'PENDING') AS pending,
       count(*) FILTER (WHERE c.status = 'FAILED' AND c.retry_at IS NULL) AS given_up,
       min(c.retry_at) FILTER (WHERE c.status = 'FAILED') AS next_retry_at
  FROM batch_checkpoint c WHERE {OURS} AND {COLLECTABLE}
"""

STATUSES = f"""
SELECT c.region_code, c.region_name, c.status, coalesce(c.run_id, '') AS run_id, c.end_time
 FROM batch_checkpoint c
 WHERE {OURS} AND c.region_code = ANY(CAST(:codes AS text[])) ORDER BY c.region_code
"""

MARK_REPORTED = f"""
WITH completed AS (
    SELECT c.id FROM batch_checkpoint c
      JOIN unnest(CAST(:codes AS text[]), CAST(:attempts AS integer[])) AS held (code, attempt)
        ON c.region_code = held.code AND c.attempt = held.attempt
     WHERE {OURS} AND c.status = 'COMPLETED' {_IN_ORDER}
)
UPDATE batch_checkpoint c SET reported_at = now() FROM completed WHERE c.id = completed.id
"""
