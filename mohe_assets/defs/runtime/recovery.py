"""Repair the differences that a crash leaves between our tables and Dagster's event log.

Our tables are always committed first. So a completion may lack its event, and a dead run may still
look alive in Dagster; the opposite cannot happen. All other differences between partitions and
checkpoints are compared in reconciliation.py.
"""

import datetime as dt
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import dagster as dg

from mohe_assets.app import App
from mohe_assets.collection.scheduler import log_reclaimed, log_resumed, region_facts
from mohe_assets.defs.runtime.events import materialization
from mohe_assets.defs.runtime.names import (
    INGEST_PLACES,
    PLACE_INGESTION_BATCH,
    REFINE_PLACES,
    places_key,
)
from mohe_assets.defs.runtime.reconciliation import REPAIRS_AT_ONCE
from mohe_assets.logs import about
from mohe_assets.store.executions import ReapResult

log = logging.getLogger(__name__)

# Set when this process has to stop: its last ticks do not resume runs that it interrupts itself.
STOPPING = threading.Event()

# A run launched before the code server started is not one of its processes. If its process survived
# the previous server, it writes its row within this time.
NEWER_SERVER_SECONDS = 20
# Limit between Dagster's start of a run and its row, for imports and a connection: usually seconds.
NEVER_STARTED_SECONDS = 60
# Limit between the creation of a run and its submission by the same client: usually moments.
SUBMITTED_SECONDS = 60
# The tick names runs that wait for longer than this.
WORTH_NAMING_SECONDS = 30
# Margin before Dagster's monitoring, which looks every 30 s, fails a run that does not start: a
# failed run shows its regions as red.
AHEAD_OF_MONITORING_SECONDS = 60


def recover(instance: dg.DagsterInstance, app: App) -> ReapResult:
    """Reclaim the regions of dead runs, end these runs in Dagster, report lost completions.

    The log names each interrupted run once, if there is work left to resume.
    """
    app.clock.pull_back()
    reaped = app.executions.reap_dead_runs(
        app.checkpoints, over=lambda run_ids: _over_in_dagster(instance, run_ids)
    )
    log_reclaimed(reaped)
    stopped = [] if STOPPING.is_set() else _end_in_dagster(instance, app)
    if stopped and app.settings.checkpoint_auto_resume and (left := app.checkpoints.due()):
        log_resumed(stopped, left)
    _end_never_started(instance, app)
    _report_completions(instance, app)
    return reaped


def _over_in_dagster(instance: dg.DagsterInstance, run_ids: Collection[str]) -> set[str]:
    found = instance.get_runs(filters=dg.RunsFilter(run_ids=list(run_ids)))
    return {run.run_id for run in found if run.is_finished}


def _end_in_dagster(instance: dg.DagsterInstance, app: App) -> list[str]:
    """Cancel dead runs, which the default launcher does not notice, to free their queue slots.

    They are not reported as failed: a failed run marks regions red that it never tried. Return the
    runs that were stopped in order since the last call.
    """
    ended = app.executions.not_ended_in_dagster()
    for run_id in ended:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_canceled(
                run, message="The run's process is gone; other runs continue its regions."
            )
    return app.executions.mark_ended_in_dagster(ended) if ended else []


@dataclass(kw_only=True)
class CodeServer:
    """The time at which this process became the code server; None in other processes."""

    started_at: dt.datetime | None = None


THIS_CODE_SERVER = CodeServer()


def _end_never_started(instance: dg.DagsterInstance, app: App) -> None:
    """End runs that died between their creation and their first action, which is to write a row.

    The client of a NOT_STARTED run died before submitting it, so it is in no queue. A STARTED run
    has a process. A STARTING run may wait for a node and an image in a cluster, as long as the
    instance's `run_monitoring` allows. Where runs are processes of the code server, runs that are
    older than the server died with its predecessor.
    """
    begun = NEVER_STARTED_SECONDS + app.settings.lease_seconds
    starting = max(
        begun, instance.run_monitoring_start_timeout_seconds - AHEAD_OF_MONITORING_SECONDS
    )
    patience = {
        dg.DagsterRunStatus.NOT_STARTED: float(SUBMITTED_SECONDS),
        dg.DagsterRunStatus.STARTING: starting,
        dg.DagsterRunStatus.STARTED: begun,
    }
    now, server = dt.datetime.now(dt.UTC), THIS_CODE_SERVER.started_at
    if not isinstance(instance.run_launcher, dg.DefaultRunLauncher):
        server = None

    def has_died(record: dg.RunRecord) -> bool:
        if server is not None and record.update_timestamp < server:
            return (now - server).total_seconds() > NEWER_SERVER_SECONDS
        silent = (now - record.update_timestamp).total_seconds()
        return silent > patience[record.dagster_run.status]

    _end_unknown(instance, app, list(patience), has_died)


def end_what_has_not_begun(instance: dg.DagsterInstance, app: App) -> None:
    """Cancel runs that have no row yet, before the code server ends its runs.

    They may die before they can handle a signal. Dagster would report them as failed, and a failed
    run marks regions red that it never tried.
    """
    if isinstance(instance.run_launcher, dg.DefaultRunLauncher):
        launched = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
        _end_unknown(instance, app, launched, lambda _: True)


def _end_unknown(
    instance: dg.DagsterInstance,
    app: App,
    statuses: Sequence[dg.DagsterRunStatus],
    has_died: Callable[[dg.RunRecord], bool],
) -> None:
    """Cancel the runs that collect places and have not written their row."""
    found = {
        record.dagster_run.run_id: record.dagster_run
        for record in instance.get_run_records(filters=dg.RunsFilter(statuses=list(statuses)))
        if has_died(record) and collects_places(record.dagster_run)
    }
    for run_id in found.keys() - app.executions.known(found.keys()):
        instance.report_run_canceled(
            found[run_id], message="The run died before it began; nothing was lost."
        )


def waiting_sentence(instance: dg.DagsterInstance, runs: Collection[dg.DagsterRun]) -> str:
    """Return a sentence on runs that wait to start, with status and duration; empty without any."""
    if not runs:
        return ""
    status = dg.DagsterRunStatus
    waiting = [status.NOT_STARTED, status.QUEUED, status.STARTING]
    filters = dg.RunsFilter(run_ids=[run.run_id for run in runs], statuses=waiting)
    now, named = dt.datetime.now(dt.UTC), list[str]()
    for record in instance.get_run_records(filters=filters):
        seconds = (now - record.update_timestamp).total_seconds()
        if seconds >= WORTH_NAMING_SECONDS:
            run = record.dagster_run
            named.append(f"{run.run_id[:8]} ({run.status.value} for {seconds:.0f} s)")
    return f"Not begun yet: {', '.join(sorted(named))}." if named else ""


def collects_places(run: dg.DagsterRun) -> bool:
    """Return whether a run collects places: of the sensor, a backfill, or a person."""
    return run.job_name in {INGEST_PLACES, PLACE_INGESTION_BATCH, REFINE_PLACES} or (
        places_key() in (run.asset_selection or ())
    )


def _report_completions(instance: dg.DagsterInstance, app: App) -> None:
    completions = app.checkpoints.completions()[:REPAIRS_AT_ONCE]
    for one in completions:
        instance.report_runless_asset_event(materialization(one))
        # The log lists every completed region, even if the run that collected it died.
        with about(**region_facts(one)):
            log.warning(
                "%s: %d places, collected by run %s, which ended before it reported them",
                one.region_name,
                one.places,
                one.run_id,
            )
    app.checkpoints.mark_reported(completions)
