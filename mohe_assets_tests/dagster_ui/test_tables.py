"""The column schemas on the assets' pages are the database's own."""

import dagster as dg
import pytest

from mohe_assets.defs import tables
from mohe_assets.store.database import Database
from mohe_assets_tests.recovery.processes import read


@pytest.mark.parametrize(("table", "shown"), [("region", tables.REGION), ("places", tables.PLACES)], ids=["region", "places"])
def test_the_columns_shown_are_the_tables_own(database: Database, table: str, shown: dg.TableSchema) -> None:
    sql = """SELECT column_name, udt_name FROM information_schema.columns
              WHERE table_schema = 'public' AND table_name = :table ORDER BY ordinal_position"""
    there = [(row["column_name"], row["udt_name"]) for row in read(database, sql, table=table)]
    assert [(column.name, column.type) for column in shown.columns] == there
