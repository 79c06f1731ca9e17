-- The places, and the ledger of the searches that found them.

CREATE TABLE IF NOT EXISTS places (
    id             bigserial     PRIMARY KEY,
    name           text          NOT NULL,
    category       text          NOT NULL,
    address        text          NOT NULL,
    road_address   text          NOT NULL DEFAULT '',
    latitude       numeric(10,8) NOT NULL,
    longitude      numeric(11,8) NOT NULL,
    phone          text          NOT NULL DEFAULT '',
    website_url    text          NOT NULL DEFAULT '',
    naver_place_id varchar(64)   NOT NULL,               -- our own stable key, see mohe_assets/domain/places.py
    created_at     timestamptz   NOT NULL DEFAULT now(),
    updated_at     timestamptz   NOT NULL DEFAULT now()
);
ALTER TABLE places
    ADD COLUMN IF NOT EXISTS source        varchar(30) NOT NULL DEFAULT 'naver-local',
    ADD COLUMN IF NOT EXISTS region_type   varchar(50) NOT NULL DEFAULT 'sigungu',
    ADD COLUMN IF NOT EXISTS region_code   varchar(20),   -- of its address, not of the query; NULL: no known region
    ADD COLUMN IF NOT EXISTS first_seen_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS last_seen_at  timestamptz NOT NULL DEFAULT now();
CREATE UNIQUE INDEX IF NOT EXISTS uq_places_naver_place_id ON places (naver_place_id);
CREATE INDEX IF NOT EXISTS ix_places_region ON places (region_type, region_code);

-- One row per search of a region's round: its answer and its cost. A search without a row, or whose row is
-- FAILED, is still to be made; resuming needs nothing else.
CREATE TABLE IF NOT EXISTS search_query (
    id             bigserial     PRIMARY KEY,
    batch_name     varchar(100)  NOT NULL,
    region_type    varchar(50)   NOT NULL,
    region_code    varchar(20)   NOT NULL,
    round          integer       NOT NULL,
    source         varchar(30)   NOT NULL,
    query          text          NOT NULL,
    sort           varchar(20)   NOT NULL,
    keyword        text          NOT NULL,
    dong_name      varchar(100),
    stage          varchar(20)   NOT NULL,               -- 'base'; refinement adds other stages
    status         varchar(20)   NOT NULL,
    attempt        integer       NOT NULL,               -- the claim that wrote it
    run_id         varchar(255)  NOT NULL,
    calls          integer       NOT NULL,               -- sent for it so far, refused and failed ones included
    result_count   integer,                              -- items answered; 5 means that the cap was hit
    place_ids      bigint[]      NOT NULL DEFAULT '{}',  -- places.id of the items kept, in the answer's order
    new_places     integer       NOT NULL DEFAULT 0,     -- rows that this search added
    strays         integer       NOT NULL DEFAULT 0,     -- places of another region
    set_aside      jsonb         NOT NULL DEFAULT '[]',  -- items not kept: position and reason
    answer         jsonb,                                -- body as received, so that parsing can be replayed without calls
    error_message  text,
    created_at     timestamptz   NOT NULL DEFAULT now(),
    answered_at    timestamptz,
    CONSTRAINT search_query_status_known CHECK (status IN ('DONE', 'SKIPPED', 'FAILED')),
    CONSTRAINT search_query_done_is_answered CHECK (status <> 'DONE' OR (answer IS NOT NULL AND answered_at IS NOT NULL)),
    CONSTRAINT search_query_calls_positive CHECK (calls >= 0)
);
CREATE UNIQUE INDEX IF NOT EXISTS uq_search_query_search
    ON search_query (batch_name, region_type, region_code, round, source, query, sort);
CREATE INDEX IF NOT EXISTS ix_search_query_run ON search_query (run_id);
CREATE INDEX IF NOT EXISTS ix_search_query_answered_at ON search_query (answered_at);

CREATE OR REPLACE TRIGGER places_updated_at
    BEFORE UPDATE ON places FOR EACH ROW EXECUTE FUNCTION set_updated_at();
