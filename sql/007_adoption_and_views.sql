-- Converts the batch system's tables to ours, and defines the views that people and monitoring read.

ALTER TABLE places
    ADD COLUMN IF NOT EXISTS old_place_id text;          -- naver_place_id as the batch system had it; NULL: found by ours

-- When the region was last claimed, and the working time of this round without waits for quota and retries.
ALTER TABLE batch_checkpoint
    ADD COLUMN IF NOT EXISTS attempt_started_at timestamptz,
    ADD COLUMN IF NOT EXISTS attempt_ended_at   timestamptz,                  -- NULL while it is worked on
    ADD COLUMN IF NOT EXISTS working_seconds    double precision NOT NULL DEFAULT 0;

-- Number of searches that make a region complete; written when a run starts.
CREATE TABLE IF NOT EXISTS batch_plan (
    batch_name     varchar(100) NOT NULL,
    region_type    varchar(50)  NOT NULL,
    plan           varchar(64)  NOT NULL,                -- as batch_checkpoint.plan
    searches       integer      NOT NULL CHECK (searches > 0),
    updated_at     timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (batch_name, region_type)
);

-- Its tables had times without a zone, shorter texts, and columns that may be NULL or that ours do not fill. All of it is
-- found in the catalog, so that on tables of ours this changes nothing. Times are read as KST.
DO $$
DECLARE
    -- The columns ours fill: name and, where a narrower one is to be widened, the type.
    ours CONSTANT jsonb := '{
      "batch_checkpoint": {"id": "", "batch_name": "varchar(100)", "region_type": "varchar(50)", "region_code": "varchar(20)",
        "region_name": "varchar(200)", "parent_code": "varchar(20)", "status": "varchar(20)", "start_time": "timestamptz",
        "end_time": "timestamptz", "processed_count": "", "error_message": "text", "created_at": "timestamptz",
        "updated_at": "timestamptz"},
      "batch_execution_metadata": {"id": "", "batch_name": "varchar(100)", "execution_id": "varchar(255)",
        "start_time": "timestamptz", "end_time": "timestamptz", "status": "varchar(20)", "total_regions": "",
        "completed_regions": "", "failed_regions": "", "last_checkpoint_id": "", "created_at": "timestamptz",
        "updated_at": "timestamptz"},
      "places": {"id": "", "name": "text", "category": "text", "address": "text", "road_address": "text", "latitude": "",
        "longitude": "", "phone": "text", "website_url": "text", "naver_place_id": "varchar(64)", "created_at": "timestamptz",
        "updated_at": "timestamptz", "region_code": "varchar(20)"}}';
    tables  CONSTANT oid[] := ARRAY['batch_checkpoint'::regclass, 'batch_execution_metadata'::regclass, 'places'::regclass];
    changes text[];
    repairs text[] := '{}';
    change  text;
    found   record;
