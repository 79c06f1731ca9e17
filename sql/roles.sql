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

DO $$
DECLARE
    ours    boolean := to_regclass('public.batch_checkpoint') IS NOT NULL;
    dagster boolean := to_regclass('public.event_logs') IS NOT NULL;
BEGIN
    IF NOT ours AND NOT dagster THEN
        RAISE EXCEPTION 'There are no tables yet in database %: run `mohe db migrate` first.', current_database();
    END IF;
    IF ours THEN
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO mohe_reader;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO mohe_reader;
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
