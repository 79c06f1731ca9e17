"""The tables and files as the assets' pages show them. A test keeps the tables equal to the database's own columns."""

import dagster as dg

from mohe_assets.catalog import COLUMNS

REGION = dg.TableSchema(
    columns=[
        dg.TableColumn("region_type", "varchar", description="sigungu"),
        dg.TableColumn("region_code", "varchar", description="first five digits of the list's ten"),
        dg.TableColumn("region_name", "varchar", description="full name, such as 경기도 수원시 장안구"),
        dg.TableColumn("sido_name", "varchar"),
        dg.TableColumn("sigungu_name", "varchar", description="without the sido"),
        dg.TableColumn("parent_code", "varchar", description="the parent city, else the sido's two digits"),
        dg.TableColumn("is_leaf", "bool", description="only leaves are collected"),
        dg.TableColumn("partition_key", "varchar", description="assigned once, kept for the region's life"),
        dg.TableColumn("status", "varchar", description="ACTIVE or ABOLISHED"),
        dg.TableColumn("abolished_at", "timestamptz"),
        dg.TableColumn("source", "varchar", description="api or snapshot"),
        dg.TableColumn("as_of", "date", description="day of the list that last showed it"),
        dg.TableColumn("created_at", "timestamptz"),
        dg.TableColumn("updated_at", "timestamptz"),
    ]
)

PLACES = dg.TableSchema(
    columns=[
        dg.TableColumn("id", "int8"),
        dg.TableColumn("name", "text", description="without tags and entities"),
        dg.TableColumn("category", "text", description="one to three levels, split by >"),
        dg.TableColumn("address", "text", description="lot-number address"),
        dg.TableColumn("road_address", "text", description="may be empty"),
        dg.TableColumn("latitude", "numeric", description="WGS84 degrees"),
        dg.TableColumn("longitude", "numeric", description="WGS84 degrees"),
        dg.TableColumn("phone", "text", description="empty: the API gives none any more"),
        dg.TableColumn("website_url", "text", description="the shop's own page, or empty"),
        dg.TableColumn("naver_place_id", "varchar", description="our own stable key, unique; the API gives no id"),
        dg.TableColumn("created_at", "timestamptz"),
        dg.TableColumn("updated_at", "timestamptz"),
        dg.TableColumn("source", "varchar", description="the place source that found it"),
        dg.TableColumn("region_type", "varchar"),
        dg.TableColumn("region_code", "varchar", description="of its address, whatever query found it"),
        dg.TableColumn("first_seen_at", "timestamptz"),
        dg.TableColumn("last_seen_at", "timestamptz"),
    ]
)

PLACE_CATALOG = dg.TableSchema(
    columns=[
        dg.TableColumn(
            column.name, column.kind, description=column.meaning, constraints=dg.TableColumnConstraints(nullable=column.optional)
        )
        for column in COLUMNS
    ]
)
