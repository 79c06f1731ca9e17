"""Run the simulator: in this process until a signal (`serve`) or as a subprocess (`running`)."""

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
_CONTROL_TIMEOUT = 60  # seconds of a call to the control endpoint
_GRACE_SECONDS = 10  # from SIGTERM to SIGKILL of the subprocess


class _Protocol(HttpToolsProtocol):
    """Passes the transport to the app, which needs it to reset a connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"mohe.transport": self.transport}  # type: ignore[dict-item]


class _Server(uvicorn.Server):
    """Ends by `should_exit`; uvicorn would raise the signal again and exit with failure."""

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
    """Serve until SIGINT or SIGTERM, or with `until_stdin_ends` until stdin is closed.

    `announce` receives the URL when connections are accepted. Port 0 is any free port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listener:
        server = _Server(
            uvicorn.Config(
                SimulatorApp(config),
                http=_Protocol,
                ws="none",
                loop="uvloop",
                lifespan="off",
                log_level="critical",
                access_log=False,
                # Long, because closing idle connections would cause unscripted resets.
                timeout_keep_alive=120,
                timeout_graceful_shutdown=1,
            )
        )
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"

        def stop() -> None:
            server.should_exit = True

        def stop_with_parent() -> None:
            # The pipe ends with the parent process. os.read instead of the buffered reader: its
            # lock, held by a blocked thread, is fatal when the interpreter exits.
            while os.read(sys.stdin.fileno(), 1024):
                pass
            stop()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)
            if until_stdin_ends:
                threading.Thread(target=stop_with_parent, daemon=True).start()
            announce(url)
            await server.serve(sockets=[listener])

        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(main())


class Simulator:
    """A running simulator: its URL and its control endpoint."""

    def __init__(self, url: str) -> None:
        self.url = url

    def stats(self, *, brief: bool = False, moments: bool = False) -> dict[str, Any]:
        flags = {name: "1" for name, is_on in (("brief", brief), ("moments", moments)) if is_on}
        return dict(self._control("GET", "stats", params=flags))

    def universe(self, region: str | None = None) -> Any:  # noqa: ANN401 - counts, or places
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
            session.trust_env = False  # a proxy of the environment cannot reach this host
            response = session.request(
                method, f"{self.url}/_control/{name}", timeout=_CONTROL_TIMEOUT, **options
            )
        if not response.ok:
            raise ValueError(response.json()["error"])
        return response.json()


@contextlib.contextmanager
def running(config: SimulatorConfig | None = None, *, port: int = 0) -> Iterator[Simulator]:
    """Run a simulator as a subprocess, which ends with this context or with this process."""
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
            process.terminate()
            try:
                process.wait(timeout=_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
