"""`mohe plan`: what a collection will cost in calls and days, before it is started."""

import datetime as dt
import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mohe_assets import settings as settings_module
from mohe_assets.app import Platform
from mohe_assets.domain.forecast import Allowance, Left, all_left
from mohe_assets.domain.kst import KST
from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.ops.status_text import done_when
from mohe_assets.settings import classic_ends
from mohe_assets.store.reads.overview import WorkLeft


def plan(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False) -> None:
    """Show the calls a collection still takes, and when they are made at the earliest. Sends none."""
    with Platform.open(settings_module.load()) as app:
        left = app.work_left()
        allowance = app.allowance(app.api_state())
        keywords = len(app.settings.mohe_search_keywords)
    if not left.regions:
        regions = len(bundled_snapshot().leaves)
        depth = max(0, app.settings.mohe_max_calls_per_region - keywords) * regions
        left = WorkLeft(regions=regions, base=regions * keywords, depth=depth)
    now = dt.datetime.now(KST)
    found = all_left(left.base, left.depth, allowance, now=now)
    warning = classic_ends(now, app.settings.uses_hub)
    if as_json:
        shown = {"regions": left.regions, "keywords": keywords, "allowance": asdict(allowance), "base": asdict(found.base_plan)}
        shown |= {"with_refinement": asdict(found.with_refinement), "warning": warning}
        typer.echo(json.dumps(shown, default=str, indent=2))
        return
    Console().print(_table(left, keywords, allowance, found))
    if warning:
        typer.echo(warning)
    if not app.settings.mohe_refine:
        typer.echo("MOHE_REFINE is false: refinement begins only when somebody runs refine_places.")


def _table(left: WorkLeft, keywords: int, allowance: Allowance, found: Left) -> Table:
    title = (
        f"{left.regions} regions × {keywords} keywords; {allowance.left_today:,} of {allowance.daily_quota:,} calls left today, "
        f"{allowance.calls_per_second:g} a second"
    )
    if allowance.monthly_quota is not None:
        title += f"; {allowance.left_month:,} of {allowance.monthly_quota:,} left this month"
    table = Table("", "calls left", "days", "done at the earliest", title=title, title_justify="left")
    for name, until in (("base plan of every region", found.base_plan), ("and refinement, at most", found.with_refinement)):
        table.add_row(name, f"{until.calls:,}", str(until.days), done_when(until))
    return table
