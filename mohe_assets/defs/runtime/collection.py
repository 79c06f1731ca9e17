"""Run a collection inside a Dagster run: report outcomes as materializations, and the end as
success or failure.
"""

import datetime as dt
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import dagster as dg

from mohe_assets.app import App
from mohe_assets.collection.heartbeat import DECLARED_DEAD
from mohe_assets.collection.region_worker import Outcome, RegionOutcome
from mohe_assets.collection.run import BATCH_OUTCOMES, CollectionRun
from mohe_assets.collection.scheduler import ClaimFilter, region_facts
from mohe_assets.defs.runtime.console_logger import lines_without_storage
from mohe_assets.defs.runtime.dagster_internals import (
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    DagsterEventBatchMetadata,
    make_new_run_id,
)
from mohe_assets.defs.runtime.events import failure_observation, materialization
from mohe_assets.defs.runtime.reconciliation import plan, regions_of, show_as_untried
from mohe_assets.defs.runtime.recovery import recover
from mohe_assets.domain.kst import KST
from mohe_assets.errors import ApiBlocked, ApiUnavailable, QuotaExhausted
from mohe_assets.logs import about
from mohe_assets.store.checkpoints import Status
from mohe_assets.store.database import reconnecting
from mohe_assets.text.cleaning import markdown


@dataclass(kw_only=True)
class Totals:
    """Counts of the outcomes of a run, and of its places and calls."""

    completed: int = 0
    refined: int = 0
    failed: int = 0
    released: int = 0
    lost: int = 0
    places: int = 0
    calls: int = 0

    def add(self, outcome: RegionOutcome) -> None:
        """Count the outcome of a region."""
        name = outcome.outcome.value
        setattr(self, name, getattr(self, name) + 1)
        if outcome.completion is not None:
            self.places += outcome.completion.places
            self.calls += outcome.completion.calls


Context = dg.AssetExecutionContext | dg.OpExecutionContext
# Thresholds of the garbage collector: every 10,000 new objects, and every 20th and 400th time among
# older ones. Up to a megabyte of garbage stays a little longer.
GC_THRESHOLDS = (10_000, 20, 20)
EVENT_BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"


@contextmanager
def cancelled_by_signals(context: Context) -> Iterator[None]:
    """Report a run that a signal stops as cancelled.

    Without that report Dagster counts the signal as a failure, and a failed run marks regions red
    that it never tried.
    """
    try:
        yield
    except dg.DagsterExecutionInterruptedError:
        context.instance.report_run_canceling(
            context.run, message="Stopped by a signal; its regions are released."
        )
        raise


def collect(
    context: Context,
    app: App,
    claim_filter: ClaimFilter,
    *,
    prepare: Callable[[], int],
) -> Totals:
    """Collect, and log a materialization for each region that completes.

    `prepare` is called first, as part of the run; it returns the number of regions to collect.
    Raises Failure at the end if a region failed or the API is blocked. A run that the quota ends is
    a success.
    """
    totals = Totals()
    with lines_without_storage(), app.session(context.run.run_id) as session:
        _get_ready(context, app, claim_filter)
        run = app.collection_in(session, claim_filter, total=prepare())
        with closing(run.batches()) as batches:
            for batch in batches:
                _report(context, batch)
                for outcome in batch:
                    totals.add(outcome)
    _account_for_the_rest(context, app, claim_filter, run)
    reconnecting()(recover, context.instance, app)
    if run.failed or isinstance(run.halted, ApiBlocked):
        reconnecting()(_show_released_as_untried, context, app, claim_filter)
    _end(context, run)
    return totals


def _get_ready(context: Context, app: App, claim_filter: ClaimFilter) -> None:
    app.load_what_collects(refining=claim_filter.refine)
    # Objects of Dagster and the libraries stay alive; searching them for garbage would delay all
    # searches by 50 ms now and then, and the end of the process by 300 ms. New objects end with
    # their search; Python's default frequency of collections would take a twelfth of the run.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    reconnecting()(recover, context.instance, app)


def _account_for_the_rest(
    context: Context, app: App, claim_filter: ClaimFilter, run: CollectionRun
) -> None:
    """Report the requested regions that this run did not claim.

    Regions that another run has collected since the request are reported again; regions that
    another run holds are left to that run. Regions that a closed API kept from being collected
    again start a new round, so that the sensor completes the request.
    """
    others = run.not_taken()
    # A region in refinement keeps the time at which its base plan was completed.
    stale = {one.region_code for one in others if _is_stale(one.end_time, claim_filter)}
    fresh = [
        one.region_code
        for one in others
        if one.status == Status.COMPLETED and one.region_code not in stale
    ]
    if stale and run.halted is not None:
        again = app.checkpoints.new_round(sorted(stale))
        context.log.warning(
            f"{len(again)} completed regions wait for their new round: {run.halted}"
        )
    for completion in app.checkpoints.completions(fresh, reported_too=True) if fresh else []:
        # Reported again, so that the partition is done for this run and its backfill.
        reconnecting()(context.log_event, materialization(completion))
    for one in others:
        if one.status == Status.PROCESSING and one.region_code not in stale:
            context.log.warning(
                f"{one.region_name} is left to run {one.run_id}, which is collecting it."
            )


