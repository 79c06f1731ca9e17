-- Locks that a role can take only with a right to write, and what the reading role sees of the API accounts.

-- The list of regions is locked by a table: storing locks region_refresh in ROW EXCLUSIVE MODE, as writing a row does and many
-- may at a time; taking a list over locks it in SHARE ROW EXCLUSIVE MODE, which excludes them and no reader. Both take a
-- right to write. An advisory lock, as before, takes none: mohe_reader could hold it and stop the collection.

-- Stores several searches in one transaction: their places, their ledger rows and their regions' checkpoints, all or nothing.
-- `p_searches` is an array of objects, one per search: what its row says, the region's `code` and `round`, the `attempt` that
-- holds it, and `places` as upsert_places takes them. Returns for each search, in their order, the ids of its places in its
-- answer's order. All is as if they were stored one by one in the order of their answers.
-- Nothing is written, and an error of its own code raised, if
--   MH001  the list of regions is not the one the places were given their regions by: `list` is its last region_refresh.id
--   MH002  an attempt holds its region no more: the fencing token of the checkpoint is another, or the region was abolished;
--          the error's DETAIL names them, as code:attempt with commas between
-- A search that is DONE is never overwritten, so a repeat after an unclear commit changes nothing.
-- Lock order: the list lock (region_refresh, see above), places by key, search_query by its unique key, batch_checkpoint
-- by code.
CREATE OR REPLACE FUNCTION store_search_results(
    p_batch text, p_type text, p_run_id text, p_lease_seconds double precision, p_source text, p_searches jsonb
) RETURNS SETOF bigint[] LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    found record;
    held  bigint[];
    lost  text;
BEGIN
    LOCK TABLE region_refresh IN ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM jsonb_to_recordset(p_searches) AS s (list bigint)
                WHERE s.list <> (SELECT coalesce(max(id), 0) FROM region_refresh WHERE region_type = p_type)) THEN
        RAISE EXCEPTION 'the list of regions has changed' USING ERRCODE = 'MH001';
    END IF;
    SELECT * INTO found FROM upsert_places(p_searches, p_source, p_type);

    WITH told AS MATERIALIZED (
        SELECT s.*, EXISTS (SELECT FROM search_query q
                             WHERE q.batch_name = p_batch AND q.region_type = p_type AND q.region_code = s.code
                               AND q.round = s.round AND q.source = p_source AND q.query = s.query AND q.sort = s.sort
                               AND q.status <> 'FAILED' OFFSET 0) AS is_done
          FROM ROWS FROM (jsonb_to_recordset(p_searches) AS (
                   code text, round integer, attempt integer, query text, sort text, keyword text, dong_name text, stage text,
                   status text, calls integer, result_count integer, strays integer, set_aside jsonb, answer jsonb,
                   answered_at timestamptz, error text))
               WITH ORDINALITY AS s (code, round, attempt, query, sort, keyword, dong_name, stage, status, calls, result_count,
                                     strays, set_aside, answer, answered_at, error, n)
    ), kept AS MATERIALIZED (
        SELECT * FROM unnest(found.searches, found.ids) WITH ORDINALITY AS k (n, id, position)
    ), earliest AS (  -- of those that will be written, for each place of a region
        SELECT DISTINCT ON (t.code, t.round, k.id) t.code, t.round, k.id, k.n FROM kept k JOIN told t USING (n)
         WHERE NOT t.is_done ORDER BY t.code, t.round, k.id, t.answered_at, k.n
    ), known AS (
        SELECT t.code, t.round, l.id
          FROM (SELECT DISTINCT code, round FROM told WHERE NOT is_done) t
         CROSS JOIN LATERAL (SELECT unnest(q.place_ids) AS id FROM search_query q
                              WHERE q.batch_name = p_batch AND q.region_type = p_type AND q.region_code = t.code
                                AND q.round = t.round OFFSET 0) l
    ), novel AS (
        SELECT e.n, count(*) AS places FROM earliest e
         WHERE NOT EXISTS (SELECT FROM known WHERE (known.code, known.round, known.id) = (e.code, e.round, e.id)) GROUP BY e.n
    ), fresh AS (
        SELECT n, count(*) AS places FROM unnest(found.brought) AS n GROUP BY n
    ), placed AS (
        SELECT n, array_agg(id ORDER BY position) AS ids FROM kept GROUP BY n
    )
    INSERT INTO search_query AS known
           (batch_name, region_type, region_code, round, source, query, sort, keyword, dong_name, stage, status, attempt,
            run_id, calls, result_count, place_ids, novel, new_places, strays, set_aside, answer, error_message, answered_at)
    SELECT p_batch, p_type, t.code, t.round, p_source, t.query, t.sort, t.keyword, t.dong_name, t.stage, t.status, t.attempt,
           p_run_id, t.calls, t.result_count, coalesce(placed.ids, '{}'), coalesce(novel.places, 0), coalesce(fresh.places, 0),
           t.strays, t.set_aside, t.answer, t.error, t.answered_at
      FROM told t LEFT JOIN placed USING (n) LEFT JOIN novel USING (n) LEFT JOIN fresh USING (n)
     ORDER BY t.code, t.round, t.query, t.sort
    ON CONFLICT (batch_name, region_type, region_code, round, source, query, sort) DO UPDATE
       SET status = excluded.status, attempt = excluded.attempt, run_id = excluded.run_id,
           calls = known.calls + excluded.calls, result_count = excluded.result_count, place_ids = excluded.place_ids,
           novel = excluded.novel, new_places = excluded.new_places, strays = excluded.strays,
           set_aside = excluded.set_aside, answer = excluded.answer, error_message = excluded.error_message,
           answered_at = excluded.answered_at
     WHERE known.status = 'FAILED';

    -- Locked first: others may store for one of the regions, and the sums that follow have to see all that was stored before.
    -- IS NOT DISTINCT FROM uses no index: the one by status, which would do as well in an empty table, has every region in it.
    WITH told AS MATERIALIZED (
        SELECT DISTINCT code, attempt FROM jsonb_to_recordset(p_searches) AS s (code text, attempt integer)
    ), locked AS MATERIALIZED (
        SELECT h.id, t.code, t.attempt
          FROM (SELECT code, attempt FROM told ORDER BY code, attempt) t
          LEFT JOIN LATERAL (SELECT c.id FROM batch_checkpoint c
                              WHERE c.region_type = p_type AND c.region_code = t.code
                                AND (c.batch_name, c.attempt, c.status) IS NOT DISTINCT FROM (p_batch, t.attempt, 'PROCESSING')
                                AND EXISTS (SELECT FROM region r WHERE r.region_type = p_type AND r.region_code = t.code
                                               AND r.status = 'ACTIVE' AND r.is_leaf)
                                FOR UPDATE OF c) h ON true
    )
    SELECT array_agg(id), string_agg(code || ':' || attempt, ',') FILTER (WHERE id IS NULL) INTO held, lost FROM locked;
    IF lost IS NOT NULL THEN
        RAISE EXCEPTION 'a region is not held by its attempt' USING ERRCODE = 'MH002', DETAIL = lost;
    END IF;
    UPDATE batch_checkpoint c
       SET lease_expires_at = now() + make_interval(secs => p_lease_seconds),
           (searches_done, calls_used, refinements, processed_count)
               = (SELECT l.searches_done, l.calls_used, l.refinements, l.processed_count
                    FROM ledger_counters(p_batch, p_type, c.region_code, c.round) l)
     WHERE c.id = ANY(held);

    RETURN QUERY
        SELECT coalesce(array_agg(k.id ORDER BY k.position) FILTER (WHERE k.id IS NOT NULL), '{}')
          FROM generate_series(1, jsonb_array_length(p_searches)) AS s (n)
          LEFT JOIN unnest(found.searches, found.ids) WITH ORDINALITY AS k (n, id, position) USING (n)
         GROUP BY s.n ORDER BY s.n;
