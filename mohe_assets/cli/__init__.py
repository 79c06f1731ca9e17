"""The command `mohe`: a module per command, which reads settings, calls functions, and prints."""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, cast

import typer
from typer.core import TyperCommand, TyperGroup

from mohe_assets import logs, settings
from mohe_assets.errors import MoheError
from mohe_assets.text.cleaning import one_line

# In the order of the help text: module and function, or the module's own commands.
COMMANDS = {
    "demo": "demo:demo",
    "up": "up:up",
    "status": "status:status",
    "plan": "plan:plan",
    "doctor": "doctor:doctor",
    "config": "config:config",
    "metrics": "metrics:metrics",
    "retry": "recovery:retry",
    "new-round": "recovery:new_round",
    "release": "recovery:release",
    "unblock": "recovery:unblock",
    "replay": "replay:replay",
    "prune": "prune:prune",
    "env": "env:env",
    "db": "db:commands",
    "code-server": "processes:code_server",
    "daemon": "processes:daemon",
    "webserver": "processes:webserver",
    "simulate": "simulate:simulate",
}


class _Commands(TyperGroup):
    """Import a command on use: `mohe status` needs no web server and starts in half the time."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - Typer's signature
        return list(COMMANDS)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | TyperGroup | None:  # noqa: ARG002 - Typer's signature
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"mohe_assets.cli.{module}"), name)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(cmd_name)(found)
            found = single
        command = typer.main.get_command(found)
        command.name = cmd_name
        return cast("TyperCommand | TyperGroup", command)


commands = typer.Typer(
    name="mohe",
    cls=_Commands,
    help=(
        "Collects the places of every 시군구 of South Korea, and resumes exactly where it was "
        "interrupted."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    """Print the version of the package and of the schema it needs, and exit."""
    if wanted:
        from mohe_assets.postgres.schema import head_revision  # noqa: PLC0415 - loads SQLAlchemy

        typer.echo(f"mohe-assets {version('mohe-assets')}, schema {head_revision()}")
        raise typer.Exit


@commands.callback()
def _group(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and the schema revision it needs.",
        ),
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command; print an error that the user can correct as a sentence, with status 1."""
    logs.install(settings.log_format())
    try:
        commands()
    except MoheError as error:
        typer.echo(f"mohe: {one_line(str(error))}", err=True)
        sys.exit(1)
