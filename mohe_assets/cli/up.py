"""`mohe up` and `mohe code-server`: Dagster's processes, on the chosen database."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mohe_assets import settings as settings_module
from mohe_assets.cli.env import environment
from mohe_assets.cli.simulated import DEMO_CALLS_PER_SECOND, DEMO_LATENCY_MS, simulated
from mohe_assets.cli.supervisor import Supervisor
from mohe_assets.databases import prepare
from mohe_assets.errors import MoheError, SettingsError
from mohe_assets.platform import Platform
from mohe_assets.settings import Settings

CODE_SERVER_PORT = 4266


def up(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web server.")] = 3000,
    host: Annotated[str, typer.Option(help="Address of the web server; the UI has no login of its own.")] = "127.0.0.1",
    demo: Annotated[bool, typer.Option("--demo", help="With the simulator for the APIs, on the embedded database.")] = False,
) -> None:
    """Run the web server, the daemon and the code server until interrupted; refreshes the regions first if there are none.

    The sensor is on: regions that are due are collected by themselves, unless CHECKPOINT_AUTO_RESUME is false.
    """
    if demo:
        with simulated(calls_per_second=DEMO_CALLS_PER_SECOND, latency_ms=DEMO_LATENCY_MS) as variables:
            raise typer.Exit(_run(variables, host, port))
    raise typer.Exit(_run(dict(os.environ), host, port))


def _run(variables: dict[str, str], host: str, port: int) -> int:
    settings = settings_module.load(variables)
    settings.require_collection_keys()
    _refuse_used_port(host, port)
    variables |= environment(settings, prepare(settings))
    _refresh_if_empty(settings, variables)
    code_server_port = _free_port()
    workspace = Path(variables["DAGSTER_HOME"]) / "workspace.yaml"
    workspace.write_text(
        f"load_from:\n  - grpc_server:\n      host: 127.0.0.1\n      port: {code_server_port}\n"
        "      location_name: mohe_assets\n",
        encoding="utf-8",
    )
    typer.echo(f"The UI is at http://{host}:{port} in a few seconds; Ctrl-C stops everything.")
    supervisor = Supervisor(
        commands={
            "the code server": _code_server(settings, "127.0.0.1", code_server_port),
            "the daemon": [_program("dagster-daemon"), "run", "-w", str(workspace), *_log_format(settings)],
            "the web server": [
                _program("dagster-webserver"),
                "-w",
                str(workspace),
                "-h",
                host,
                "-p",
                str(port),
                *_log_format(settings),
            ],
        },
        environment=variables,
        first_listens=("127.0.0.1", code_server_port),
    )
    return supervisor.run()


def code_server(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve Dagster's gRPC on.")] = CODE_SERVER_PORT,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
) -> None:
    """Run Dagster's code server alone, the process in which runs execute; SIGTERM lets its runs release their regions."""
    settings = settings_module.load()
    variables = {**os.environ, **environment(settings, prepare(settings))}
    command = _code_server(settings, host, port)
    os.execve(command[0], command, variables)  # noqa: S606 - it takes over this process, and its signals


def _code_server(settings: Settings, host: str, port: int) -> list[str]:
    program = [sys.executable, "-m", "mohe_assets.defs.code_server", "-h", host, "-p", str(port)]
    return [*program, *_log_format(settings)]


def _log_format(settings: Settings) -> list[str]:
    """For the lines that Dagster's processes have of themselves; text is their default, with colours."""
    return ["--log-format", "json"] if settings.mohe_log_format == "json" else []


def _refresh_if_empty(settings: Settings, variables: Mapping[str, str]) -> None:
    with Platform.open(settings) as platform:
        if platform.regions.last_refresh() is not None:
            return
    typer.echo("There are no regions yet: refreshing them first.")
    command = [_program("dagster"), "job", "execute", "-m", "mohe_assets.definitions", "-j", "refresh_regions"]
    if subprocess.run(command, env=dict(variables), check=False).returncode:  # noqa: S603 - our own command
        raise MoheError("The regions could not be refreshed; the reason is above.")


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuse_used_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            message = f"{host} port {port} cannot be used ({os.strerror(error.errno or 0)}); choose another with --port."
        else:
            return
    raise SettingsError(message)