BEGIN
    SELECT array_agg(format('ALTER TABLE %s ALTER COLUMN %I TYPE %s%s', a.attrelid::regclass, a.attname, wanted.type,
                            CASE WHEN wanted.type = 'timestamptz' THEN format(' USING %I AT TIME ZONE ''Asia/Seoul''', a.attname)
                                 ELSE '' END))
      INTO changes
      FROM jsonb_each(ours) AS t (name, columns), jsonb_each_text(t.columns) AS wanted (name, type), pg_attribute a
     WHERE a.attrelid = t.name::regclass AND a.attname = wanted.name
       AND CASE WHEN wanted.type = 'timestamptz' THEN a.atttypid = 'timestamp'::regtype
                WHEN wanted.type = 'text' THEN a.atttypid = 'varchar'::regtype
                WHEN wanted.type <> '' THEN a.atttypid = 'varchar'::regtype AND a.atttypmod > 0
                                            AND a.atttypmod - 4 < substring(wanted.type FROM '\d+')::integer
           END;

    IF changes IS NOT NULL THEN
        -- A column's type cannot change under a view: those of the users are taken away and put back, outermost first.
        FOR found IN
            WITH RECURSIVE dependent AS (
                SELECT unnest(tables) AS oid, 0 AS depth
                UNION
                SELECT r.ev_class, d.depth + 1
                  FROM dependent d
                  JOIN pg_depend p ON p.refclassid = 'pg_class'::regclass AND p.refobjid = d.oid
                                  AND p.classid = 'pg_rewrite'::regclass
                  JOIN pg_rewrite r ON r.oid = p.objid AND r.ev_class <> d.oid
            )
            SELECT c.oid::regclass::text AS name, c.relkind, max(d.depth) AS depth,
                   CASE WHEN c.relkind <> 'v' THEN '{}' ELSE ARRAY[
                       format('CREATE VIEW %s%s AS %s', c.oid::regclass, ' WITH (' || array_to_string(c.reloptions, ', ') || ')',
                              pg_get_viewdef(c.oid)),
                       format('ALTER VIEW %s OWNER TO %I', c.oid::regclass, pg_get_userbyid(c.relowner)),
                       format('COMMENT ON VIEW %s IS %L', c.oid::regclass, obj_description(c.oid, 'pg_class'))] END
                   || ARRAY(SELECT format('GRANT %s ON %s TO %s%s', acl.privilege_type, c.oid::regclass,
                                          CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END,
                                          CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
                              FROM aclexplode(c.relacl) acl WHERE acl.grantee <> c.relowner) AS again
              FROM dependent d JOIN pg_class c ON c.oid = d.oid
             WHERE d.depth > 0
             GROUP BY c.oid, c.relkind, c.reloptions, c.relowner, c.relacl
             ORDER BY depth DESC
        LOOP
            IF found.relkind <> 'v' THEN
                RAISE EXCEPTION '% reads a table of the batch system and stands in the way: drop it, migrate, and make it again',
                    found.name;
            END IF;
            EXECUTE format('DROP VIEW %s', found.name);
            repairs := found.again || repairs;
        END LOOP;
        FOREACH change IN ARRAY changes LOOP
            EXECUTE change;
        END LOOP;
        FOREACH change IN ARRAY repairs LOOP
            EXECUTE change;
        END LOOP;
    END IF;

    -- A column that only the batch system fills must not keep ours from inserting.
    FOR found IN
        SELECT a.attrelid::regclass AS on_table, a.attname FROM jsonb_each(ours) AS t (name, columns), pg_attribute a
         WHERE a.attrelid = t.name::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef
           AND a.attidentity = '' AND NOT t.columns ? a.attname
           AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY(i.indkey))
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', found.on_table, found.attname);
    END LOOP;
END $$;

-- Rows of the batch system have attempt 0: ours raises it with every claim. updated_at stays as it is.
DO $$
DECLARE
    silenced record;
    wakes    text[] := '{}';
    wake     text;
