-- After every search: it is stored, together with others that were answered at the same time, by a single call
-- whose plans the connection keeps.

-- No statement below reads a whole table, even with a plan that was made while the table was nearly empty.
-- `LATERAL (… OFFSET 0)` ensures the same for a join: for each row by its index, never the whole of the other side.

-- Sums of a region's ledger, the source of all four counters. Rows, not one row, so that the caller's plan takes it in.
DROP FUNCTION IF EXISTS ledger_counters;
CREATE FUNCTION ledger_counters(p_batch text, p_type text, p_code text, p_round integer)
RETURNS TABLE (searches_done bigint, calls_used bigint, refinements bigint, processed_count bigint) LANGUAGE sql STABLE AS $$
    WITH ledger AS MATERIALIZED (  -- once, and not once more for its places
        SELECT q.status, q.calls, q.stage, q.place_ids FROM search_query q
         WHERE (q.batch_name, q.region_type, q.region_code, q.round) = (p_batch, p_type, p_code, p_round)
    )
    SELECT count(*) FILTER (WHERE l.status <> 'FAILED'), coalesce(sum(l.calls), 0),
           count(*) FILTER (WHERE l.status <> 'FAILED' AND l.stage <> 'base'),
           (SELECT count(*) FROM (SELECT DISTINCT unnest(place_ids) FROM ledger) AS places)
      FROM ledger l
$$;

-- upsert_places, and upsert_new_places for a replay, which rebuilds the places in a temporary table of that name. Given an
-- array of objects, one per search, with `answered_at` and `places`: its places as objects with the names of the columns.
-- Returns for each place of each search, in that order, the number of the search and the place's id; `brought` has the
-- number of the search that brought it for each place that is new.
--
-- A run may know an older list than the database: a code that is no leaf any more is not written.
-- The newest answer wins in any order of storing, and of two at the same moment the one whose text sorts last. A value that
-- it lacks is kept from the other; such a value has no moment, so three answers of which the newest lacks a value
-- have to come in order to agree on it.
-- All is as if the searches came one by one, in the order of their answers. A place that several of them have is written once
-- while they agree about it, and once more in a further pass when the next differs: one
-- statement cannot write a row twice. The first pass has every place there is.
-- By key, so that any two of these calls with common places lock them in the same order.
DROP FUNCTION IF EXISTS upsert_places(jsonb, text, text, timestamptz);
DROP FUNCTION IF EXISTS upsert_new_places(jsonb, text, text, timestamptz);
DO $make$
DECLARE
    target text;
BEGIN
    FOREACH target IN ARRAY ARRAY['places', 'new_places'] LOOP
        EXECUTE format($function$
CREATE OR REPLACE FUNCTION upsert_%1$s(
    p_searches jsonb, p_source text, p_type text, OUT searches integer[], OUT ids bigint[], OUT brought integer[]
) LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    this   integer := 1;
    passes integer;
    found  record;
BEGIN
    LOOP
        WITH told AS MATERIALIZED (
            SELECT s.n, p.position, s.answered_at, p.place ->> 'naver_place_id' AS key, p.place
              FROM ROWS FROM (jsonb_to_recordset(p_searches) AS (answered_at timestamptz, places jsonb))
                       WITH ORDINALITY AS s (answered_at, places, n),
                   jsonb_array_elements(s.places) WITH ORDINALITY AS p (place, position)
        ), compared AS (
            SELECT told.*, row_number() OVER versions AS version, place IS DISTINCT FROM lag(place) OVER versions AS differs
              FROM told WINDOW versions AS (PARTITION BY key ORDER BY answered_at, n, position)
        ), numbered AS MATERIALIZED (
            SELECT compared.*, count(*) FILTER (WHERE differs) OVER (PARTITION BY key ORDER BY version) AS pass
              FROM compared
        ), upserted AS (
            INSERT INTO %1$s AS known (naver_place_id, name, category, address, road_address, latitude, longitude, phone,
                                       website_url, region_code, source, region_type, first_seen_at, last_seen_at)
            SELECT v.key, p.name, p.category, p.address, p.road_address, p.latitude, p.longitude, p.phone, p.website_url,
                   (SELECT r.region_code FROM region r
                     WHERE r.region_type = p_type AND r.region_code = p.region_code AND r.status = 'ACTIVE' AND r.is_leaf),
                   p_source, p_type, v.answered_at, v.last_answered_at
              FROM (SELECT DISTINCT ON (key) key, place, answered_at,
                           max(answered_at) OVER (PARTITION BY key) AS last_answered_at
                      FROM numbered WHERE pass = this ORDER BY key, version) AS v,
                   jsonb_to_record(v.place) AS p (
                       name text, category text, address text, road_address text, latitude numeric, longitude numeric,
                       phone text, website_url text, region_code text)
             ORDER BY v.key
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
            RETURNING known.id, known.naver_place_id AS key, (known.xmax = 0) AS is_new
        )
        SELECT max(v.pass) AS passes, array_agg(v.n ORDER BY v.n, v.position) AS searches,
               array_agg(u.id ORDER BY v.n, v.position) AS ids,
               array_agg(v.n) FILTER (WHERE u.is_new AND v.version = 1) AS brought
          INTO found
          FROM numbered v LEFT JOIN upserted u USING (key);
        IF this = 1 THEN
            passes := found.passes; searches := found.searches; ids := found.ids; brought := found.brought;
        END IF;
        this := this + 1;
        EXIT WHEN this > coalesce(passes, 0);
    END LOOP;
END $$
        $function$, target);
    END LOOP;
END $make$;

-- Stores several searches in one transaction: their places, their ledger rows and their regions' checkpoints, all or nothing.
-- `p_searches` is an array of objects, one per search: the values of its row, the region's `code` and `round`, the `attempt` that
-- holds it, and `places` as upsert_places takes them. Returns for each search, in their order, the ids of its places in its
-- answer's order. All is as if they were stored one by one in the order of their answers.
-- Nothing is written, and an error of its own code raised, if
--   MH001  the list of regions is not the one the places were given their regions by: `list` is its last region_refresh.id
--   MH002  an attempt no longer holds its region: the checkpoint has another fencing token, or the region was abolished;
--          the error's DETAIL names them, as code:attempt with commas between
-- A search that is DONE is never overwritten, so a repeat after an unclear commit changes nothing.
-- Lock order: the list lock (shared; taking over a list holds it alone), places by key, search_query by its unique key,
-- batch_checkpoint by code.
DROP FUNCTION IF EXISTS store_search;
CREATE OR REPLACE FUNCTION store_searches(
    p_batch text, p_type text, p_run_id text, p_lease_seconds double precision, p_source text, p_searches jsonb
) RETURNS SETOF bigint[] LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    found record;
    held  bigint[];
    lost  text;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7310511681);
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
