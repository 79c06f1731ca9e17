-- What is done for every search, each a single call: its place in rate and quota is reserved, and its answer is stored. The
-- connection keeps the plans of these statements; sent one by one they take longer to plan than to run.

-- Reserves calls, at most as many as asked for, or says why not. One row lock, no waiting in the database:
--   GO         send `calls` of them, the first `wait_seconds` from now, each next `gap` seconds later; they count for `day`;
--              `probe`: it is one, which shows whether the API answers
--   WAIT       somebody's probe is out: ask again in `wait_seconds`
--   EXHAUSTED  nothing more until `until`
--   BLOCKED    these credentials were refused
CREATE OR REPLACE FUNCTION reserve_calls(
    p_api text, p_account text, p_credentials text, p_calls_per_second double precision,
    p_daily_quota integer, p_monthly_quota integer, p_probe_seconds double precision, p_calls integer,
    OUT verdict text, OUT wait_seconds double precision, OUT until timestamptz, OUT why text, OUT probe boolean,
    OUT calls integer, OUT gap double precision, OUT day date
) LANGUAGE plpgsql AS $$
DECLARE
    budget api_budget;
    moment timestamptz;
    used   integer;
BEGIN
    probe := false;
    SELECT * INTO budget FROM api_budget WHERE api = p_api AND account = p_account FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO api_budget (api, account) VALUES (p_api, p_account) ON CONFLICT DO NOTHING;
        SELECT * INTO budget FROM api_budget WHERE api = p_api AND account = p_account FOR UPDATE;
    END IF;
    moment := budget_clock();  -- after the lock: whoever waited for it must not get a slot in the past
    day := budget_day(moment);
    calls := p_calls;
    IF budget.blocked = p_credentials THEN
        verdict := 'BLOCKED'; why := budget.blocked_why;
        RETURN;
    END IF;
    IF budget.exhausted_until > moment THEN
        verdict := 'EXHAUSTED'; until := budget.exhausted_until; why := budget.exhausted_why;
        RETURN;
    END IF;
    IF p_monthly_quota IS NOT NULL THEN
        SELECT coalesce(sum(u.reserved - u.refused_rate - u.refused_quota), 0) INTO used FROM api_usage u
         WHERE u.api = p_api AND u.account = p_account AND u.day >= date_trunc('month', reserve_calls.day)::date;
        calls := least(calls, p_monthly_quota - used);
        IF calls <= 0 THEN
            verdict := 'EXHAUSTED'; until := budget_midnight((date_trunc('month', day) + interval '1 month')::date);
            why := format('the month''s %s calls are used', p_monthly_quota);
            RETURN;
        END IF;
    END IF;
    -- Whoever reserves has locked the budget; what others change meanwhile only gives calls back.
    SELECT u.reserved - u.refused_rate - u.refused_quota INTO used FROM api_usage u
     WHERE u.api = p_api AND u.account = p_account AND u.day = reserve_calls.day;
    calls := least(calls, p_daily_quota - coalesce(used, 0));
    IF calls <= 0 THEN
        verdict := 'EXHAUSTED'; until := budget_midnight(day + 1);
        why := format('the day''s %s calls are used', p_daily_quota);
        RETURN;
    END IF;
    IF budget.exhausted_until IS NOT NULL OR budget.proven IS DISTINCT FROM p_credentials THEN
        IF budget.probing_since > moment - make_interval(secs => p_probe_seconds) THEN
            verdict := 'WAIT'; wait_seconds := 0.1;
            RETURN;
        END IF;
        probe := true;
        calls := 1;
    END IF;
    INSERT INTO api_usage AS usage (api, account, day, reserved) VALUES (p_api, p_account, reserve_calls.day, calls)
        ON CONFLICT ON CONSTRAINT api_usage_pkey DO UPDATE SET reserved = usage.reserved + excluded.reserved;
    verdict := 'GO';
    until := greatest(budget.next_slot_at, moment);
    wait_seconds := extract(epoch FROM until - moment);
    gap := 1 / (p_calls_per_second * current_pace(budget, moment));
    UPDATE api_budget
       SET next_slot_at = until + make_interval(secs => calls * gap),
           probing_since = CASE WHEN probe THEN moment ELSE probing_since END
     WHERE api = p_api AND account = p_account;
END $$;
DROP FUNCTION IF EXISTS reserve_call;

-- To store: in what follows no table is ever read whole, whatever a plan that was made while it was nearly empty would say.

