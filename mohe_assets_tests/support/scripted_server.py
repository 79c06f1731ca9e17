"""A server over real sockets whose answers follow a script, for the tests of the clients."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Self

from mohe_assets.errors import ApiError

Step = Callable[
    [socket.socket, "ScriptedServer"], bool
]  # answers one request; False ends the connection


class ScriptedServer:
    """Answers each request with the next step of its script, and the last step for ever."""

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.requests: list[str] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(
                threading.Thread(target=self._talk, args=(connection,), daemon=True)
            )
            self._threads[-1].start()

    def _talk(self, connection: socket.socket) -> None:
        with closing(connection):
            connection.settimeout(5)
            try:
                while (request := self._request(connection)) and self._step(request)(
                    connection, self
                ):
                    pass
            except OSError:
                return

    def _request(self, connection: socket.socket) -> str:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (chunk := connection.recv(65_536)):
                return ""
            head += chunk
        return head.decode("latin-1")

    def _step(self, request: str) -> Step:
        with self._lock:
            self.requests.append(request)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Words", *lines, "", ""]).encode()


def reply(body: bytes, status: int = 200, *lines: str, then_close: bool = False) -> Step:
    def step(connection: socket.socket, _: ScriptedServer) -> bool:
        connection.sendall(head(status, f"Content-Length: {len(body)}", *lines) + body)
        return not then_close

    return step


def raw(*pieces: bytes) -> Step:
    def step(connection: socket.socket, _: ScriptedServer) -> bool:
        for piece in pieces:
            connection.sendall(piece)
        return False

    return step


def drip(start: bytes, piece: bytes) -> Step:
    def step(connection: socket.socket, server: ScriptedServer) -> bool:
        connection.sendall(start)
        while not server.stopping.wait(0.05):
            connection.sendall(piece)
        return False

    return step


def reset(connection: socket.socket, _: ScriptedServer) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def hang(_: socket.socket, server: ScriptedServer) -> bool:
    server.stopping.wait(5)
    return False


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


@dataclass
class RecordingGate:
    events: list[str] = field(default_factory=list)
    errors: list[ApiError] = field(default_factory=list)
    shut: ApiError | None = None

    async def reserve(self) -> None:
        if self.shut:
            raise self.shut
        self.events.append("reserve")

    async def answered(self) -> None:
        self.events.append("answered")

    async def refused(self, error: ApiError) -> None:
        self.events.append("refused")
        self.errors.append(error)

    async def failed(self, error: ApiError) -> None:
        self.events.append("failed")
        self.errors.append(error)
