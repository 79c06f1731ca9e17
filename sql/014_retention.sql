-- The sizes of our database and of Dagster's, one measurement a day: `mohe status` shows their growth.

CREATE TABLE IF NOT EXISTS database_size (
    database    varchar(20) NOT NULL,                    -- 'data' or 'dagster'
    measured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    bytes       bigint      NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (database, measured_at)
);

-- The first one is made now: retention deletes nothing on the day of its first measurement, see store/retention.py.
INSERT INTO database_size (database, bytes)
SELECT 'data', pg_database_size(current_database()) WHERE NOT EXISTS (SELECT FROM database_size);
