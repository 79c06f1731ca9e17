"""`mohe plan`: what a collection will cost in calls and days, before it is started."""

import datetime as dt
import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mohe_assets import settings as settings_module
from mohe_assets.forecast import KST, NEVER, Allowance, Forecast, forecast
from mohe_assets.platform import Platform
from mohe_assets.regions import bundled_snapshot
from mohe_assets.settings import classic_ends
from mohe_assets.store.overview import WorkLeft


def plan(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False) -> None:
    """Show the calls a collection still takes, and when they are made at the earliest. Sends none."""
    with Platform.open(settings_module.load()) as platform:
        left = platform.work_left()
        allowance = platform.allowance()
        keywords = len(platform.settings.mohe_search_keywords)
    if not left.regions:
        regions = len(bundled_snapshot().leaves)
        depth = max(0, platform.settings.mohe_max_calls_per_region - keywords) * regions
        left = WorkLeft(regions=regions, base=regions * keywords, depth=depth)
    now = dt.datetime.now(KST)
    base = forecast(left.base, allowance, now=now)
    deepest = forecast(left.base + left.depth, allowance, now=now)
    warning = classic_ends(now, platform.settings.uses_hub)
    if as_json:
        found = {"regions": left.regions, "keywords": keywords, "allowance": asdict(allowance), "base": asdict(base)}
        typer.echo(json.dumps({**found, "with_refinement": asdict(deepest), "warning": warning}, default=str, indent=2))
        return
    Console().print(_table(left, keywords, allowance, base, deepest))
    if warning:
        typer.echo(warning)
    if not platform.settings.mohe_refine:
        typer.echo("MOHE_REFINE is false: refinement begins only when somebody runs refine_places.")


def _table(left: WorkLeft, keywords: int, allowance: Allowance, base: Forecast, deepest: Forecast) -> Table:
    title = (
        f"{left.regions} regions × {keywords} keywords; {allowance.left_today:,} of {allowance.daily_quota:,} calls left today, "
        f"{allowance.calls_per_second:g} a second"
    )
    if allowance.monthly_quota is not None:
        title += f"; {allowance.left_month:,} of {allowance.monthly_quota:,} left this month"
    table = Table("", "calls left", "days", "done at the earliest", title=title, title_justify="left")
    table.add_row("base plan of every region", f"{base.calls:,}", str(base.days), _when(base))
    table.add_row("and refinement, at most", f"{deepest.calls:,}", str(deepest.days), _when(deepest))
    return table


def _when(found: Forecast) -> str:
    if found.done_at == NEVER:
        return "never"
    return f"{found.done_at.astimezone(KST):%Y-%m-%d %H:%M} KST" if found.calls else "done"
