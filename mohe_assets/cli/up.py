"""`mohe up`: all of Dagster's processes, on the database of the settings."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.daemon_watch import DaemonWatch
from mohe_assets.cli.demo_environment import DEMO_CALLS_PER_SECOND, DEMO_LATENCY_MS, demo_settings
from mohe_assets.cli.env import DAGSTERS_FOLDER, dagster_environment, place
from mohe_assets.cli.processes import (
    WEB_PORT,
    CodeServerAddress,
    code_server_command,
    daemon_command,
    refresh_if_empty,
    webserver_command,
    write_workspace,
)
from mohe_assets.cli.supervisor import Supervisor
from mohe_assets.errors import MoheError, SettingsError
from mohe_assets.postgres.databases import ensure_ready, ignore_redirecting_variables, resolve_urls
from mohe_assets.postgres.embedded import make_home
from mohe_assets.settings import Settings


def up(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web server.")] = WEB_PORT,
    host: Annotated[
        str, typer.Option(help="Address of the web server; the UI has no login of its own.")
    ] = "127.0.0.1",
    demo: Annotated[
        bool,
        typer.Option("--demo", help="With the simulator for the APIs, on the embedded database."),
    ] = False,
) -> None:
    """Run the web server, the daemon and the code server until interrupted; download the region
    list first if there is none.

    The sensor collects due regions automatically, unless CHECKPOINT_AUTO_RESUME is false.
    """
    if demo:
        with demo_settings(
            calls_per_second=DEMO_CALLS_PER_SECOND, latency_ms=DEMO_LATENCY_MS
        ) as variables:
            raise typer.Exit(_run(variables, host, port))
    raise typer.Exit(_run(dict(settings_module.command_environment()), host, port))


def _run(variables: dict[str, str], host: str, port: int) -> int:
    settings = settings_module.load(variables)
    settings.require_collection_keys()
    with _alone(settings, _page(host, port)):
        _refuse_used_port(host, port)
        return _supervise(settings, variables, host, port)


def _supervise(settings: Settings, variables: dict[str, str], host: str, port: int) -> int:
    urls = ensure_ready(settings)
    variables = dagster_environment(variables, settings, urls)
    ignore_redirecting_variables(urls, variables)
    with App.open(settings) as app:
        if settings.simulated:
            app.begin_simulated_day()
        app.require_same_origin()
    refresh_if_empty(settings, variables)
    variables.pop("MOHE_WEB_ADDRESS", None)  # of a container's port
    # gRPC has no login: only this user can enter the socket's folder.
    code_server = CodeServerAddress.private(settings.home / "run" / "code-server.sock")
    workspace = write_workspace(variables, code_server)
    typer.echo(f"The UI is at {_page(host, port)} in a few seconds; Ctrl-C stops everything.")
    supervisor = Supervisor(
        commands={
            "the code server": code_server_command(code_server),
            "the daemon": daemon_command(workspace),
            "the web server": webserver_command(workspace, host, port),
        },
        environment=variables,
        folder=DAGSTERS_FOLDER,
        first_listens=code_server.listens,
        withheld=settings_module.KEYS,
        watches={"the daemon": DaemonWatch(url=variables["MOHE_DAGSTER_DATABASE_URL"]).look},
    )
    return supervisor.run()


@contextmanager
def _alone(settings: Settings, page: str) -> Iterator[None]:
    """Lock the home while this `mohe up` runs; a second would overwrite its workspace.yaml.

    The lock ends with the process; the note is for the message of a second `mohe up`.
    """
    embedded = resolve_urls(settings).embedded
    if embedded is not None:
        embedded.require_ours()
    note = settings.home / "up.json"
    lock = FileLock(settings.home / "up.lock", timeout=0)
    try:
        make_home(settings.home)
        lock.acquire()
    except Timeout:
        raise MoheError(_first(settings.home, note)) from None
    except OSError as error:
        raise SettingsError(
            f"MOHE_HOME is {settings.home}, which cannot be written to: {error.strerror}."
        ) from None
    try:
        place(note, json.dumps({"pid": os.getpid(), "page": page}).encode())
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _first(home: Path, note: Path) -> str:
    try:
        first = json.loads(note.read_bytes())
        which = f"with its page at {first['page']} and pid {first['pid']}"
    except (OSError, ValueError, KeyError):
        which = "and is starting or ending"
    return f"`mohe up` already runs on {home}, {which}; stop it first, or set another MOHE_HOME."


def _page(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refuse_used_port(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        reason = error.strerror
        raise SettingsError(f"--host is {host!r}, which is no address here: {reason}.") from None
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
        else:
            return
    raise SettingsError(
        f"{host} port {port} cannot be used ({reason}); choose another with --port."
    )