BEGIN
    IF NOT EXISTS (SELECT FROM batch_checkpoint WHERE attempt = 0 AND (
                       processed_count IS NULL OR created_at IS NULL OR updated_at IS NULL
                       OR status = 'FAILED' AND retry_at IS NULL OR status = 'COMPLETED' AND end_time IS NULL
                       OR region_type = 'sigungu' AND region_code ~ '^\d{5}0{5}$'))
       AND NOT EXISTS (SELECT FROM batch_execution_metadata
                        WHERE start_time IS NULL OR total_regions IS NULL OR completed_regions IS NULL OR failed_regions IS NULL
                           OR created_at IS NULL OR updated_at IS NULL)
       AND NOT EXISTS (SELECT FROM places WHERE category IS NULL OR address IS NULL OR road_address IS NULL OR phone IS NULL
                                             OR website_url IS NULL OR created_at IS NULL OR updated_at IS NULL) THEN
        RETURN;
    END IF;
    FOR silenced IN SELECT tgrelid::regclass AS on_table, tgname FROM pg_trigger
                     WHERE tgrelid IN ('batch_checkpoint'::regclass, 'batch_execution_metadata'::regclass, 'places'::regclass)
                       AND NOT tgisinternal AND tgenabled = 'O'
    LOOP
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', silenced.on_table, silenced.tgname);
        wakes := wakes || format('ALTER TABLE %s ENABLE TRIGGER %I', silenced.on_table, silenced.tgname);
    END LOOP;

    -- It kept the list's ten digits, or the five that a sigungu is known by.
    UPDATE batch_checkpoint c SET region_code = left(c.region_code, 5)
     WHERE c.attempt = 0 AND c.region_type = 'sigungu' AND c.region_code ~ '^\d{5}0{5}$'
       AND NOT EXISTS (SELECT FROM batch_checkpoint o
                        WHERE (o.batch_name, o.region_type, o.region_code) = (c.batch_name, c.region_type, left(c.region_code, 5)));
    -- It had no back-off: what failed is due at once, with its attempts before it.
    UPDATE batch_checkpoint
       SET retry_at = CASE WHEN status = 'FAILED' THEN coalesce(retry_at, now()) END,
           end_time = CASE WHEN status = 'COMPLETED' THEN coalesce(end_time, updated_at, now()) ELSE end_time END,
           processed_count = coalesce(processed_count, 0),
           created_at = coalesce(created_at, start_time, now()), updated_at = coalesce(updated_at, end_time, start_time, now())
     WHERE attempt = 0;
    UPDATE batch_execution_metadata
       SET start_time = coalesce(start_time, created_at, now()), total_regions = coalesce(total_regions, 0),
           completed_regions = coalesce(completed_regions, 0), failed_regions = coalesce(failed_regions, 0),
           created_at = coalesce(created_at, start_time, now()), updated_at = coalesce(updated_at, end_time, start_time, now())
     WHERE start_time IS NULL OR total_regions IS NULL OR completed_regions IS NULL OR failed_regions IS NULL
        OR created_at IS NULL OR updated_at IS NULL;
    UPDATE places
       SET category = coalesce(category, ''), address = coalesce(address, ''), road_address = coalesce(road_address, ''),
           phone = coalesce(phone, ''), website_url = coalesce(website_url, ''),
           created_at = coalesce(created_at, updated_at, now()), updated_at = coalesce(updated_at, created_at, now())
     WHERE category IS NULL OR address IS NULL OR road_address IS NULL OR phone IS NULL OR website_url IS NULL
        OR created_at IS NULL OR updated_at IS NULL;

    FOREACH wake IN ARRAY wakes LOOP
        EXECUTE wake;
    END LOOP;
END $$;

DO $$
DECLARE
    lax record;
BEGIN
    -- With the tables' own defaults, where the batch system had none or others, nothing is NULL from now on.
    FOR lax IN
        SELECT a.attrelid::regclass AS on_table, a.attname, wanted.value
          FROM (VALUES ('batch_checkpoint', 'processed_count', '0'), ('batch_checkpoint', 'created_at', 'now()'),
                       ('batch_checkpoint', 'updated_at', 'now()'), ('batch_execution_metadata', 'start_time', 'now()'),
                       ('batch_execution_metadata', 'total_regions', '0'), ('batch_execution_metadata', 'completed_regions', '0'),
                       ('batch_execution_metadata', 'failed_regions', '0'), ('batch_execution_metadata', 'created_at', 'now()'),
                       ('batch_execution_metadata', 'updated_at', 'now()'), ('places', 'category', NULL),
                       ('places', 'address', NULL), ('places', 'road_address', ''''''), ('places', 'phone', ''''''),
                       ('places', 'website_url', ''''''), ('places', 'created_at', 'now()'), ('places', 'updated_at', 'now()'))
               AS wanted (on_table, name, value)
          JOIN pg_attribute a ON a.attrelid = wanted.on_table::regclass AND a.attname = wanted.name
         WHERE NOT a.attnotnull
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', lax.on_table, lax.attname);
        IF lax.value IS NOT NULL THEN
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', lax.on_table, lax.attname, lax.value);
        END IF;
    END LOOP;
END $$;

-- Keeps the times of attempts for every change of the row. A dead holder's time ends with its lease.
CREATE OR REPLACE FUNCTION note_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'PROCESSING' THEN
        NEW.attempt_ended_at := least(now(), coalesce(OLD.lease_expires_at, now()));
        NEW.working_seconds := OLD.working_seconds
            + greatest(0, coalesce(extract(epoch FROM NEW.attempt_ended_at - OLD.attempt_started_at), 0));
    END IF;
    IF NEW.round <> OLD.round THEN
        NEW.working_seconds := 0;
    END IF;
    IF NEW.status = 'PROCESSING' THEN
        NEW.attempt_started_at := now();
        NEW.attempt_ended_at := NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER batch_checkpoint_attempt
    BEFORE UPDATE ON batch_checkpoint FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.attempt <> NEW.attempt OR OLD.round <> NEW.round)
    EXECUTE FUNCTION note_attempt();

