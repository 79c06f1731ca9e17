"""Running a collection inside a Dagster run: outcomes become materializations, the end becomes success or failure."""

from contextlib import closing
from dataclasses import dataclass

import dagster as dg

from mohe_assets.collect import Outcome, Request
from mohe_assets.defs.dead_runs import recover
from mohe_assets.defs.metadata import materialization
from mohe_assets.errors import ApiBlocked
from mohe_assets.platform import Platform


@dataclass(kw_only=True)
class Totals:
    """What a run did, region by region."""

    completed: int = 0
    failed: int = 0
    released: int = 0
    lost: int = 0
    places: int = 0
    calls: int = 0


def collect(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, platform: Platform, request: Request, *, total: int
) -> Totals:
    """Collects, logging one materialization per region as it completes.

    Raises Failure at the end if a region failed or the API is blocked; a used-up quota is a success with what was done.
    """
    recover(context.instance, platform)
    totals = Totals()
    with platform.collection(context.run_id, request, total=total) as run:
        with closing(run.outcomes()) as outcomes:
            for outcome in outcomes:
                if outcome.completion is not None:
                    context.log_event(materialization(outcome.completion))
                    totals.places += outcome.completion.places
                    totals.calls += outcome.completion.calls
                else:
                    context.log.warning(f"{outcome.lease.region_name} {outcome.outcome.value}: {outcome.reason}")
                _count(totals, outcome.outcome)
        if isinstance(run.halted, ApiBlocked):
            raise dg.Failure(description=str(run.halted), allow_retries=False)
        if run.halted is not None:
            context.log.warning(f"{run.halted} The regions not reached stay PENDING and are collected after the reset.")
        if run.failed:
            raise dg.Failure(description=_failure(run.failed), metadata=_reasons(run.failed), allow_retries=False)
    return totals


def _count(totals: Totals, outcome: Outcome) -> None:
    setattr(totals, outcome.value, getattr(totals, outcome.value) + 1)


def _failure(failed: list) -> str:  # type: ignore[type-arg]
    first = failed[0]
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"{first.lease.region_name}: {first.reason}{more}"


def _reasons(failed: list) -> dict[str, str]:  # type: ignore[type-arg]
    return {one.lease.partition_key: one.reason for one in failed[:50]}