def _is_stale(end_time: dt.datetime | None, claim_filter: ClaimFilter) -> bool:
    """Return whether the region was completed before it was requested."""
    before = claim_filter.recollect_completed_before
    return before is not None and end_time is not None and end_time < before


def _report(context: Context, outcomes: Sequence[RegionOutcome]) -> None:
    if done := [materialization(one.completion) for one in outcomes if one.completion is not None]:
        # Dagster retries its storage for a second; a restarting database takes longer.
        reconnecting()(log_materializations, context, done)
    for outcome in outcomes:
        if outcome.completion is None:
            with about(**region_facts(outcome.lease)):
                _report_unfinished(context, outcome)


def log_materializations(
    context: Context, materializations: Sequence[dg.AssetMaterialization]
) -> None:
    """Log the events as `context.log_event` does, but store them together.

    Stored singly, each event opens two connections.
    """
    step = context.get_step_execution_context()
    batch, last = make_new_run_id(), len(materializations) - 1
    with _stored_in_batches():
        for number, one in enumerate(materializations):
            dg.DagsterEvent.asset_materialization(
                step, one, DagsterEventBatchMetadata(batch, is_end=number == last)
            )


@contextmanager
def _stored_in_batches() -> Iterator[None]:
    """Set the variable that makes Dagster batch events; Dagster reads it with every event."""
    before = os.environ.get(EVENT_BATCH_SIZE)
    os.environ[EVENT_BATCH_SIZE] = str(BATCH_OUTCOMES)
    try:
        yield
    finally:
        if before is None:
            del os.environ[EVENT_BATCH_SIZE]
        else:
            os.environ[EVENT_BATCH_SIZE] = before


def _report_unfinished(context: Context, outcome: RegionOutcome) -> None:
    context.log.warning(f"{outcome.lease.region_name} {outcome.outcome.value}: {outcome.reason}")
    if outcome.outcome is Outcome.FAILED:
        reconnecting()(
            context.log_event,
            failure_observation(outcome.lease, outcome.reason, context.run.run_id),
        )
        if not _is_partitioned(context.run):
            reconnecting()(_show_as_failed, context, outcome.lease.partition_key)


def _is_partitioned(run: dg.DagsterRun) -> bool:
    return PARTITION_NAME_TAG in run.tags or ASSET_PARTITION_RANGE_START_TAG in run.tags


def _show_as_failed(context: Context, partition_key: str) -> None:
    """Show a failed region of the batch as red in the UI.

    For Dagster a partition is failed if the last run that planned to materialize it failed without
    doing so. A partitioned run plans its partitions when it is created; the batch plans only the
    regions that failed.
    """
    step_key = context.get_step_execution_context().step.key
    plan(
        context.instance,
        partition_key,
        run_id=context.run.run_id,
        job_name=context.job_name,
        step_key=step_key,
    )


def _show_released_as_untried(context: Context, app: App, claim_filter: ClaimFilter) -> None:
    """Keep regions that a failing run released or never reached from being shown as failed.

    A run that fails marks every region red that it planned.
    """
    if not _is_partitioned(context.run):
        return
    regions = regions_of(app, claim_filter.codes).values()
    show_as_untried(
        context.instance, [one.partition_key for one in regions if one.status == Status.PENDING]
    )


def _end(context: Context, run: CollectionRun) -> None:
    if run.session.declared_dead:
        context.log.warning(DECLARED_DEAD)
        raise dg.DagsterExecutionInterruptedError
    if isinstance(run.halted, ApiBlocked):
        raise dg.Failure(description=markdown(str(run.halted)), allow_retries=False)
    if isinstance(run.halted, QuotaExhausted):
        until = run.halted.reset_at.astimezone(KST) if run.halted.reset_at else None
        when = f"on {until:%Y-%m-%d at %H:%M} KST" if until else "after the next midnight KST"
        context.log.warning(
            f"{run.halted}; the regions not reached stay PENDING and are collected {when}."
        )
    if isinstance(run.halted, ApiUnavailable):
        context.log.warning(
            f"{run.halted} The regions not reached stay as they were; no attempt is counted."
        )
    if run.failed:
        first = run.failed[0]
        more = f", and {len(run.failed) - 1} more" if len(run.failed) > 1 else ""
        raise dg.Failure(
            description=f"{markdown(first.lease.region_name)}: {markdown(first.reason)}{more}",
            metadata={region.lease.partition_key: region.reason for region in run.failed[:50]},
            allow_retries=False,
        )
