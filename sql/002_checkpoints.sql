-- The checkpoint per region and the record per run. Names, types and indexes of the columns up to updated_at are
-- those of the Spring Batch job this replaces; its users' queries run unchanged. The transitions are in
-- mohe_assets/store/checkpoints.py.

CREATE TABLE IF NOT EXISTS batch_checkpoint (
    id               bigserial    PRIMARY KEY,
    batch_name       varchar(100) NOT NULL,
    region_type      varchar(50)  NOT NULL,
    region_code      varchar(20)  NOT NULL,
    region_name      varchar(200) NOT NULL,
    parent_code      varchar(20),
    status           varchar(20)  NOT NULL DEFAULT 'PENDING',
    start_time       timestamptz,
    end_time         timestamptz,
    processed_count  integer      NOT NULL DEFAULT 0,    -- distinct places its stored searches of this round returned
    error_message    text,
    created_at       timestamptz  NOT NULL DEFAULT now(),
    updated_at       timestamptz  NOT NULL DEFAULT now()
);

ALTER TABLE batch_checkpoint
    ADD COLUMN IF NOT EXISTS round            integer NOT NULL DEFAULT 1,     -- number of the region's collection
    ADD COLUMN IF NOT EXISTS attempt          integer NOT NULL DEFAULT 0,     -- fencing token: +1 with every claim
    ADD COLUMN IF NOT EXISTS failures         integer NOT NULL DEFAULT 0,     -- failures in a row; bounds the back-off
    ADD COLUMN IF NOT EXISTS run_id           varchar(255),                   -- execution_id of the last holder
    ADD COLUMN IF NOT EXISTS lease_expires_at timestamptz,
    ADD COLUMN IF NOT EXISTS failure_kind     varchar(30),
    ADD COLUMN IF NOT EXISTS retry_at         timestamptz,                    -- NULL while FAILED: only a person retries it
    ADD COLUMN IF NOT EXISTS searches_done    integer NOT NULL DEFAULT 0,     -- of this round, as the ledger has them
    ADD COLUMN IF NOT EXISTS calls_used       integer NOT NULL DEFAULT 0,     -- of this round, as the ledger has them
    ADD COLUMN IF NOT EXISTS reported_at      timestamptz;                    -- when the completion was reported to Dagster

CREATE UNIQUE INDEX IF NOT EXISTS uq_batch_checkpoint_region
    ON batch_checkpoint (batch_name, region_type, region_code);
CREATE INDEX IF NOT EXISTS idx_batch_checkpoint_batch_status ON batch_checkpoint (batch_name, status);
CREATE INDEX IF NOT EXISTS idx_batch_checkpoint_region ON batch_checkpoint (region_type, region_code);
CREATE INDEX IF NOT EXISTS idx_batch_checkpoint_parent ON batch_checkpoint (parent_code);
CREATE INDEX IF NOT EXISTS idx_batch_checkpoint_run ON batch_checkpoint (run_id);

-- Index of a claim: its first entry is the next region to collect.
CREATE INDEX IF NOT EXISTS idx_batch_checkpoint_claim
    ON batch_checkpoint (batch_name, region_type, status, failures, region_code);

CREATE TABLE IF NOT EXISTS batch_execution_metadata (
    id                 bigserial    PRIMARY KEY,
    batch_name         varchar(100) NOT NULL,
    execution_id       varchar(255) NOT NULL,            -- the Dagster run id
    start_time         timestamptz  NOT NULL DEFAULT now(),
    end_time           timestamptz,
    status             varchar(20)  NOT NULL DEFAULT 'RUNNING',
    total_regions      integer      NOT NULL DEFAULT 0,
    completed_regions  integer      NOT NULL DEFAULT 0,
    failed_regions     integer      NOT NULL DEFAULT 0,
    last_checkpoint_id bigint,
    created_at         timestamptz  NOT NULL DEFAULT now(),
    updated_at         timestamptz  NOT NULL DEFAULT now()
);

ALTER TABLE batch_execution_metadata
    ADD COLUMN IF NOT EXISTS heartbeat_at timestamptz,
    ADD COLUMN IF NOT EXISTS host         varchar(255),  -- identity of the machine and its process namespace
    ADD COLUMN IF NOT EXISTS process_id   integer,
    ADD COLUMN IF NOT EXISTS process_started double precision,  -- differs for a reused process id
    ADD COLUMN IF NOT EXISTS calls_used   integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS note         text,          -- reason of its end: quota, stop, error
    ADD COLUMN IF NOT EXISTS dagster_ended_at timestamptz;  -- when the dead run was ended in Dagster too

-- The batch system may have kept several rows of one execution: the latest keeps the name.
UPDATE batch_execution_metadata e SET execution_id = left(e.execution_id, 80) || '#' || e.id
 WHERE EXISTS (SELECT FROM batch_execution_metadata later WHERE later.execution_id = e.execution_id AND later.id > e.id);
CREATE UNIQUE INDEX IF NOT EXISTS uq_batch_execution_metadata_execution ON batch_execution_metadata (execution_id);
CREATE INDEX IF NOT EXISTS idx_batch_execution_metadata_batch ON batch_execution_metadata (batch_name, status);

-- Constraints by name, so that running this again, or over the old system's tables, adds what is missing.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'batch_checkpoint_status_known'
                      AND conrelid = 'batch_checkpoint'::regclass) THEN
        ALTER TABLE batch_checkpoint ADD CONSTRAINT batch_checkpoint_status_known
            CHECK (status IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED'));
    END IF;
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'batch_checkpoint_counts_positive'
                      AND conrelid = 'batch_checkpoint'::regclass) THEN
        ALTER TABLE batch_checkpoint ADD CONSTRAINT batch_checkpoint_counts_positive
            CHECK (round >= 1 AND attempt >= 0 AND failures >= 0 AND processed_count >= 0
                   AND searches_done >= 0 AND calls_used >= 0);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'batch_execution_status_known'
                      AND conrelid = 'batch_execution_metadata'::regclass) THEN
        -- The batch system's statuses of ended runs; those without an equal one here are kept in the note.
        UPDATE batch_execution_metadata
           SET status = CASE WHEN status IN ('STARTING', 'STARTED') THEN 'RUNNING' ELSE 'INTERRUPTED' END,
               note = 'the batch system called it ' || status
         WHERE status NOT IN ('RUNNING', 'COMPLETED', 'FAILED', 'INTERRUPTED');
        ALTER TABLE batch_execution_metadata ADD CONSTRAINT batch_execution_status_known
            CHECK (status IN ('RUNNING', 'COMPLETED', 'FAILED', 'INTERRUPTED'));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER batch_checkpoint_updated_at
    BEFORE UPDATE ON batch_checkpoint FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE OR REPLACE TRIGGER batch_execution_metadata_updated_at
    BEFORE UPDATE ON batch_execution_metadata FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE OR REPLACE TRIGGER region_updated_at
    BEFORE UPDATE ON region FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE OR REPLACE TRIGGER legal_dong_updated_at
    BEFORE UPDATE ON legal_dong FOR EACH ROW EXECUTE FUNCTION set_updated_at();
