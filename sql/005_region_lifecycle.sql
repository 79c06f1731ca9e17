-- Lifecycle of regions: generations of a code, and the successions from old to new regions.

-- A code that comes back after it was abolished (or that is a leaf again after it had gu) begins a new generation, with a
-- partition key of its own: Dagster shows a key that was deleted and added again as materialized. 0: never a leaf yet.
ALTER TABLE region           ADD COLUMN IF NOT EXISTS life integer NOT NULL DEFAULT 1 CHECK (life >= 0);
-- The generation of its rounds; when the region has another, the checkpoint begins a new round.
ALTER TABLE batch_checkpoint ADD COLUMN IF NOT EXISTS life integer NOT NULL DEFAULT 1 CHECK (life >= 0);

-- Inferred from the names of the dongs, never kept by hand. A region that only changed its name is its own successor.
CREATE TABLE IF NOT EXISTS region_succession (
    region_type    varchar(50)  NOT NULL,
    old_code       varchar(20)  NOT NULL,
    old_name       varchar(200) NOT NULL,
    new_code       varchar(20)  NOT NULL,
    new_name       varchar(200) NOT NULL,
    shared_dongs   integer      NOT NULL,                -- dong names of the old region that the new one has
    share_of_old   double precision NOT NULL,            -- of the old region's dong names, rare ones weighing more
    share_of_new   double precision NOT NULL,            -- of the new region's
    as_of          date         NOT NULL,                -- day of the list that first showed it
    created_at     timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (region_type, old_code, old_name, new_code),
    CONSTRAINT region_succession_shares CHECK (share_of_old BETWEEN 0 AND 1 AND share_of_new BETWEEN 0 AND 1)
);
CREATE INDEX IF NOT EXISTS ix_region_succession_new_code ON region_succession (region_type, new_code);
