"""`mohe code-server`, `mohe daemon` and `mohe webserver`: Dagster's processes, each alone, for
containers and several machines.

Each replaces the process of the command, and so receives its signals. None of them migrates a
user's own server.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.env import DAGSTERS_FOLDER, dagster_environment, place, program
from mohe_assets.cli.private_folder import socket_path
from mohe_assets.errors import MoheError, SettingsError
from mohe_assets.postgres.databases import require_ready
from mohe_assets.settings import Settings

# As in workspace.yaml, pyproject.toml and the values for Kubernetes.
LOCATION = "mohe_assets"
CODE_SERVER_PORT = 4266
WEB_PORT = 3000
# Limit for a code server that first refreshes the regions, which takes about 20 s.
LISTEN_SECONDS = 120.0

CodeServer = Annotated[str, typer.Option(help="host:port of the code server, or its socket.")]
Host = Annotated[str, typer.Option(help="Address to serve on.")]


def code_server(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port to serve Dagster's gRPC on.")
    ] = CODE_SERVER_PORT,
    host: Host = "127.0.0.1",
    at_socket: Annotated[
        Path | None,
        typer.Option("--socket", help="Path of a unix socket to serve on instead of a port."),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Refresh the regions first if there are none.")
    ] = False,
) -> None:
    """Run Dagster's code server alone, the process that starts runs. On SIGTERM its runs release
    their regions.
    """
    settings = settings_module.load()
    if refresh:
        settings.require_collection_keys()
    variables = _variables(settings)
    if refresh:
        refresh_if_empty(settings, variables)
    address = CodeServerAddress(host=host, port=port)
    if at_socket is not None:
        address = CodeServerAddress.private(at_socket.absolute())
    _become(code_server_command(address), variables)


def daemon(*, code_server: CodeServer = f"127.0.0.1:{CODE_SERVER_PORT}") -> None:
    """Run Dagster's daemon alone: the sensors, the queue and backfills. It launches runs in the
    code server.
    """
    address = CodeServerAddress.parse(code_server)
    variables = _variables(settings_module.load())
    workspace = write_workspace(variables, address)
    _wait_for(address)
    _become(daemon_command(workspace), without_keys(variables))


def webserver(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = WEB_PORT,
    host: Annotated[
        str, typer.Option(help="Address of the page, which has no login of its own.")
    ] = "127.0.0.1",
    code_server: CodeServer = f"127.0.0.1:{CODE_SERVER_PORT}",
) -> None:
    """Run Dagster's web server alone."""
    address = CodeServerAddress.parse(code_server)
    variables = _variables(settings_module.load())
    workspace = write_workspace(variables, address)
    _wait_for(address)
    _become(webserver_command(workspace, host, port), without_keys(variables))


@dataclass(frozen=True, kw_only=True)
class CodeServerAddress:
    """Where the code server listens: on a unix socket, or on a host's port, between containers."""

    socket: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def private(cls, path: Path) -> "CodeServerAddress":
        """Return a socket at `path` or, if that is too long, in another private folder."""
        return cls(socket=socket_path(path.parent, path.name))

    @classmethod
    def parse(cls, text: str) -> "CodeServerAddress":
        """Parse host:port or the absolute path of a socket. Raises SettingsError."""
        if text.startswith("/"):
            return cls.private(Path(text))
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004
            allowed = "it has to be host:port or the absolute path of a socket"
            raise SettingsError(f"--code-server is {text!r}; {allowed}.")
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.socket is None else str(self.socket)

    def arguments(self) -> list[str]:
        """Options of `dagster api grpc`."""
        if self.socket is not None:
            return ["--socket", str(self.socket)]
        return ["-h", self.host, "-p", str(self.port)]

    def listens(self) -> bool:
        """Return whether a process accepts connections at the address."""
        with contextlib.suppress(OSError):
            if self.socket is None:
                socket.create_connection((self.host, self.port), timeout=1).close()
                return True
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.socket))
                return True
        return False


def code_server_command(address: CodeServerAddress) -> list[str]:
    return [
        sys.executable,
        "-m",
        "mohe_assets.defs.runtime.code_server",
        *address.arguments(),
        *_log_format(),
    ]


def daemon_command(workspace: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "mohe_assets.defs.runtime.daemon",
        "run",
        "-w",
        str(workspace),
        *_log_format(),
    ]


def webserver_command(workspace: Path, host: str, port: int) -> list[str]:
    served = ["-w", str(workspace), "-h", host, "-p", str(port)]
    return [sys.executable, "-m", "mohe_assets.defs.runtime.web_server", *served, *_log_format()]


def _log_format() -> list[str]:
    """Return the option for the log lines of Dagster's processes; their default is text."""
    return ["--log-format", "json"] if settings_module.log_format() == "json" else []


def without_keys(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without keys: only the code server and its runs call the APIs."""
    return {name: value for name, value in variables.items() if name not in settings_module.KEYS}


def write_workspace(variables: Mapping[str, str], address: CodeServerAddress) -> Path:
    """Write the file that names the code server to Dagster's processes; return its path.

    The location's name must not change: Dagster stores the state of sensors under it.
    """
    path = Path(variables["DAGSTER_HOME"]) / "workspace.yaml"
    where = {"host": address.host, "port": address.port}
    if address.socket is not None:
        where = {"socket": str(address.socket)}
    server = {"grpc_server": {**where, "location_name": LOCATION}}
    try:
        place(path, json.dumps({"load_from": [server]}, indent=2).encode())  # JSON is YAML
    except OSError as error:
        raise SettingsError(f"{path}, in MOHE_HOME, cannot be written: {error.strerror}.") from None
    return path


def refresh_if_empty(settings: Settings, variables: Mapping[str, str]) -> None:
    """Refresh the regions in a separate run if there is no list. Raises OriginMismatch."""
    with App.open(settings) as app:
        app.require_same_origin()
        if not app.list_is_missing():
            return
    typer.echo("There are no regions yet: the list is downloaded first.")
    command = [
        program("dagster"),
        "job",
        "execute",
        "-m",
        "mohe_assets.definitions",
        "-j",
        "refresh_regions",
    ]
    done = subprocess.run(command, env=dict(variables), cwd=DAGSTERS_FOLDER, check=False)  # noqa: S603
    if done.returncode:
        raise MoheError("The regions could not be refreshed; the reason is above.")


def _variables(settings: Settings) -> dict[str, str]:
    urls = require_ready(settings)  # also removes variables that would redirect its clients
    return dagster_environment(settings_module.command_environment(), settings, urls)


def _wait_for(address: CodeServerAddress) -> None:
    """Wait up to LISTEN_SECONDS until the code server listens.

    Otherwise Dagster prints a traceback, and its page does not connect again by itself. After the
    limit the page starts anyway, and shows that the code server is missing.
    """
    deadline = time.monotonic() + LISTEN_SECONDS
    if not address.listens():
        typer.echo(f"Waiting for the code server at {address}.")
    while not address.listens() and time.monotonic() < deadline:
        time.sleep(0.5)


def _become(command: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    os.chdir(DAGSTERS_FOLDER)
    os.execve(command[0], list(command), dict(variables))  # noqa: S606 - signals reach it
