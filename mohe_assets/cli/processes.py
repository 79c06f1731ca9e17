"""`mohe code-server`, `mohe daemon` and `mohe webserver`: Dagster's processes, each alone, for
containers and several machines.

Each takes over the process it was started as, and so its signals. A server of a person's own is
never migrated by them.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.env import environment, place, program
from mohe_assets.errors import MoheError, SettingsError
from mohe_assets.postgres.databases import require_ready
from mohe_assets.settings import Settings

CODE_SERVER_PORT = 4266
WEB_PORT = 3000
# A code server that refreshes the regions first listens after some twenty seconds.
LISTEN_SECONDS = 120.0

CodeServer = Annotated[str, typer.Option(help="host:port of the code server.")]
Host = Annotated[str, typer.Option(help="Address to serve on.")]


def code_server(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port to serve Dagster's gRPC on.")
    ] = CODE_SERVER_PORT,
    host: Host = "127.0.0.1",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Refresh the regions first if there are none.")
    ] = False,
) -> None:
    """Run Dagster's code server alone, the process in which runs execute; SIGTERM lets its runs
    release their regions.
    """
    settings = settings_module.load()
    if refresh:
        settings.require_collection_keys()
    variables = _variables(settings)
    if refresh:
        refresh_if_empty(settings, variables)
    _become(code_server_command(host, port), variables)


def daemon(*, code_server: CodeServer = f"127.0.0.1:{CODE_SERVER_PORT}") -> None:
    """Run Dagster's daemon alone: the sensors, the queue and backfills. It launches runs in the
    code server.
    """
    host, port = _address(code_server)
    variables = _variables(settings_module.load())
    workspace = write_workspace(variables, host, port)
    _wait_for(host, port)
    _become(daemon_command(workspace), variables)


def webserver(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = WEB_PORT,
    host: Annotated[
        str, typer.Option(help="Address of the page, which has no login of its own.")
    ] = "127.0.0.1",
    code_server: CodeServer = f"127.0.0.1:{CODE_SERVER_PORT}",
) -> None:
    """Run Dagster's web server alone."""
    server, server_port = _address(code_server)
    variables = _variables(settings_module.load())
    workspace = write_workspace(variables, server, server_port)
    _wait_for(server, server_port)
    _become(webserver_command(workspace, host, port), variables)


def code_server_command(host: str, port: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "mohe_assets.defs.runtime.code_server",
        "-h",
        host,
        "-p",
        str(port),
        *_log_format(),
    ]


def daemon_command(workspace: Path) -> list[str]:
    return [program("dagster-daemon"), "run", "-w", str(workspace), *_log_format()]


def webserver_command(workspace: Path, host: str, port: int) -> list[str]:
    served = ["-w", str(workspace), "-h", host, "-p", str(port)]
    return [sys.executable, "-m", "mohe_assets.defs.runtime.web_server", *served, *_log_format()]


def _log_format() -> list[str]:
    """For the lines that Dagster's processes have of themselves; text is their default, with
    colours.
    """
    return ["--log-format", "json"] if settings_module.log_format() == "json" else []


def write_workspace(variables: Mapping[str, str], host: str, port: int) -> Path:
    """Where Dagster's processes find the code server. The location's name is part of what Dagster
    knows a sensor by.
    """
    path = Path(variables["DAGSTER_HOME"]) / "workspace.yaml"
    text = f"load_from:\n  - grpc_server:\n      host: {host}\n      port: {port}\n      location_name: mohe_assets\n"
    place(path, text.encode())
    return path


def refresh_if_empty(settings: Settings, variables: Mapping[str, str]) -> None:
    """Refreshes the regions in a run of its own if there is no list yet."""
    with App.open(settings) as app:
        if app.regions.last_refresh() is not None:
            return
    typer.echo("There are no regions yet: refreshing them first.")
    command = [
        program("dagster"),
        "job",
        "execute",
        "-m",
        "mohe_assets.definitions",
        "-j",
        "refresh_regions",
    ]
    if subprocess.run(command, env=dict(variables), check=False).returncode:  # noqa: S603 - our own command
        raise MoheError("The regions could not be refreshed; the reason is above.")


def listens(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _variables(settings: Settings) -> dict[str, str]:
    return {**os.environ, **environment(settings, require_ready(settings))}


def _address(code_server: str) -> tuple[str, int]:
    host, _, port = code_server.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004 - ports are 16 bits
        raise SettingsError(f"--code-server is {code_server!r}; it has to be host:port.")
    return host, int(port)


def _wait_for(host: str, port: int) -> None:
    """Dagster meets a code server that does not listen yet with a traceback, and its page does not
    look again by itself.

    Not for ever: a page that says what is missing is better than none.
    """
    deadline = time.monotonic() + LISTEN_SECONDS
    if not listens(host, port):
        typer.echo(f"Waiting for the code server at {host}:{port}.")
    while not listens(host, port) and time.monotonic() < deadline:
        time.sleep(0.5)


def _become(command: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    os.execve(command[0], list(command), dict(variables))  # noqa: S606 - it takes over this process, and its signals
