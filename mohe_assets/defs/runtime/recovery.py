"""Where our tables and Dagster's event log are two stores: what a crash left between them is put
right here.

Ours is committed first, always. So a completion may lack its event, and a run that died may still
look alive in Dagster; the other way round cannot happen. What partitions show beyond that is
compared in agreement.py.
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

# Set when this process is told to stop: what it interrupts itself is not resumed by its last ticks.
STOPPING = threading.Event()

# A run that was launched before the code server began cannot be in it. Its process may have
# survived the server that launched it, and makes itself known within this time.
NEWER_SERVER_SECONDS = 20
# Between Dagster's start of a run and its row lie imports and a connection: seconds, a minute on a
# bad day.
NEVER_STARTED_SECONDS = 60
# Between a run's creation and its submission by the same client: moments, unless that died.
SUBMITTED_SECONDS = 60
# A run that waits for less is no news.
WORTH_NAMING_SECONDS = 30
# Before Dagster's own monitoring calls a run that does not start failed, which would paint its
# regions red; it looks every half minute.
AHEAD_OF_MONITORING_SECONDS = 60


def recover(instance: dg.DagsterInstance, app: App) -> ReapResult:
    """Takes back the regions of dead runs, ends those runs in Dagster, and reports completions
    nobody reported. The log names each interrupted run once, when there is work left to resume.
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
    """A dead run would keep its queue slot for good: the default launcher does not notice.

    Cancelled, not failed: a failed run would paint the regions it never tried red. Returns the runs
    that were stopped in order since the last look.
    """
    ended = app.executions.not_ended_in_dagster()
    for run_id in ended:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_canceled(
                run, message="The run's process is gone; its regions go on in other runs."
            )
    return app.executions.mark_ended_in_dagster(ended) if ended else []


@dataclass(kw_only=True)
class CodeServer:
    """When this process began to be the code server; None in every other process."""

    started_at: dt.datetime | None = None


THIS_CODE_SERVER = CodeServer()


def _end_never_started(instance: dg.DagsterInstance, app: App) -> None:
    """Ends runs that died between their creation and the first thing they do, which is to make
    themselves known.

    A run that is NOT_STARTED was created by a client that did not live to submit it: it is in no
    queue. One that is STARTED has a process. One that is STARTING may wait for a node and an image
    in a cluster, for as long as the instance's `run_monitoring` gives it. Where runs are processes
    of the code server, those that are older than the server have died with its predecessor.
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
    """Before the code server ends its runs: cancel those that have no row yet.

    They may die before they can handle a signal; Dagster would call them failed, and a failed run
    paints the regions it never tried red.
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
    """Cancel those of the runs that collect places and have made themselves known to nobody."""
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
    """Name the runs that wait to be started, with status and for how long; empty without any."""
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
    """Whether a run collects places, whoever launched it: the sensor, a backfill, a person."""
    return run.job_name in {INGEST_PLACES, PLACE_INGESTION_BATCH, REFINE_PLACES} or (
        places_key() in (run.asset_selection or ())
    )


def _report_completions(instance: dg.DagsterInstance, app: App) -> None:
    completions = app.checkpoints.completions()[:REPAIRS_AT_ONCE]
    for one in completions:
        instance.report_runless_asset_event(materialization(one))
        # Whoever reads the log learns of every region there too, whatever became of the run that
        # collected it.
        with about(**region_facts(one)):
            log.warning(
                "%s: %d places, collected by run %s, which ended before it told",
                one.region_name,
                one.places,
                one.run_id,
            )
    app.checkpoints.mark_reported(completions)
