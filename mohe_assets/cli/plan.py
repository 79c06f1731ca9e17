"""`mohe plan`: the calls and days that a collection takes, before it is started."""

import datetime as dt
import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.domain.forecast import CollectionForecast, QuotaState, forecast_collection
from mohe_assets.domain.kst import KST
from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.ops.status_text import done_when, given_up_sentence, the_apis_day, waits_for
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.settings import classic_ends
from mohe_assets.store.reads.overview import RemainingWork


def plan(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """Show how many calls are left and when they are made at the earliest. Sends no call."""
    settings = settings_module.load()
    keywords = len(settings.search_keywords)
    embedded, note = resolve_urls(settings).embedded, None
    state, mismatch = None, None
    if embedded is not None and not embedded.made:
        left = RemainingWork(regions=0, base=0, refinement=0)
        note = f"{embedded.not_made_yet} This is the plan for all regions of the bundled list."
        with App.attached(settings) as app:
            quota_state = app.quota_state(None)
    else:
        with App.open(settings, looking=True) as app:
            left = app.remaining_work()
            state, mismatch = app.api_state(), app.origin_mismatch()
            quota_state = app.quota_state(state)
    if not left.regions:
        regions = len(bundled_snapshot().leaves)
        depth = max(0, app.settings.max_calls_per_region - keywords) * regions
        left = RemainingWork(regions=regions, base=regions * keywords, refinement=depth)
    now = dt.datetime.now(KST)
    # Without keys, the plan is a forecast as if they were set.
    waiting = waits_for(state, mismatch=mismatch) if state is not None else None
    found = forecast_collection(left.base, left.refinement, quota_state, now=now)
    warning = classic_ends(now, app.settings.uses_hub)
    if as_json:
        shown = {
            "regions": left.regions,
            "keywords": keywords,
            "allowance": asdict(quota_state),
            "base": asdict(found.base_plan),
        }
        shown |= {
            "with_refinement": asdict(found.with_refinement),
            "warning": warning,
            "waits_for": waiting,
            "note": note,
        }
        shown |= {
            "given_up_regions": left.given_up_regions,
            "given_up_calls": left.given_up_calls,
            "refinement_given_up": left.refinement_given_up,
        }
        typer.echo(json.dumps(shown, default=str, indent=2))
        return
    Console().print(_table(left, keywords, quota_state, found, waiting))
    if note:
        typer.echo(note)
    if sentence := given_up_sentence(
        left.given_up_regions, left.given_up_calls, left.refinement_given_up
    ):
        typer.echo(f"Given up: {sentence}.")
    if state is not None and not state.open:
        typer.echo(f"API: {the_apis_day(state, quote=str)}.")
    if warning:
        typer.echo(warning)
    if not app.settings.refine:
        typer.echo("MOHE_REFINE is false: only the job refine_places refines.")


def _table(
    left: RemainingWork,
    keywords: int,
    quota_state: QuotaState,
    found: CollectionForecast,
    waiting: str | None,
) -> Table:
    title = (
        f"{left.regions} regions × {keywords} keywords; {quota_state.left_today:,} of "
        f"{quota_state.daily_quota:,} calls left today, "
        f"{quota_state.calls_per_second:g} a second"
    )
    if quota_state.monthly_quota is not None:
        title += f"; {quota_state.left_month:,} of {quota_state.monthly_quota:,} left this month"
    table = Table(
        "", "calls left", "days", "done at the earliest", title=title, title_justify="left"
    )
    for name, until in (
        ("base plan of every region", found.base_plan),
        ("and refinement, at most", found.with_refinement),
    ):
        table.add_row(name, f"{until.calls:,}", str(until.days), done_when(until, waiting))
    return table