-- A region's ledger summed up; it is the truth for all four.
CREATE OR REPLACE FUNCTION ledger_counters(
    p_batch text, p_type text, p_code text, p_round integer,
    OUT searches_done bigint, OUT calls_used bigint, OUT refinements bigint, OUT processed_count bigint
) LANGUAGE sql STABLE AS $$
    SELECT count(*) FILTER (WHERE q.status <> 'FAILED'), coalesce(sum(q.calls), 0),
           count(*) FILTER (WHERE q.status <> 'FAILED' AND q.stage <> 'base'),
           (SELECT count(DISTINCT p) FROM search_query f, unnest(f.place_ids) p
             WHERE (f.batch_name, f.region_type, f.region_code, f.round) = (p_batch, p_type, p_code, p_round))
      FROM search_query q
     WHERE (q.batch_name, q.region_type, q.region_code, q.round) = (p_batch, p_type, p_code, p_round)
$$;

-- upsert_places, and upsert_new_places for a replay, which builds the places anew in a temporary table of that name. Given an
-- answer's places as an array of objects with the names of the columns, returns their ids in that order, and how many are new.
--
-- A run may know an older list than the database: a code that is no leaf any more is not written, whatever it knows.
-- Whatever order answers are stored in, the newest wins, and of two at the same moment the one whose text sorts last. What
-- it leaves out is kept of the other; that alone remembers no moment, so three answers of which the newest leaves something
-- out have to come in order to agree on it.
-- By key, so that two searches with common places lock them in the same order.
DO $make$
DECLARE
    target text;
