"""`mohe status`: where the collection stands."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from mohe_assets import settings as settings_module
from mohe_assets.platform import Platform
from mohe_assets.store.api_budget import ApiState
from mohe_assets.store.checkpoints import Progress
from mohe_assets.store.overview import Overview, read_overview


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything the command shows. `api` is None while no keys are set."""

    progress: Progress
    overview: Overview
    api: ApiState | None


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it, every two seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """Show regions by status, places, searches, the API's day, failed regions with their reasons, and runs."""
    settings = settings_module.load()
    with Platform.open(settings) as platform:
        if as_json:
            typer.echo(json.dumps(asdict(_read(platform)), default=str, ensure_ascii=False, indent=2))
            return
        if not watch:
            Console().print(_show(_read(platform)))
            return
        with Live(_show(_read(platform)), auto_refresh=False) as live:
            while True:
                time.sleep(2)
                live.update(_show(_read(platform)), refresh=True)


def _read(platform: Platform) -> Status:
    settings = platform.settings
    return Status(
        progress=platform.checkpoints.progress(),
        overview=read_overview(platform.database, settings.checkpoint_batch_name, settings.checkpoint_region_type),
        api=platform.api_state(),
    )


def _show(found: Status) -> Group:
    progress, overview = found.progress, found.overview
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("regions", f"{progress.completed} of {progress.total} completed, {progress.processing} in progress, "
                             f"{progress.pending} pending, {progress.failed} failed")  # fmt: skip
    table.add_row("places", f"{overview.places:,}")
    table.add_row("searches", f"{overview.searches:,} stored, {overview.calls:,} calls")
    table.add_row("API", escape(_api(found.api)))
    parts: list[Any] = [table]
    if overview.failures:
        failed = Table("failed region", "kind", "failures", "next try", "reason", title_justify="left")
        for one in overview.failures:
            when = f"{one.retry_at:%m-%d %H:%M}" if one.retry_at else "when asked: mohe retry"
            failed.add_row(one.region_name, one.failure_kind, str(one.failures), when, escape(one.error_message))
        parts.append(failed)
    if overview.runs:
        runs = Table("run", "status", "started", "regions done", "note")
        for run in overview.runs:
            done = f"{run.completed_regions} of {run.total_regions}"
            runs.add_row(run.execution_id[:8], run.status, f"{run.start_time:%m-%d %H:%M:%S}", done, escape(run.note or ""))
        parts.append(runs)
    return Group(*parts)


def _api(state: ApiState | None) -> str:
    if state is None:
        return "no keys are set (NAVER_CLIENT_ID and NAVER_CLIENT_SECRET)"
    text = f"{state.used_today:,} of {state.daily_quota:,} calls used today"
    if state.blocked_why:
        return f"{text}; BLOCKED: {state.blocked_why}"
    if state.closed_until:
        return f"{text}; closed until {state.closed_until:%m-%d %H:%M}: {state.closed_why}"
    return f"{text}; open"
