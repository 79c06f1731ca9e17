"""The columns that the assets' pages show, and that places are validated with, are the database's
own.
"""

from collections.abc import Sequence

import dagster as dg
import pytest

from mohe_assets.defs.runtime import column_schemas as shown_tables
from mohe_assets.domain import columns as tables
from mohe_assets.domain.columns import Column
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read


@pytest.mark.parametrize(
    ("table", "columns", "shown"),
    [
        ("region", tables.REGION, shown_tables.REGION),
        ("places", tables.PLACES, shown_tables.PLACES),
    ],
    ids=["region", "places"],
)
def test_the_columns_shown_are_the_tables_own(
    database: Database, table: str, columns: Sequence[Column], shown: dg.TableSchema
) -> None:
    sql = """SELECT column_name, udt_name, is_nullable = 'YES' AS nullable
               FROM information_schema.columns
              WHERE table_schema = 'public' AND table_name = :table ORDER BY ordinal_position"""
    there = [
        (row["column_name"], row["udt_name"], row["nullable"])
        for row in read(database, sql, table=table)
    ]
    assert [(column.name, column.type, column.nullable) for column in columns] == there
    assert [
        (column.name, column.type, column.constraints.nullable) for column in shown.columns
    ] == there
