"""`mohe up`: Dagster's web server, daemon and code server on the chosen database."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from mohe_assets import settings as settings_module
from mohe_assets.cli.env import environment
from mohe_assets.errors import MoheError
from mohe_assets.platform import Platform, prepare
from mohe_assets.shipped import shipped


def up(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web server.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the web server; the UI has no login of its own.")] = "127.0.0.1",
) -> None:
    """Run the web server, the daemon and the code server until interrupted; refreshes the regions first if there are none."""
    settings = settings_module.load()
    settings.require_collection_keys()
    urls = prepare(settings)
    variables = {**os.environ, **environment(settings, urls)}
    with Platform.open(settings) as platform:
        empty = platform.regions.last_refresh() is None
    dagster = str(Path(sys.executable).with_name("dagster"))
    if empty:
        typer.echo("There are no regions yet: refreshing them first.")
        refresh = [dagster, "job", "execute", "-m", "mohe_assets.definitions", "-j", "refresh_regions"]
        if subprocess.run(refresh, env=variables, check=False).returncode:  # noqa: S603 - our own command
            raise MoheError("The regions could not be refreshed; the reason is above.")
    typer.echo(f"The UI will be at http://{host}:{port}")
    command = [dagster, "dev", "-w", str(shipped("workspace.yaml")), "-h", host, "-p", str(port)]
    os.execve(command[0], command, variables)  # noqa: S606 - Dagster takes over this process, and its signals
