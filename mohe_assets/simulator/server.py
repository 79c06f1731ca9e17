"""The simulator on a socket: served here until a signal (`serve`), or in a process of its own for
tests (`running`).
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import requests
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mohe_assets.simulator.app import SimulatorApp
from mohe_assets.simulator.config import SimulatorConfig

LISTENING = "simulator listening on "
_CONTROL_TIMEOUT = 60
_GRACE_SECONDS = 10


class _Protocol(HttpToolsProtocol):
    """Hands the transport to the app, which needs it to reset a connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"mohe.transport": self.transport}  # type: ignore[dict-item]


class _Server(uvicorn.Server):
    """Ends by `should_exit` alone: uvicorn would raise the signal again after its shutdown and so
    exit with failure.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    config: SimulatorConfig,
    host: str = "127.0.0.1",
    port: int = 8900,
    *,
    announce: Callable[[str], None] = lambda _url: None,
    until_stdin_ends: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM; `announce` gets the URL once connections are taken. Port 0: a
    free one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listener:
        server = _Server(_server_config(config))
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, _stop, server)
            if until_stdin_ends:
                threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
            announce(url)
            await server.serve(sockets=[listener])

        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(main())


def _server_config(config: SimulatorConfig) -> uvicorn.Config:
    return uvicorn.Config(
        SimulatorApp(config),
        http=_Protocol,
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_level="critical",
        access_log=False,
        # A server that hangs up on idle clients after a few seconds would add resets nobody
        # scripted.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
    )


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True


def _stop_with_parent(server: uvicorn.Server) -> None:
    """The pipe ends when the parent does, however it dies."""
    # Below the buffered reader: its lock, held by a thread that never ends, would be fatal when the
    # interpreter exits.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    _stop(server)


class Simulator:
    """A running simulator, seen from outside: its URL and its control endpoint."""

    def __init__(self, url: str) -> None:
        self.url = url

    def stats(self, *, brief: bool = False, moments: bool = False) -> dict[str, Any]:
        flags = {name: "1" for name, is_on in (("brief", brief), ("moments", moments)) if is_on}
        return dict(self._control("GET", "stats", params=flags))

    def universe(self, region: str | None = None) -> Any:  # noqa: ANN401 - counts by region, or places of one
        return self._control("GET", "universe", params={} if region is None else {"region": region})

    def add_faults(self, rules: Sequence[dict[str, Any]]) -> None:
        self._control("POST", "faults", json=list(rules))

    def faults(self) -> list[dict[str, Any]]:
        return list(self._control("GET", "faults"))

    def clear_faults(self) -> None:
        self._control("DELETE", "faults")

    def configure(self, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of SimulatorConfig
        return dict(self._control("POST", "config", json=changes))

    def advance_clock(self, *, seconds: float) -> str:
        return str(self._control("POST", "clock", json={"advance_seconds": seconds})["now"])

    def set_clock(self, moment: str) -> str:
        """`moment` in ISO format with its offset."""
        return str(self._control("POST", "clock", json={"set": moment})["now"])

    def reset(self) -> None:
        self._control("POST", "reset")

    def _control(self, method: str, name: str, **options: Any) -> Any:  # noqa: ANN401 - JSON
        with requests.Session() as session:
            session.trust_env = (
                False  # no proxy of the environment stands between a test and its own process
            )
            response = session.request(
                method, f"{self.url}/_control/{name}", timeout=_CONTROL_TIMEOUT, **options
            )
        if not response.ok:
            raise ValueError(response.json()["error"])
        return response.json()


@contextlib.contextmanager
def running(config: SimulatorConfig | None = None, *, port: int = 0) -> Iterator[Simulator]:
    """A simulator in a process of its own, which ends with this context or with this process,
    whatever happens.
    """
    command = [sys.executable, "-m", "mohe_assets.simulator", "--port", str(port)]
    command += ["--config", (config or SimulatorConfig()).to_json()]
    with subprocess.Popen(  # noqa: S603 - this interpreter, and arguments made here
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith(LISTENING):
                raise RuntimeError(
                    f"the simulator did not start on port {port}; its own message is above"
                )
            yield Simulator(line.removeprefix(LISTENING).strip())
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
