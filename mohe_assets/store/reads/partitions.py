"""The state of each region that Dagster has to show. Reads only; defs/runtime/reconciliation.py
compares.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection

from mohe_assets.store.database import Database, Scope, rows

# One statement for all regions. `in_flux`: the run that holds the row may still report it.
REGIONS = """
SELECT r.partition_key, c.region_code, c.region_name, c.status, c.round, c.attempt,
       c.round > 1 OR coalesce(c.plan = '', false) AS collected_before,
       coalesce(c.run_id, '') AS run_id,
       CASE WHEN c.status = 'FAILED' THEN coalesce(c.error_message, '') ELSE '' END AS error,
       coalesce(e.status = 'RUNNING', false) AND (c.status = 'FAILED'
                                                  OR c.reported_at IS NULL) AS in_flux
  FROM batch_checkpoint c
  JOIN region r ON r.region_type = c.region_type AND r.region_code = c.region_code
      AND r.status = 'ACTIVE' AND r.is_leaf
  LEFT JOIN batch_execution_metadata e ON e.execution_id = c.run_id
 WHERE c.batch_name = :batch AND c.region_type = :type
   AND (:any_code OR c.region_code = ANY(CAST(:codes AS text[])))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionState:
    """An active region's checkpoint, as far as a page can show it; `error` is set when FAILED."""

    partition_key: str
    region_code: str
    region_name: str
    status: str
    round: int
    collected_before: bool
    attempt: int
    run_id: str
    error: str
    in_flux: bool


def partition_states(
    database: Database, scope: Scope, codes: Collection[str] | None = None
) -> dict[str, PartitionState]:
    """By partition key: all active regions of the batch, or those of these codes."""

    def work(connection: Connection) -> dict[str, PartitionState]:
        values = {
            **scope.values,
            "any_code": codes is None,
            "codes": sorted(codes or ()),
        }
        return {
            row["partition_key"]: PartitionState(**row)
            for row in rows(connection, REGIONS, **values)
        }

    return database.transaction(work)
