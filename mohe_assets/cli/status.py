"""`mohe status`: the progress of the collection."""

import datetime as dt
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Literal

import typer
from pydantic import TypeAdapter
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.terminal import shown
from mohe_assets.domain.forecast import CollectionForecast, forecast_collection
from mohe_assets.domain.kst import KST, short_to_second
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.ops.status_text import given_up_sentence, the_apis_day, waits_for, what_is_left
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.settings import classic_ends
from mohe_assets.store.api_state import ApiState
from mohe_assets.store.checkpoints import Progress
from mohe_assets.store.dagster_state import DagsterState, failing_sentence, read_dagster_state
from mohe_assets.store.reads.overview import Overview, RunRow
from mohe_assets.store.retention import DatabaseSize

SECONDS_BETWEEN_LOOKS = 2


@dataclass(frozen=True, kw_only=True)
class GivenUp:
    """Regions that are FAILED for good, the calls they lack, and refinements that errors ended."""

    regions: int
    calls: int
    refinements: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything the command shows. `api` is null while no keys are set; `warnings` are sentences.

    `left` counts calls that will be made without a person, `given_up` those that will not;
    `waits_for` says why none is made now. `daemon_alive` is null where Dagster's database cannot be
    read.
    """

    schema_version: Literal[1]
    at: dt.datetime
    home: str
    database: str
    data_origin: Literal["none", "simulator", "api"]
    regions: int
    daemon_alive: bool | None
    batch_name: str
    region_type: str
    progress: Progress
    overview: Overview
    left: CollectionForecast
    given_up: GivenUp
    waits_for: str | None
    calls_per_second_allowed: float
    keys_are_set: bool
    api: ApiState | None
    databases: tuple[DatabaseSize, ...]
    warnings: tuple[str, ...]


# The output of `--json`; docs/status.schema.json is its schema.
JSON = TypeAdapter(Status)


def status(
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Update the output every two seconds until Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object, for scripts; docs/status.md describes it."),
    ] = False,
) -> None:
    """Show regions by status, places, rate, calls left and the expected end, the use of the quota,
    failed regions, and runs.
    """
    if watch and as_json:
        raise typer.BadParameter("either --watch or --json, not both")
    with App.open(settings_module.load(), looking=True) as app:
        if as_json:
            typer.echo(JSON.dump_json(_read(app), indent=2))
        elif watch:
            _watch(app)
        else:
            Console().print(_show(_read(app)))


def _watch(app: App) -> None:
    """Show the status until interrupted.

    While the database is unavailable, show the last status and the reason.
    """
    seen: RenderableType = ""
    interrupted: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        # Python drops an exception that is raised in a destructor, so a list keeps the signal, too.
        interrupted.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, end)
    try:
        # The alternate screen: a table longer than the window cannot be overwritten.
        with Live(screen=True, auto_refresh=False) as live:
            while not interrupted:
                try:
                    seen = _show(_read(app))
                    live.update(seen, refresh=True)
                except DatabaseUnavailable as error:
                    live.update(Group(seen, shown(str(error))), refresh=True)
                time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)
    Console().print(seen)


def _read(app: App) -> Status:
    settings, now = app.settings, dt.datetime.now(KST)
    left, state = app.remaining_work(), app.api_state()
    keys_are_set = settings.naver_client_id is not None or settings.uses_hub
    dagster, edits = _dagster_state(app), app.hand_edits()
    return Status(
        schema_version=1,
        at=now,
        home=str(settings.home),
        database=app.place,
        data_origin=app.data_origin.places().value,
        regions=edits.regions,
        daemon_alive=dagster.daemon_alive if dagster else None,
        batch_name=settings.checkpoint_batch_name,
        region_type=settings.checkpoint_region_type,
        progress=app.checkpoints.progress(),
        overview=app.overview(),
        left=forecast_collection(left.base, left.refinement, app.quota_state(state), now=now),
        given_up=GivenUp(
            regions=left.given_up_regions,
            calls=left.given_up_calls,
            refinements=left.refinement_given_up,
        ),
        waits_for=waits_for(state if keys_are_set else None, mismatch=app.origin_mismatch()),
        calls_per_second_allowed=settings.calls_per_second,
        keys_are_set=keys_are_set,
        api=state,
        databases=app.database_sizes(),
        warnings=tuple(_warnings(app, dagster, edits.without_checkpoint, now)),
    )


def _dagster_state(app: App) -> DagsterState | None:
    try:
        return read_dagster_state(resolve_urls(app.settings).dagster)
    except DatabaseUnavailable:
        return None  # `mohe doctor` names the reason; all other figures are in our database


def _warnings(
    app: App, dagster: DagsterState | None, missing: int, now: dt.datetime
) -> Iterator[str]:
    if mismatch := app.origin_mismatch():
        yield str(mismatch)
    if missing:
        action = "The next run or sensor tick adds it and collects them again."
        yield f"{missing:,} regions have no checkpoint. {action}"
    yield from map(failing_sentence, dagster.failing if dagster else ())
    if ends := classic_ends(now, app.settings.uses_hub):
        yield ends
    if unconfirmed := app.regions.unconfirmed():
        yield f"Region list: {unconfirmed.sentence}"
    if errors := app.clock.look():
        yield errors.sentence


def _show(found: Status) -> Group:
    progress, overview = found.progress, found.overview
    table = Table(show_header=False, box=None, pad_edge=False)
    # A region in refinement is complete.
    completed = progress.completed + progress.refining
    table.add_row("", ProgressBar(total=max(1, found.regions), completed=completed, width=60))
    table.add_row("home", shown(found.home))
    table.add_row("database", shown(found.database))
    refining = f"; {progress.refining:,} being refined" * bool(progress.refining)
    table.add_row("regions", f"{completed:,} of {found.regions:,} completed, "
                             f"{progress.processing - progress.refining:,} in "
                             f"progress, {progress.pending:,} pending, {progress.failed:,} failed"
                             + refining)  # fmt: skip
    table.add_row("places", f"{overview.places:,}")
    table.add_row(
        "searches", f"{overview.searches:,} stored, {overview.calls:,} calls, in this round"
    )
    table.add_row("rate", _rate(found))
    if found.regions:
        table.add_row("base plan", what_is_left(found.left.base_plan, found.waits_for))
        table.add_row("all depth", what_is_left(found.left.with_refinement, found.waits_for))
        if sentence := given_up_sentence(
            found.given_up.regions, found.given_up.calls, found.given_up.refinements
        ):
            table.add_row("given up", sentence)
    else:
        table.add_row("", "no regions yet: the first run, or `mohe up`, downloads their list")
    of_the_simulator = "the simulator's: " if found.api and not found.keys_are_set else ""
    table.add_row("API", of_the_simulator + the_apis_day(found.api, quote=shown))
    table.add_row("databases", ", ".join(map(_size, found.databases)))
    table.add_row("runs", _lives(overview.runs, daemon_alive=bool(found.daemon_alive)))
    parts: list[RenderableType] = [
        table,
        *(f"[yellow]{shown(warning)}[/]" for warning in found.warnings),
    ]
    if overview.failures:
        parts.append(_failures(overview, progress))
    if overview.runs:
        parts.append(_runs(overview.runs))
    return Group(*parts)


def _size(database: DatabaseSize) -> str:
    name = "ours" if database.name == "data" else "Dagster's"
    if database.bytes is None:
        return f"{name} cannot be read"
    size = f"{name} {database.bytes / 1e6:,.0f} MB"
    if database.growth_per_day is None:
        return size
    return f"{size} ({database.growth_per_day / 1e6:+,.1f} MB a day)"


def _rate(found: Status) -> str:
    rate = found.overview.rate
    if rate.calls:
        # The limit of the simulator is not in the settings.
        allowed = f"; {found.calls_per_second_allowed:g} are allowed" if found.keys_are_set else ""
        return (
            f"{rate.calls_per_second:.1f} calls a second in the last {rate.seconds:.0f} s{allowed}"
        )
    last = f"; last answer {short_to_second(rate.last_answer_at)}" if rate.last_answer_at else ""
    return f"no call was answered in the last {rate.seconds:.0f} s{last}"


def _lives(runs: tuple[RunRow, ...], *, daemon_alive: bool) -> str:
    alive, silent = (sum(run.life == life for run in runs) for life in ("alive", "silent"))
    if silent:
        return (
            f"{alive} alive, {silent} stale (no heartbeat within the lease): the next run or "
            "sensor tick reclaims their regions; `mohe release` does it now"
        )
    if alive:
        return f"{alive} alive"
    if daemon_alive:
        return "none is alive; the daemon runs and launches runs for due regions"
    return "none is alive; `mohe up` or a batch continues"


def _failures(overview: Overview, progress: Progress) -> Table:
    rest = progress.failed - len(overview.failures)
    caption = f"and {rest:,} more, in batch_checkpoint where status is FAILED" if rest > 0 else None
    table = Table(caption=caption, caption_justify="left")
    # A narrow window folds the other columns; names stay whole.
    table.add_column("failed region", no_wrap=True)
    for column in ("kind", "failures", "next try", "reason"):
        table.add_column(column, overflow="fold")
    for one in overview.failures:
        when = (
            short_to_second(one.retry_at)
            if one.retry_at
            else f"only by: mohe retry {shown(one.region_code)}"
        )
        table.add_row(
            shown(one.region_name),
            shown(one.failure_kind),
            str(one.failures),
            when,
            shown(one.error_message),
        )
    return table


def _runs(runs: tuple[RunRow, ...]) -> Table:
    table = Table("run", "status", "heartbeat", "started (KST)", "regions done", "note")
    for run in runs:
        done = f"{run.completed_regions} of {run.total_regions}" + (
            f", {run.failed_regions} failed" if run.failed_regions else ""
        )
        heartbeat = run.life if run.life != "ended" else ""
        started = f"{run.start_time.astimezone(KST):%m-%d %H:%M}"
        table.add_row(
            shown(run.execution_id[:8]), run.status, heartbeat, started, done, shown(run.note or "")
        )
    return table
