-- Regions of the government's list (법정동코드), and the names of the dongs in them.
-- Plain and idempotent: `psql < sql/001_regions.sql` may be run any number of times.

CREATE TABLE IF NOT EXISTS region (
    region_type   varchar(50)  NOT NULL,                 -- 'sigungu'; other granularities share the table
    region_code   varchar(20)  NOT NULL,                 -- first five digits of region_cd for a sigungu
    region_name   varchar(200) NOT NULL,                 -- full name: '경기도 수원시 장안구'
    sido_name     varchar(100) NOT NULL,
    sigungu_name  varchar(100) NOT NULL,                 -- without the sido: '수원시 장안구'
    parent_code   varchar(20)  NOT NULL,                 -- the parent city if there is one, else the sido (two digits)
    is_leaf       boolean      NOT NULL,                 -- only leaves are collected; 수원시 is none, its gu are
    partition_key varchar(250) NOT NULL,                 -- assigned once, kept for the region's generation
    status        varchar(20)  NOT NULL DEFAULT 'ACTIVE',
    abolished_at  timestamptz,                           -- first complete download without it
    source        varchar(20)  NOT NULL,                 -- 'api' or 'snapshot'
    as_of         date         NOT NULL,                 -- day of the list that last showed it
    created_at    timestamptz  NOT NULL DEFAULT now(),
    updated_at    timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (region_type, region_code),
    CONSTRAINT region_status_known CHECK (status IN ('ACTIVE', 'ABOLISHED')),
    CONSTRAINT region_abolished_is_dated CHECK ((status = 'ABOLISHED') = (abolished_at IS NOT NULL)),
    CONSTRAINT region_partition_key_plain CHECK (partition_key !~ '[[:space:],]')
);
CREATE UNIQUE INDEX IF NOT EXISTS uq_region_partition_key ON region (region_type, partition_key);
CREATE INDEX IF NOT EXISTS ix_region_parent_code ON region (parent_code);

CREATE TABLE IF NOT EXISTS legal_dong (
    region_type   varchar(50)  NOT NULL,
    region_code   varchar(20)  NOT NULL,
    dong_name     varchar(100) NOT NULL,                 -- '역삼동', or '돌산읍 군내리' for a ri
    dong_code     varchar(10),                           -- ten digits; the bundled snapshot has none
    status        varchar(20)  NOT NULL DEFAULT 'ACTIVE',
    abolished_at  timestamptz,
    created_at    timestamptz  NOT NULL DEFAULT now(),
    updated_at    timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (region_type, region_code, dong_name),
    FOREIGN KEY (region_type, region_code) REFERENCES region (region_type, region_code),
    CONSTRAINT legal_dong_status_known CHECK (status IN ('ACTIVE', 'ABOLISHED')),
    CONSTRAINT legal_dong_abolished_is_dated CHECK ((status = 'ABOLISHED') = (abolished_at IS NOT NULL))
);
CREATE INDEX IF NOT EXISTS ix_legal_dong_dong_name ON legal_dong (dong_name);

-- One row per region list that was stored. Its time decides when the next refresh is due.
CREATE TABLE IF NOT EXISTS region_refresh (
    id            bigserial    PRIMARY KEY,
    region_type   varchar(50)  NOT NULL,
    source        varchar(20)  NOT NULL,                 -- 'api' or 'snapshot'
    as_of         date         NOT NULL,
    rows_read     integer      NOT NULL CHECK (rows_read > 0),
    calls         integer      NOT NULL CHECK (calls >= 0),
    added         integer      NOT NULL,
    abolished     integer      NOT NULL,
    note          text,                                  -- reason the snapshot was used
    refreshed_at  timestamptz  NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS ix_region_refresh_refreshed_at ON region_refresh (region_type, refreshed_at DESC);
