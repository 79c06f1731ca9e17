"""`mohe doctor`: findings on this installation, with advice."""

from collections.abc import Iterator
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.console import Console

from mohe_assets import settings as settings_module
from mohe_assets.cli.terminal import shown
from mohe_assets.ops.doctor import Finding, Level, examine
from mohe_assets.postgres.databases import only_look
from mohe_assets.store.dagster_state import (
    PENDING_REGION_SENSOR,
    SILENT_SECONDS,
    failing_sentence,
    read_dagster_state,
)
from mohe_assets.store.sqlstate import first_line, trouble

MARKS = {
    Level.OK: "[green]ok[/]     ",
    Level.WARNING: "[yellow]warning[/]",
    Level.ERROR: "[red]error[/]  ",
}


def doctor(
    *,
    calls: Annotated[
        bool, typer.Option(help="Send one call with each key; both are counted as every call is.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON list of findings, for scripts.")
    ] = False,
) -> None:
    """Check settings, folders, keys (one call each), databases, schema, clocks, runs and daemon.
    Exit status 1 on any error.
    """
    found, console = list[Finding](), Console(soft_wrap=True)
    for finding in _examine(calls=calls):
        found.append(finding)
        if not as_json:
            console.print(
                f"{MARKS[finding.level]} {finding.check}: {shown(finding.found)}", highlight=False
            )
            if finding.advice:
                console.print(f"        → {shown(finding.advice)}", highlight=False)
    if as_json:
        typer.echo(TypeAdapter(list[Finding]).dump_json(found, indent=2))
    else:
        errors, warnings = (
            sum(finding.level is level for finding in found)
            for level in (Level.ERROR, Level.WARNING)
        )
        typer.echo(f"{len(found)} checks: {errors} errors, {warnings} warnings.")
    if any(finding.level is Level.ERROR for finding in found):
        raise typer.Exit(1)


def _examine(*, calls: bool) -> Iterator[Finding]:
    usable = True
    for finding in examine(settings_module.command_environment(), calls=calls):
        usable = usable and not (
            finding.level is Level.ERROR
            and finding.check in ("settings", "database", "Dagster's database")
        )
        usable = usable and (finding.level is Level.OK or finding.check != "embedded server")
        yield finding
    if not usable:
        return
    try:
        yield _daemon()
    except Exception as error:
        # A full disk, or Dagster's storage, which wraps the errors of its database.
        if not isinstance(error, OSError) and trouble(error) is None:
            raise
        yield Finding(
            check="daemon",
            level=Level.ERROR,
            found=f"cannot be checked: {first_line(error)}.",
            advice="See the findings above.",
        )


def _daemon() -> Finding:
    """Check whether runs are launched automatically, by heartbeats and the last ticks."""
    settings = settings_module.load()
    state = read_dagster_state(only_look(settings).dagster)
    sensor = state.sensor(PENDING_REGION_SENSOR)
    if not settings.checkpoint_auto_resume:
        return Finding(
            check="daemon",
            level=Level.WARNING,
            found="CHECKPOINT_AUTO_RESUME is false: the sensor launches no run.",
            advice="Unset it, or collect by `dagster job execute` and backfills.",
        )
    if not state.daemon_alive:
        return Finding(
            check="daemon",
            level=Level.WARNING,
            found="no daemon is alive: no run is launched automatically.",
            advice="Run `mohe up`, or `dagster job execute … -j place_ingestion_batch` without it.",
        )
    if state.failing:
        return Finding(
            check="daemon",
            level=Level.ERROR,
            found=" ".join(map(failing_sentence, state.failing)),
            advice="The whole error is in the UI, under Automation; the next tick tries again.",
        )
    if sensor.stopped:
        return Finding(
            check="daemon",
            level=Level.WARNING,
            found=f"{PENDING_REGION_SENSOR} was stopped in the UI.",
            advice="Start it in the UI, under Automation.",
        )
    if sensor.tick_seconds_ago is None or sensor.tick_seconds_ago > SILENT_SECONDS:
        last = "yet" if sensor.tick_seconds_ago is None else f"for {sensor.tick_seconds_ago:.0f} s"
        return Finding(
            check="daemon",
            level=Level.WARNING,
            found=f"alive, but {PENDING_REGION_SENSOR} has not ticked {last}.",
            advice="The first tick takes some seconds; without a tick, restart `mohe up`.",
        )
    return Finding(
        check="daemon", level=Level.OK, found="alive; the sensor launches runs for due regions"
    )
