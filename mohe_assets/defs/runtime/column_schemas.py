"""Column schemas of the tables and the catalog for the pages of the assets, from the columns in
domain/columns.py and publishing/catalog.py.
"""

from collections.abc import Sequence

import dagster as dg

from mohe_assets.domain import columns as tables
from mohe_assets.domain.columns import Column
from mohe_assets.publishing.catalog import COLUMNS


def _shown(columns: Sequence[Column]) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.type,
                description=column.description or None,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in columns
        ]
    )


REGION = _shown(tables.REGION)
PLACES = _shown(tables.PLACES)
PLACE_CATALOG = _shown(COLUMNS)
