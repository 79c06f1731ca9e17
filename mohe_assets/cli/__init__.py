"""The command `mohe`. A module per command; each reads the settings, calls plain functions, and prints."""

import sys

import typer

from mohe_assets.cli import db, demo, env, plan, processes, replay, retry, simulate, status, up
from mohe_assets.errors import MoheError

app = typer.Typer(
    name="mohe",
    help="Collects the places of every 시군구 of South Korea, and goes on exactly where it was interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(up.up)
app.command("code-server")(processes.code_server)
app.command()(processes.daemon)
app.command()(processes.webserver)
app.command()(env.env)
app.command()(simulate.simulate)
app.command()(plan.plan)
app.command()(status.status)
app.command()(retry.retry)
app.command()(retry.unblock)
app.command()(replay.replay)
app.add_typer(db.app, name="db")


def main() -> None:
    """One sentence and exit status 1 for whatever a person can put right."""
    try:
        app()
    except MoheError as error:
        typer.echo(f"mohe: {error}", err=True)
        sys.exit(1)
