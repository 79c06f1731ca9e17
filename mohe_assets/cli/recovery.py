"""Interventions: `mohe retry`, `new-round`, `release` and `unblock`. Each prints its effect."""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Annotated

import typer

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.domain.attribution import regions_named
from mohe_assets.domain.regions import bundled_snapshot, sido_spellings
from mohe_assets.errors import SettingsError
from mohe_assets.postgres.databases import resolve_urls
from mohe_assets.store import api_state
from mohe_assets.store.database import Database
from mohe_assets.text.cleaning import one_line

REGIONS = "Codes, partition keys or names, such as 11680, 강남구 or '서울 강남구'"
NAMED_AT_MOST = 20
SHORTEST_RUN = 4
COMMAND_SECONDS = 10.0


def opened() -> AbstractContextManager[App]:
    """Open an `App` for a command: an unavailable database is reported after COMMAND_SECONDS, not
    after the two minutes of a run.
    """
    settings = settings_module.load()
    database = Database.connect(resolve_urls(settings).data, reconnect_seconds=COMMAND_SECONDS)
    return App.open(settings, database)


def complete_region(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield a name or code per region with this beginning, and its full name, for completion.

    The names come from the bundled list. Shells split at spaces, so _ replaces them.
    """
    names = {leaf.region_code: leaf.region_name for leaf in bundled_snapshot().leaves}
    for code, name in names.items():
        sido, *rest = name.split()
        forms = [rest[start:] for start in range(len(rest) - 1, -1, -1)]
        forms += [[spelling, *rest] for spelling in (*sido_spellings(sido), sido)]
        words = [code, *("_".join(form) for form in forms)]
        # Names first: a code is offered after a digit.
        fitting = (word for word in words[not incomplete :] if word.startswith(incomplete))
        unique = (word for word in fitting if word == code or regions_named(word, names) == [code])
        if (found := next(unique, None)) is not None:
            yield found, name


def retry(
    regions: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"{REGIONS}; every failed region if none.", autocompletion=complete_region
        ),
    ] = None,
) -> None:
    """Make failed regions PENDING, with no failures counted. Their stored searches stay.

    Refinements that errors ended or delay are resumed as well.
    """
    with opened() as app:
        names = app.regions.leaf_names()
        codes = _codes(regions, names)
        retried = app.checkpoints.retry(codes or None)
        typer.echo(_sentence(retried, names, "PENDING again"))
        if restored := app.checkpoints.restore_refinement(codes or None):
            typer.echo(_sentence(restored, names, "refined again"))
            retried += restored
        _print_skipped(codes, retried, app, "not FAILED")


def new_round(
    regions: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"{REGIONS}; every completed region if none.", autocompletion=complete_region
        ),
    ] = None,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before all regions are collected again.")
    ] = False,
) -> None:
    """Make completed regions PENDING, to be collected again. Their places and the ledger of earlier
    rounds stay.

    Without a name it asks first on a terminal: every region takes a call per keyword again.
    """
    with opened() as app:
        names = app.regions.leaf_names()
        codes = _codes(regions, names)
        if not codes and not yes and sys.stdin.isatty():
            _ask(app)
        reopened = app.checkpoints.new_round(codes or None)
        calls = len(reopened) * len(app.settings.search_keywords)
        typer.echo(
            _sentence(reopened, names, f"PENDING for a new round of {calls:,} calls at least")
        )
        _print_skipped(codes, reopened, app, "not COMPLETED")


def release(
    regions: Annotated[
        list[str] | None,
        typer.Argument(help=f"{REGIONS}; held by any run.", autocompletion=complete_region),
    ] = None,
    *,
    run: Annotated[
        str | None,
        typer.Option(help="Declare this run dead; the first letters of its id are enough."),
    ] = None,
) -> None:
    """Release regions that runs hold: those of dead runs, without waiting for the next sensor tick,
    or the named regions.

    If the run is alive, it notices at its next write, stores nothing more for these regions, and
    continues with others; a run declared dead ends. The regions are due again; regions in
    refinement are COMPLETED as before.
    """
    if regions and run:
        raise typer.BadParameter("either regions or --run")
    with opened() as app:
        names = app.regions.leaf_names()
        if regions:
            codes = _codes(regions, names)
            released = app.checkpoints.force_release(codes)
            typer.echo(_sentence(released, names, "released"))
            _print_skipped(codes, released, app, "not PROCESSING")
            return
        executions = app.executions
        if run:
            reaped = executions.declare_dead(_run(run, executions.running()), app.checkpoints)
        else:
            reaped = executions.reap_dead_runs(app.checkpoints)
        typer.echo(
            f"{_count(reaped.dead_runs, 'run')} declared dead"
            f"{_list([run_id[:8] for run_id in reaped.dead_runs])}."
        )
        typer.echo(_sentence(reaped.regions, names, "released"))
        if living := executions.running():
            typer.echo(
                f"Alive: {', '.join(run_id[:8] for run_id in living)}. "
                "`mohe release --run RUN` releases the regions of a run."
            )


def unblock() -> None:
    """Let the next run try refused credentials, or an unavailable API, with one call.

    Changed credentials need no unblocking.
    """
    with opened() as app:
        api = app.account.api
        count = api_state.unblock(app.database, api)
    typer.echo(f"{api} is unblocked." if count else f"{api} was not blocked.")


def _ask(app: App) -> None:
    progress = app.checkpoints.progress()
    completed = progress.completed + progress.refining
    calls = completed * len(app.settings.search_keywords)
    typer.confirm(
        f"Collect all {completed:,} completed regions again, with {calls:,} calls at least?",
        abort=True,
    )


def _codes(words: Sequence[str] | None, names: dict[str, str]) -> list[str]:
    return [_code(word, names) for word in words or ()]


def _code(word: str, names: dict[str, str]) -> str:
    code = word.partition("_")[0]
    if code in names:
        return code
    found = regions_named(word, names)
    if not found:
        known = "a code such as 11680, a partition key or a name such as 강남구"
        raise SettingsError(f"There is no region {word!r}; give {known}.")
    if len(found) > 1:
        meant = _list([one_line(f"{code} {names[code]}") for code in found])
        raise SettingsError(
            f"{word!r} may mean {len(found)} regions{meant}. Give one of these codes or names."
        )
    return found[0]


def _run(beginning: str, running: Sequence[str]) -> str:
    found = [run for run in running if run.startswith(beginning)]
    if len(beginning) < SHORTEST_RUN or len(found) != 1:
        known = ", ".join(one[:8] for one in running) or "none"
        raise SettingsError(
            f"{beginning!r} does not begin the id of exactly one running run; running: {known}."
        )
    return found[0]


def _sentence(codes: Sequence[str], names: dict[str, str], state: str) -> str:
    named = [one_line(f"{code} {names.get(code, '')}") for code in codes]
    return f"{_count(codes, 'region')} {state}{_list(named)}."


def _count(things: Sequence[str], word: str) -> str:
    return f"1 {word} is" if len(things) == 1 else f"{len(things):,} {word}s are"


def _list(words: Sequence[str]) -> str:
    if not words:
        return ""
    more = f" and {len(words) - NAMED_AT_MOST:,} more" if len(words) > NAMED_AT_MOST else ""
    return f": {', '.join(words[:NAMED_AT_MOST])}{more}"


def _print_skipped(named: Collection[str], done: Collection[str], app: App, reason: str) -> None:
    """Print which named regions were skipped because they are in another state."""
    if skipped := sorted(set(named) - set(done)):
        statuses = {one.region_code: one.status for one in app.checkpoints.statuses(skipped)}
        listed = ", ".join(f"{code} ({statuses.get(code, 'no checkpoint')})" for code in skipped)
        typer.echo(f"Skipped ({reason}): {listed}.")
