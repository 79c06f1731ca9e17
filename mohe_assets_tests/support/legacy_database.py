"""A database as the Spring Batch job left it: its tables, triggers and indexes, and rows in all
four states.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.store.database import Database

BATCH = "place-ingestion-batch"
STATES = ["COMPLETED"] * 100 + ["PROCESSING"] + ["FAILED"] * 5 + ["PENDING"] * 150
STARTED = dt.datetime(2025, 11, 3, 2)  # noqa: DTZ001 - its columns had no zone

TABLES = """
CREATE TABLE batch_checkpoint (
    id BIGSERIAL PRIMARY KEY, batch_name VARCHAR(100) NOT NULL, region_type VARCHAR(50) NOT NULL,
    region_code VARCHAR(20) NOT NULL, region_name VARCHAR(100) NOT NULL, parent_code VARCHAR(20),
    status VARCHAR(20) NOT NULL DEFAULT 'PENDING', start_time TIMESTAMP, end_time TIMESTAMP,
    processed_count INTEGER DEFAULT 0,
    error_message VARCHAR(1000), created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT uk_batch_region UNIQUE (batch_name, region_type, region_code)
);
CREATE INDEX idx_batch_checkpoint_status ON batch_checkpoint (batch_name, status);
CREATE INDEX idx_batch_checkpoint_region ON batch_checkpoint (region_type, region_code);
CREATE INDEX idx_batch_checkpoint_parent ON batch_checkpoint (parent_code);
CREATE TABLE batch_execution_metadata (
    id BIGSERIAL PRIMARY KEY, batch_name VARCHAR(100) NOT NULL, execution_id VARCHAR(100)
    NOT NULL, start_time TIMESTAMP NOT NULL,
    end_time TIMESTAMP, status VARCHAR(20) NOT NULL, total_regions INTEGER
    DEFAULT 0, completed_regions INTEGER DEFAULT 0,
    failed_regions INTEGER DEFAULT 0, last_checkpoint_id BIGINT, created_at TIMESTAMP
    DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE places (
    id BIGSERIAL PRIMARY KEY, name VARCHAR(255) NOT NULL, category VARCHAR(100),
    address VARCHAR(500), road_address VARCHAR(500),
    latitude NUMERIC(10,8), longitude NUMERIC(11,8), phone VARCHAR(20), website_url VARCHAR(500),
    naver_place_id VARCHAR(50) UNIQUE, rating NUMERIC(3,2) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE bookmarks (id BIGSERIAL PRIMARY KEY, place_id BIGINT NOT NULL REFERENCES places (id));
CREATE FUNCTION update_updated_at_column() RETURNS TRIGGER AS $$
BEGIN NEW.updated_at = CURRENT_TIMESTAMP; RETURN NEW; END; $$ LANGUAGE plpgsql;
CREATE TRIGGER update_batch_checkpoint_updated_at BEFORE UPDATE ON batch_checkpoint
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_batch_execution_updated_at BEFORE UPDATE ON batch_execution_metadata
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER update_places_updated_at BEFORE UPDATE ON places
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
"""
CHECKPOINT = """
INSERT INTO batch_checkpoint (batch_name, region_type, region_code, region_name, parent_code,
status, start_time, end_time,
                              processed_count, error_message, created_at, updated_at)
VALUES (:batch, 'sigungu', :code, :name, :parent, :status, :started, :ended, :places, :error,
:created, :created)
"""
EXECUTION = """
INSERT INTO batch_execution_metadata (batch_name, execution_id, start_time, status, total_regions,
completed_regions)
VALUES ('place-ingestion-batch', '17', '2025-11-01 02:00', 'COMPLETED', 256, 40),
       ('place-ingestion-batch', '18', '2025-11-03 02:00', 'STARTED', 256, NULL)
"""
PLACE = """
INSERT INTO places (name, category, address, road_address, latitude, longitude, naver_place_id,
rating, created_at, updated_at)
VALUES (:name, '카페', :address, NULL, :latitude, :longitude, :naver_place_id, 4.5,
'2025-11-03 02:00', '2025-11-04 02:00')
"""


def make(connection: Connection, *, codes_of_ten_digits: bool = False) -> None:
    """The tables, and a checkpoint for each of the 256 regions."""
    connection.exec_driver_sql(TABLES)
    for n, (region, status) in enumerate(zip(bundled_snapshot().leaves, STATES, strict=True)):
        done = status in ("COMPLETED", "FAILED")
        begun = STARTED + dt.timedelta(minutes=n)
        row = {
            "batch": BATCH,
            "code": region.region_code.ljust(10, "0")
            if codes_of_ten_digits
            else region.region_code,
            "name": region.region_name,
            "parent": region.parent_code,
            "status": status,
            "created": STARTED,
            "started": None if status == "PENDING" else begun,
            "ended": begun + dt.timedelta(minutes=1) if done else None,
            "places": 40 + n if status == "COMPLETED" else None,
            "error": "Read timed out" if status == "FAILED" else None,
        }
        connection.execute(text(CHECKPOINT), row)
    connection.execute(text(EXECUTION))


def add_places(connection: Connection, places: Sequence[dict[str, Any]]) -> None:
    """Rows of its `places`: name, address, latitude, longitude and naver_place_id."""
    for place in places:
        connection.execute(text(PLACE), place)


def codes(status: str) -> list[str]:
    """The regions that `make` gives this status."""
    return [
        region.region_code
        for region, its in zip(bundled_snapshot().leaves, STATES, strict=True)
        if its == status
    ]


def in_database(database: Database, **options: bool) -> None:
    """`make`, committed."""
    database.transaction(lambda connection: make(connection, **options))
