"""Dagster without this project: a partition a region, a run a partition, launched as a backfill
into the run queue.
"""

from typing import Any

import dagster as dg
import psycopg2
import requests
from psycopg2.extras import execute_values

from benchmarks.peers.job import UPSERT, Job, rows

JOB = Job.given()
NAMES = dict(JOB.regions)


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(list(NAMES)))
def places(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Collect the places of one region in one transaction. Resumes by partition: materialized ones
    are not run again.
    """
    code = context.partition_key
    found: dict[str, tuple[Any, ...]] = {}
    with requests.Session() as session:
        session.headers.update(JOB.headers)
        for query in JOB.queries(NAMES[code]):
            response = session.get(JOB.url, params=JOB.params(query), timeout=30)
            response.raise_for_status()
            found |= {row[0]: row for row in rows(response.json(), code)}
    with psycopg2.connect(JOB.database_url) as connection, connection.cursor() as cursor:
        execute_values(cursor, UPSERT, sorted(found.values()))
    return dg.MaterializeResult(metadata={"places": len(found)})


collect = dg.define_asset_job("collect", selection=[places], executor_def=dg.in_process_executor)
defs = dg.Definitions(assets=[places], jobs=[collect])


def main() -> None:
    """Mark runs without a process as cancelled, as a person does in the UI after a crash."""
    with dg.DagsterInstance.get() as instance:
        dead = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
        for run in instance.get_runs(dg.RunsFilter(statuses=dead)):
            instance.report_run_canceled(run)


if __name__ == "__main__":
    main()
