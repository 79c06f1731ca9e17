-- Refinement: searches of a region beyond its base plan, and the expected gain of the next one.

ALTER TABLE batch_checkpoint
    ADD COLUMN IF NOT EXISTS refining    boolean NOT NULL DEFAULT false,      -- PROCESSING for refinement; returns to COMPLETED
    ADD COLUMN IF NOT EXISTS refinements integer NOT NULL DEFAULT 0,          -- searches of this round beyond the base plan
    ADD COLUMN IF NOT EXISTS promise     double precision NOT NULL DEFAULT 0, -- new places expected of its next refinement
    ADD COLUMN IF NOT EXISTS plan        varchar(64);                         -- digest of the completed base plan; '': it has changed

ALTER TABLE search_query
    ADD COLUMN IF NOT EXISTS novel integer NOT NULL DEFAULT 0;  -- places new in this region and round

-- Gain of refinements nationwide, by stage and keyword.
CREATE INDEX IF NOT EXISTS ix_search_query_refinements
    ON search_query (batch_name, region_type, source, stage, keyword) INCLUDE (novel) WHERE status = 'DONE' AND stage <> 'base';

-- Index of a refinement's claim: its first entry has the highest expected gain.
CREATE INDEX IF NOT EXISTS idx_batch_checkpoint_promise
    ON batch_checkpoint (batch_name, region_type, promise DESC, region_code) WHERE status = 'COMPLETED';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'batch_checkpoint_refines_when_processing'
                      AND conrelid = 'batch_checkpoint'::regclass) THEN
        ALTER TABLE batch_checkpoint ADD CONSTRAINT batch_checkpoint_refines_when_processing
            CHECK (NOT refining OR status = 'PROCESSING');
        -- Once, with the constraint: regions completed before there was an expected gain are examined by the first refinement.
        -- Those of the batch system have no ledger, and stay as they are.
        UPDATE batch_checkpoint SET promise = 5 WHERE status = 'COMPLETED' AND searches_done > 0;
    END IF;
END $$;
