"""`mohe demo`: the whole collection against the simulator, on the embedded database, with a
progress bar.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.demo_environment import DEMO_CALLS_PER_SECOND, DEMO_LATENCY_MS, demo_settings
from mohe_assets.cli.env import DAGSTERS_FOLDER, dagster_environment, program
from mohe_assets.cli.terminal import shown
from mohe_assets.collection.scheduler import INTERRUPTED_FOUND
from mohe_assets.collection.stop_timeouts import DEMO_STOP_SECONDS
from mohe_assets.errors import MoheError
from mohe_assets.ops.status_text import what_is_missing
from mohe_assets.postgres.databases import ensure_ready, ignore_redirecting_variables
from mohe_assets.postgres.embedded import make_private
from mohe_assets.settings import Settings
from mohe_assets.store.reads.overview import by_sido

_PLAIN_LINE_SECONDS = 10.0


def demo(
    *,
    calls_per_second: Annotated[
        int, typer.Option(min=1, max=1000, help="The simulated API's limit.")
    ] = DEMO_CALLS_PER_SECOND,
    latency_ms: Annotated[
        float, typer.Option(min=0, max=5000, help="The simulated API's latency.")
    ] = DEMO_LATENCY_MS,
) -> None:
    """Collect all 256 regions from the simulator into the embedded PostgreSQL. After an
    interruption, the next run resumes.
    """
    console = Console(highlight=False)
    if os.environ.get("MOHE_DATABASE_URL"):
        console.print(
            "MOHE_DATABASE_URL is ignored: the demo's made-up places go to the embedded database."
        )
    console.print("Starting the embedded PostgreSQL and the simulator …")
    with demo_settings(calls_per_second=calls_per_second, latency_ms=latency_ms) as variables:
        settings = settings_module.load(variables)
        urls = ensure_ready(settings)
        ignore_redirecting_variables(urls, variables)
        with App.open(settings) as app:
            app.begin_simulated_day()
            batch = dagster_environment(variables, settings, urls)
            status = _collect(console, app, settings, batch)
            if status:
                raise typer.Exit(status)
            _summary(console, app)


def _collect(console: Console, app: App, settings: Settings, variables: dict[str, str]) -> int:
    """Run the batch job in its own process, as a user would; return its exit status."""
    log_path = (
        settings.home / "logs" / f"place_ingestion_batch-{time.strftime('%Y%m%d-%H%M%S')}.log"
    )
    make_private(log_path.parent)
    dagster = program("dagster")
    command = [
        dagster,
        "job",
        "execute",
        "-m",
        "mohe_assets.definitions",
        "-j",
        "place_ingestion_batch",
    ]
    console.print(f"Running place_ingestion_batch; its log is {shown(str(log_path))}")
    with (
        log_path.open("w+", encoding="utf-8", errors="replace") as log,
        _batch(command, variables, log) as process,
    ):
        _show_progress(console, app, process, log_path)
    if process.returncode:
        tail = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        console.print("\n".join(tail), markup=False)
        console.print(
            f"The batch ended with status {process.returncode}; see its log {shown(str(log_path))}"
        )
    return process.returncode


@contextmanager
def _batch(
    command: list[str], variables: dict[str, str], log: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the batch's process; on an interruption, let it release its regions and end."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    process = subprocess.Popen(  # noqa: S603 - our own command
        command,
        env=variables,
        cwd=DAGSTERS_FOLDER,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    except KeyboardInterrupt:
        typer.echo(
            "\nInterrupted: the batch finishes its searches in flight and releases its regions …",
            err=True,
        )
        process.send_signal(signal.SIGTERM)
        _wait(process)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
        if process.poll() is None:
            process.kill()
            process.wait()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=DEMO_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise MoheError(
            "The batch did not stop in time and is killed; the next start reclaims its regions."
        ) from None
    typer.echo("The batch has stopped. Run the same command again to resume.", err=True)


def _show_progress(
    console: Console, app: App, process: subprocess.Popen[bytes], log_path: Path
) -> None:
    bar = Progress(
        TextColumn("regions"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(
            "{task.fields[places]:,} places  {task.fields[calls]:,} calls  "
            "{task.fields[rate]:.1f} calls/s  {task.fields[eta]}"
        ),
        console=console,
    )
    with bar, log_path.open(encoding="utf-8", errors="replace") as log:
        meter = _Meter(app, bar, bar.add_task("", total=256, places=0, calls=0, rate=0.0, eta=""))
        while True:
            ended = process.poll() is not None
            for line in log:
                if INTERRUPTED_FOUND in line:
                    bar.console.print(
                        line[line.index(INTERRUPTED_FOUND) :].rstrip(), markup=False, soft_wrap=True
                    )
            meter.update()
            if ended:
                return
            time.sleep(0.5)


class _Meter:
    """Progress from the database alone, so that it is right after an interruption as well."""

    def __init__(self, app: App, bar: Progress, task: TaskID) -> None:
        self._app, self._bar, self._task = app, bar, task
        self._printed_at = time.monotonic()

    def update(self) -> None:
        settings = self._app.settings
        progress = self._app.checkpoints.progress()
        overview, now = self._app.overview(), time.monotonic()
        rate = overview.rate.calls_per_second
        left = max(0, progress.total * len(settings.search_keywords) - overview.searches)
        eta = f"{left / rate:.0f} s left" if rate and left else ""
        total = progress.total or 256
        completed = progress.completed + progress.refining
        self._bar.update(
            self._task, completed=completed, total=total, places=overview.places,
            calls=overview.calls, rate=rate, eta=eta,
        )  # fmt: skip
        if not self._bar.console.is_terminal and now - self._printed_at >= _PLAIN_LINE_SECONDS:
            self._printed_at = now
            self._bar.console.print(
                f"{completed} of {total} regions, {overview.places:,} places, "
                f"{overview.calls:,} calls, {rate:.1f} calls/s, {eta}"
            )


def _summary(console: Console, app: App) -> None:
    overview, provinces = app.overview(), by_sido(app.database, app.scope)
    table = Table(
        "province", "regions completed", "places", title="Collected", title_justify="left"
    )
    for row in provinces:
        table.add_row(shown(row.sido_name), f"{row.completed} of {row.regions}", f"{row.places:,}")
    table.add_section()
    done, total = sum(row.completed for row in provinces), sum(row.regions for row in provinces)
    table.add_row("all", f"{done} of {total}", f"{overview.places:,}")
    console.print(table)
    console.print(
        f"{overview.searches:,} searches are in the ledger, with {overview.calls:,} calls. "
        "The places are made up."
    )
    if done < total:
        console.print(
            what_is_missing(app.checkpoints.progress(), app.api_state()),
            markup=False,
            soft_wrap=True,
        )
    console.print(_NEXT.format(mohe=_as_typed("mohe")), markup=False, soft_wrap=True)


_NEXT = """
Next, to look at it:
  {mohe} status
  {mohe} db psql -c "SELECT region_name, status, processed_count FROM batch_checkpoint LIMIT 5"
  {mohe} up --demo         # Dagster's UI on http://127.0.0.1:3000, with the simulator behind it
To see it resume, start from the beginning, stop it at any moment by Ctrl-C or kill -9, and run
the second command again:
  {mohe} db reset --yes
  {mohe} demo
The embedded PostgreSQL keeps running; {mohe} db stop ends it."""


def _as_typed(name: str) -> str:
    """Return the command as it can be typed here: by its path relative to the working folder."""
    path = Path(program(name))
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