-- One row per region: progress, duration, and error. docs/metrics.md describes the columns.
CREATE OR REPLACE VIEW batch_progress AS
SELECT c.batch_name, c.region_type, c.region_code, c.region_name, r.sido_name,
       coalesce(r.status = 'ACTIVE' AND r.is_leaf, false) AS is_collected,
       c.status, c.refining, c.round, c.attempt, c.failures,
       c.start_time AS started_at, c.end_time AS ended_at,
       coalesce(c.end_time, CASE WHEN c.status = 'PROCESSING' THEN now() END) - c.start_time AS elapsed,
       c.attempt_started_at, c.attempt_ended_at,
       coalesce(c.attempt_ended_at, now()) - c.attempt_started_at AS attempt_duration,
       make_interval(secs => c.working_seconds + CASE WHEN c.status = 'PROCESSING' THEN
           coalesce(extract(epoch FROM now() - c.attempt_started_at), 0)::double precision ELSE 0 END) AS working_time,
       p.searches AS searches_planned, c.searches_done - c.refinements AS searches_done, c.refinements, c.calls_used,
       c.processed_count AS places_found, coalesce(inside.places, 0) AS places_in_region,
       c.failure_kind, c.error_message, c.retry_at, c.run_id, e.status AS run_status, e.heartbeat_at, c.lease_expires_at,
       CASE WHEN c.status <> 'PROCESSING' THEN 'free' WHEN c.lease_expires_at > now() THEN 'held' ELSE 'expired' END AS lease,
       c.updated_at
  FROM batch_checkpoint c
  LEFT JOIN region r ON (r.region_type, r.region_code) = (c.region_type, c.region_code)
  LEFT JOIN batch_plan p ON (p.batch_name, p.region_type) = (c.batch_name, c.region_type)
  LEFT JOIN batch_execution_metadata e ON e.execution_id = c.run_id
  LEFT JOIN (SELECT region_type, region_code, count(*) AS places FROM places GROUP BY 1, 2) inside
         ON (inside.region_type, inside.region_code) = (c.region_type, c.region_code);

-- One row per batch and region type, over the regions that are collected.
CREATE OR REPLACE VIEW batch_totals AS
SELECT c.batch_name, c.region_type, count(*) AS regions,
       count(*) FILTER (WHERE c.status = 'COMPLETED') AS completed, count(*) FILTER (WHERE c.status = 'FAILED') AS failed,
       count(*) FILTER (WHERE c.status = 'PROCESSING') AS processing, count(*) FILTER (WHERE c.status = 'PENDING') AS pending,
       count(*) FILTER (WHERE c.refining) AS refining,
       count(*) FILTER (WHERE c.status = 'FAILED' AND c.retry_at IS NOT NULL) AS awaiting_retry,
       count(*) FILTER (WHERE c.status = 'FAILED' AND c.retry_at IS NULL) AS given_up,
       min(c.retry_at) FILTER (WHERE c.status = 'FAILED') AS next_retry_at,
       count(*) FILTER (WHERE c.status = 'PROCESSING' AND coalesce(c.lease_expires_at < now(), true)) AS leases_expired,
       count(*) * min(p.searches) AS searches_planned,
       sum(c.searches_done - c.refinements)::bigint AS searches_done, sum(c.refinements)::bigint AS refinements,
       sum(c.calls_used)::bigint AS calls_used,
       min(c.start_time) AS first_started_at, max(c.end_time) FILTER (WHERE c.status = 'COMPLETED') AS last_completed_at,
       make_interval(secs => sum(c.working_seconds)) AS working_time
  FROM batch_checkpoint c
  JOIN region r ON (r.region_type, r.region_code) = (c.region_type, c.region_code) AND r.status = 'ACTIVE' AND r.is_leaf
  LEFT JOIN batch_plan p ON (p.batch_name, p.region_type) = (c.batch_name, c.region_type)
 GROUP BY c.batch_name, c.region_type;
