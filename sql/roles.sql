-- Roles with the least rights: mohe_collector runs collections, mohe_reader is for dashboards and exporters. The owner of
-- the tables (mohe_user) stays the only one who migrates.
--
-- Run it as that owner, in each of the two databases, after `mohe db migrate`; any number of times. Tables made later
-- get their rights by themselves. The owner needs CREATEROLE only if the roles are not there yet. `mohe db migrate --roles`
-- does the same in both databases.
--
--   psql -U mohe_user -d mohe_db < sql/roles.sql
--   psql -U mohe_user -d dagster < sql/roles.sql
--
-- Our tables are expected in the schema public.
--
-- PUBLIC loses the rights to connect and to make temporary tables, which PostgreSQL gives to every role of the server; roles
-- that were given rights on tables here by name keep connecting. A role of your own that reads by other ways needs
-- GRANT CONNECT ON DATABASE.
--
-- No role has a password, and so none can log in over the network, until somebody sets one: \password mohe_collector

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mohe_collector') THEN
        CREATE ROLE mohe_collector LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mohe_reader') THEN
        CREATE ROLE mohe_reader LOGIN;
    END IF;
END $$;

-- Who owns the schema makes tables; before PostgreSQL 15 everybody could.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mohe_collector, mohe_reader;

-- A reader that forgets a transaction or a query must not fill the server, nor hold a migration up. Limits that are set already
-- stay. A role may change its own time-outs, not its number of connections.
DO $$
DECLARE
    setting text;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mohe_reader' AND rolconnlimit = -1) THEN
        ALTER ROLE mohe_reader CONNECTION LIMIT 20;
    END IF;
    FOREACH setting IN ARRAY ARRAY['statement_timeout', 'idle_in_transaction_session_timeout'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles, unnest(rolconfig) AS one
                        WHERE rolname = 'mohe_reader' AND one LIKE setting || '=%') THEN
            EXECUTE format('ALTER ROLE mohe_reader SET %I = %L', setting, '60s');
        END IF;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'This role may not limit mohe_reader; run as one that may: ALTER ROLE mohe_reader CONNECTION LIMIT 20; and '
                  'ALTER ROLE mohe_reader SET statement_timeout = 60000; and the same for idle_in_transaction_session_timeout.';
END $$;

DO $$
DECLARE
    ours    boolean := to_regclass('public.batch_checkpoint') IS NOT NULL;
    dagster boolean := to_regclass('public.event_logs') IS NOT NULL;
    one     record;
BEGIN
    FOR one IN SELECT DISTINCT a.grantee::regrole AS name FROM pg_class c, aclexplode(c.relacl) a
                WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> 0 LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %s', current_database(), one.name);
    END LOOP;
    EXECUTE format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    -- A replay rebuilds the places in a temporary table.
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO mohe_collector', current_database());
    IF NOT ours AND NOT dagster THEN
        RAISE EXCEPTION 'There are no tables yet in database %: run `mohe db migrate` first.', current_database();
    END IF;
    IF ours THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO mohe_reader', current_database());
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO mohe_reader;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO mohe_reader;
        -- But no digest: of the client id, of the credentials that were proven or refused, and of those of an API that is down.
        REVOKE SELECT ON api_budget, api_usage FROM mohe_reader;
        FOR one IN SELECT attrelid::regclass AS name, string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns
                     FROM pg_attribute
                    WHERE attrelid IN ('api_budget'::regclass, 'api_usage'::regclass) AND attnum > 0 AND NOT attisdropped
                      AND attname NOT IN ('account', 'proven', 'blocked', 'unavailable_for') GROUP BY 1 LOOP
            EXECUTE format('GRANT SELECT (%s) ON %s TO mohe_reader', one.columns, one.name);
        END LOOP;
        -- What a reset and a replay delete; history, regions and the API's budget are only ever added to.
        GRANT DELETE ON places, search_query, batch_checkpoint TO mohe_collector;
        -- After a refresh that brings many regions it gathers the planner's statistics, which older servers leave to the owner.
        IF current_setting('server_version_num')::integer >= 170000 THEN
            EXECUTE 'GRANT MAINTAIN ON region, legal_dong, batch_checkpoint TO mohe_collector';
        END IF;
    END IF;
    GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO mohe_collector;
    GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO mohe_collector;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE ON TABLES TO mohe_collector;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO mohe_collector;
    IF dagster THEN
        -- Dagster clears its own tables: ticks, concurrency slots, deleted runs and partitions. (Where both share one
        -- database, which is not the default, this is a right to delete from ours, too.)
        GRANT DELETE ON ALL TABLES IN SCHEMA public TO mohe_collector;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT DELETE ON TABLES TO mohe_collector;
    END IF;
    IF to_regclass('public.mohe_schema_version') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON mohe_schema_version FROM mohe_collector;
    END IF;
END $$;