BEGIN
    FOREACH target IN ARRAY ARRAY['places', 'new_places'] LOOP
        EXECUTE format($function$
CREATE OR REPLACE FUNCTION upsert_%1$s(
    p_places jsonb, p_source text, p_type text, p_seen timestamptz, OUT ids bigint[], OUT fresh integer
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    WITH found AS (
        INSERT INTO %1$s AS known (naver_place_id, name, category, address, road_address, latitude, longitude, phone,
                                   website_url, region_code, source, region_type, first_seen_at, last_seen_at)
        SELECT p.naver_place_id, p.name, p.category, p.address, p.road_address, p.latitude, p.longitude, p.phone,
               p.website_url,
               (SELECT r.region_code FROM region r
                 WHERE r.region_type = p_type AND r.region_code = p.region_code AND r.status = 'ACTIVE' AND r.is_leaf),
               p_source, p_type, p_seen, p_seen
          FROM jsonb_to_recordset(p_places) AS p (
                   naver_place_id text, name text, category text, address text, road_address text, latitude numeric,
                   longitude numeric, phone text, website_url text, region_code text)
         ORDER BY p.naver_place_id
        ON CONFLICT (naver_place_id) DO UPDATE
           SET (name, category, address, road_address, phone, website_url, region_code) = (
                   SELECT (CASE WHEN newer THEN excluded.name ELSE known.name END),
                          (CASE WHEN newer THEN excluded.category ELSE known.category END),
                          (CASE WHEN newer THEN excluded.address ELSE known.address END),
                          (CASE WHEN newer AND excluded.road_address <> '' OR known.road_address = ''
                                THEN excluded.road_address ELSE known.road_address END),
                          (CASE WHEN newer AND excluded.phone <> '' OR known.phone = ''
                                THEN excluded.phone ELSE known.phone END),
                          (CASE WHEN newer AND excluded.website_url <> '' OR known.website_url = ''
                                THEN excluded.website_url ELSE known.website_url END),
                          (CASE WHEN newer THEN coalesce(excluded.region_code, known.region_code)
                                ELSE coalesce(known.region_code, excluded.region_code) END)
                     FROM (SELECT (excluded.last_seen_at, excluded.name, excluded.category, excluded.address,
                                   excluded.road_address, excluded.phone, excluded.website_url)
                                > (known.last_seen_at, known.name, known.category, known.address,
                                   known.road_address, known.phone, known.website_url) AS newer) AS compared),
               first_seen_at = least(known.first_seen_at, excluded.first_seen_at),
               last_seen_at = greatest(known.last_seen_at, excluded.last_seen_at)
        RETURNING known.id, known.naver_place_id, (known.xmax = 0) AS is_new
    )
    SELECT coalesce(array_agg(found.id ORDER BY told.position), '{}'), count(*) FILTER (WHERE found.is_new)
      INTO ids, fresh
      FROM jsonb_array_elements(p_places) WITH ORDINALITY AS told (place, position)
      JOIN found ON found.naver_place_id = told.place ->> 'naver_place_id';
END $$
        $function$, target);
    END LOOP;
END $make$;

-- One search is one transaction: its places, its ledger row and its region's checkpoint, all or nothing. Returns the ids of the
-- places in the answer's order. Nothing is written, and an error of its own code raised, if
--   MH001  the list of regions is not the one the places were given their regions by: `p_list` is its last region_refresh.id
--   MH002  this attempt holds the region no more: the fencing token of the checkpoint is another, or the region was abolished
-- A search that is DONE is never overwritten, so a repeat after an unclear commit changes nothing.
-- Lock order: the list lock (shared; whoever takes over a list holds it alone), places by key, search_query, batch_checkpoint.
CREATE OR REPLACE FUNCTION store_search(
    p_batch text, p_type text, p_code text, p_round integer, p_attempt integer, p_run_id text, p_lease_seconds double precision,
    p_source text, p_query text, p_sort text, p_keyword text, p_dong_name text, p_stage text, p_status text, p_calls integer,
    p_list bigint, p_places jsonb, p_result_count integer, p_strays integer, p_set_aside jsonb, p_answer jsonb,
    p_answered_at timestamptz, p_error text
) RETURNS bigint[] LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    ids   bigint[] := '{}';
    fresh integer := 0;
    held  bigint;
BEGIN
    IF p_places IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock_shared(7310511681);
        IF p_list <> (SELECT coalesce(max(id), 0) FROM region_refresh WHERE region_type = p_type) THEN
            RAISE EXCEPTION 'the list of regions has changed' USING ERRCODE = 'MH001';
        END IF;
        SELECT * INTO ids, fresh FROM upsert_places(p_places, p_source, p_type, p_answered_at);
    END IF;

    INSERT INTO search_query AS known
           (batch_name, region_type, region_code, round, source, query, sort, keyword, dong_name, stage, status, attempt,
            run_id, calls, result_count, place_ids, novel, new_places, strays, set_aside, answer, error_message, answered_at)
    VALUES (p_batch, p_type, p_code, p_round, p_source, p_query, p_sort, p_keyword, p_dong_name, p_stage, p_status, p_attempt,
            p_run_id, p_calls, p_result_count, ids,
            (SELECT count(DISTINCT p) FROM unnest(ids) p
              WHERE NOT EXISTS (SELECT FROM search_query q
                                 WHERE q.batch_name = p_batch AND q.region_type = p_type AND q.region_code = p_code
                                   AND q.round = p_round AND p = ANY(q.place_ids))),
            fresh, p_strays, p_set_aside, p_answer, p_error, p_answered_at)
    ON CONFLICT (batch_name, region_type, region_code, round, source, query, sort) DO UPDATE
       SET status = excluded.status, attempt = excluded.attempt, run_id = excluded.run_id,
           calls = known.calls + excluded.calls, result_count = excluded.result_count, place_ids = excluded.place_ids,
           novel = excluded.novel, new_places = excluded.new_places, strays = excluded.strays,
           set_aside = excluded.set_aside, answer = excluded.answer, error_message = excluded.error_message,
           answered_at = excluded.answered_at
     WHERE known.status = 'FAILED';

    -- Locked first: several threads may store for one region, and the sums that follow have to see all that was stored before.
    SELECT c.id INTO held FROM batch_checkpoint c
     WHERE c.batch_name = p_batch AND c.region_type = p_type AND c.region_code = p_code
       AND c.attempt = p_attempt AND c.status = 'PROCESSING'
       AND EXISTS (SELECT FROM region r WHERE r.region_type = p_type AND r.region_code = p_code
                      AND r.status = 'ACTIVE' AND r.is_leaf)
       FOR UPDATE OF c;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the region is not held by this attempt' USING ERRCODE = 'MH002';
    END IF;
    UPDATE batch_checkpoint c
       SET lease_expires_at = now() + make_interval(secs => p_lease_seconds),
           (searches_done, calls_used, refinements, processed_count)
               = (SELECT l.searches_done, l.calls_used, l.refinements, l.processed_count
                    FROM ledger_counters(p_batch, p_type, p_code, p_round) l)
     WHERE c.id = held;
    RETURN ids;
END $$;
