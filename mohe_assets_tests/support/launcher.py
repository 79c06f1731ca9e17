"""Jobs run in this process, and their results."""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from mohe_assets_tests.support.processes import partition_of


@dataclass(frozen=True, kw_only=True)
class Done:
    """An ended run."""

    run_id: str
    succeeded: bool
    materialized: tuple[str, ...]
    log: str


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """Run jobs in this process, on this test's instance."""

    instance: dg.DagsterInstance
    definitions: dg.Definitions

    def create(self, first: str, last: str | None = None, **tags: str) -> dg.DagsterRun:
        """Create a run over a range of partitions without executing it."""
        span = {
            ASSET_PARTITION_RANGE_START_TAG: first,
            ASSET_PARTITION_RANGE_END_TAG: last or first,
        }
        job = self.definitions.resolve_job_def("ingest_places")
        return self.instance.create_run_for_job(job, tags={**span, **tags})

    def execute(self, run: dg.DagsterRun) -> Done:
        job = self.definitions.resolve_job_def(run.job_name)
        result = execute_run(InMemoryJob(job), run, self.instance, raise_on_error=False)
        return self.done(run.run_id, succeeded=result.success)

    def collect(self, first: str, last: str | None = None, **tags: str) -> Done:
        return self.execute(self.create(first, last, **tags))

    def job(self, name: str, run_config: Mapping[str, object] | None = None) -> Done:
        job = self.definitions.resolve_job_def(name)
        result = job.execute_in_process(
            run_config=run_config, instance=self.instance, raise_on_error=False
        )
        return self.done(result.run_id, succeeded=result.success)

    def done(self, run_id: str, *, succeeded: bool) -> Done:
        entries = self.instance.all_logs(run_id)
        events = [
            entry
            for entry in entries
            if entry.dagster_event and entry.dagster_event.is_step_materialization
        ]
        errors = [
            str(entry.dagster_event.event_specific_data) for entry in entries if entry.dagster_event
        ]
        return Done(
            run_id=run_id,
            succeeded=succeeded,
            materialized=tuple(
                sorted(partition_of(entry) for entry in events if partition_of(entry))
            ),
            log="\n".join([*(entry.message for entry in entries), *errors]),
        )