END $$;

-- Nothing calls it any more, and it takes the advisory lock. An old process fails rather than storing under a changing list.
DROP FUNCTION IF EXISTS store_searches;

-- An account is a digest of the client id, and a role that may only read sees no digest (sql/roles.sql). These two give the
-- rows of an account to a caller that knows its digest, by the owner's right, without what says anything of the credentials: of
-- `blocked` the salt alone is left. They keep up with columns that are added later.
CREATE OR REPLACE FUNCTION account_budget(p_api text, p_account text) RETURNS SETOF api_budget
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    budget api_budget;
BEGIN
    SELECT * INTO budget FROM api_budget b WHERE (b.api, b.account) = (p_api, p_account);
    IF FOUND THEN
        budget.proven := NULL;
        budget.blocked := regexp_replace(budget.blocked, '[^$]*$', '');
        RETURN NEXT budget;
    END IF;
END $$;
CREATE OR REPLACE FUNCTION account_usage(p_api text, p_account text) RETURNS SETOF api_usage
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    RETURN QUERY SELECT * FROM api_usage u WHERE (u.api, u.account) = (p_api, p_account);
END $$;

-- Whether the credentials with this digest, made with the salt that `account_budget` gives, are the refused ones.
CREATE OR REPLACE FUNCTION are_refused(p_api text, p_account text, p_digest text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    RETURN EXISTS (SELECT FROM api_budget b WHERE (b.api, b.account, b.blocked) = (p_api, p_account, p_digest));
END $$;

-- What runs by the owner's right finds our tables only, whatever tables its caller has made.
DO $pin$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'account_budget(text, text)', 'account_usage(text, text)', 'are_refused(text, text, text)'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', signature, current_schema());
    END LOOP;
END $pin$;

-- Digests as earlier versions stored them, from which a secret could be searched for. Refused credentials and an API that is
-- unavailable are found out again by one call. That is no use of the account: its `updated_at` stays.
DO $digests$
BEGIN
    ALTER TABLE api_budget DISABLE TRIGGER api_budget_updated_at;
    UPDATE api_budget SET proven = NULL WHERE length(proven) > 4;
    UPDATE api_budget SET blocked = NULL, blocked_at = NULL, blocked_why = NULL WHERE blocked NOT LIKE 'scrypt$%';
    UPDATE api_budget
       SET unavailable_since = NULL, unavailable_reason = NULL, unavailable_for = NULL, next_probe_at = NULL, probes = 0
     WHERE length(unavailable_for) > 8;
    ALTER TABLE api_budget ENABLE TRIGGER api_budget_updated_at;
END $digests$;
