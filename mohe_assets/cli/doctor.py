"""`mohe doctor`: what is wrong here, and what to do about it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter
from rich.console import Console

from mohe_assets import settings as settings_module
from mohe_assets.cli.env import variables
from mohe_assets.cli.terminal import shown
from mohe_assets.ops.doctor import Finding, Level, examine
from mohe_assets.packaged_files import packaged_file
from mohe_assets.postgres.databases import DatabaseUrls, only_look
from mohe_assets.settings import Settings
from mohe_assets.store.database import Database, rows
from mohe_assets.store.sqlstate import first_line, trouble

if TYPE_CHECKING:
    from dagster import DagsterInstance

MARKS = {
    Level.OK: "[green]ok[/]     ",
    Level.WARNING: "[yellow]warning[/]",
    Level.ERROR: "[red]error[/]  ",
}
# What has to run for regions to be collected without anybody.
DAEMONS = ("SENSOR", "QUEUED_RUN_COORDINATOR")
PENDING_REGION_SENSOR = "pending_region_sensor"
# A daemon says every half minute that it lives. Dagster itself believes it for half an hour after
# the last time.
SILENT_SECONDS = 120


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
        _sum_up(found)
    if any(finding.level is Level.ERROR for finding in found):
        raise typer.Exit(1)


def _sum_up(found: list[Finding]) -> None:
    errors, warnings = (
        sum(finding.level is level for finding in found) for level in (Level.ERROR, Level.WARNING)
    )
    typer.echo(f"{len(found)} checks: {errors} errors, {warnings} warnings.")


def _examine(*, calls: bool) -> Iterator[Finding]:
    usable = True
    for finding in examine(os.environ, calls=calls):
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
        # A full disk, or Dagster's storage, which wraps what its database says.
        if not isinstance(error, OSError) and trouble(error) is None:
            raise
        yield Finding(check="daemon", level=Level.ERROR, found=f"cannot be looked at: {first_line(error)}.",
                      advice="See the findings above.")  # fmt: skip


def _daemon() -> Finding:
    """Whether anything launches runs by itself. Dagster is imported here: it takes longer than all
    the rest.
    """
    from dagster._core.scheduler.instigation import InstigatorStatus, InstigatorType  # noqa: PLC0415
    from dagster._daemon.controller import get_daemon_statuses  # noqa: PLC0415

    settings = settings_module.load()
    urls = only_look(settings)
    with _instance_to_look_at(settings, urls) as instance:
        if instance is None:
            dead, sensors = list(DAEMONS), {}
        else:
            statuses = get_daemon_statuses(
                instance,
                DAEMONS,
                heartbeat_interval_seconds=0,
                heartbeat_tolerance_seconds=SILENT_SECONDS,
                ignore_errors=True,
            )
            dead = [name for name in DAEMONS if not statuses[name].healthy]
            states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
            sensors = {state.name: state.status for state in states}
    if not settings.checkpoint_auto_resume:
        return Finding(check="daemon", level=Level.WARNING, found="CHECKPOINT_AUTO_RESUME is false: the sensor launches nothing.",
                       advice="Unset it, or collect by `dagster job execute` and backfills.")  # fmt: skip
    if dead:
        return Finding(check="daemon", level=Level.WARNING, found="no daemon is alive: nothing is launched by itself.",
                       advice="`mohe up` runs one; `dagster job execute … -j place_ingestion_batch` needs none.")  # fmt: skip
    if sensors.get(PENDING_REGION_SENSOR) is InstigatorStatus.STOPPED:
        return Finding(check="daemon", level=Level.WARNING, found=f"{PENDING_REGION_SENSOR} was stopped by somebody.",
                       advice="Start it in the UI, under Automation.")  # fmt: skip
    return Finding(check="daemon", level=Level.OK, found="alive; the sensor launches what is due")


@contextmanager
def _instance_to_look_at(
    settings: Settings, urls: DatabaseUrls
) -> "Iterator[DagsterInstance | None]":
    """Dagster's instance, without making its home or its tables; None while it has no tables."""
    from dagster import DagsterInstance  # noqa: PLC0415

    database = Database.connect(urls.dagster)
    try:
        there = database.transaction(
            lambda c: rows(c, "SELECT to_regclass('daemon_heartbeats') IS NOT NULL AS there")
        )[0]["there"]
    finally:
        database.close()
    if not there:
        yield None
        return
    with TemporaryDirectory(prefix="mohe-doctor-") as empty:
        os.environ.update(variables(settings, urls))
        if not (Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml").exists():
            shutil.copy(packaged_file("dagster.yaml"), empty)
            os.environ["DAGSTER_HOME"] = empty
        with DagsterInstance.get() as instance:
            yield instance
