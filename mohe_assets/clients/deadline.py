"""A bound on the whole of one HTTP call, from its first connection attempt to the last byte of the answer.

A socket's own time-out begins anew with every byte, so a server that drips could hold a caller for hours.
"""

import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

# When the call now being made in this thread must be over, on the monotonic clock.
_DEADLINE: ContextVar[float] = ContextVar("deadline", default=float("inf"))


@contextmanager
def deadline_in(seconds: float) -> Iterator[None]:
    token = _DEADLINE.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


class _TimedReads(io.RawIOBase):
    """All reads of one answer; whatever their number, they end at the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline
        self._longest_silence = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - any writable buffer, as in io.RawIOBase
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer did not end in time")
        self._sock.settimeout(left if self._longest_silence is None else min(left, self._longest_silence))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(HTTPResponse):
    """Puts the deadline under status line, headers and body alike: each of them can be dripped."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        super().__init__(sock, *args, **kwargs)
        if (deadline := _DEADLINE.get()) != float("inf"):
            self.fp = io.BufferedReader(_TimedReads(self.fp.detach(), sock, deadline))


class _PlainConnection(HTTPConnection):
    response_class = _TimedResponse


class _TlsConnection(HTTPSConnection):
    response_class = _TimedResponse


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class TimedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        super().init_poolmanager(*args, **kwargs)
        _time_the_pools_of(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **proxy_kwargs: Any) -> Any:  # noqa: ANN401 - as declared by requests
        return _time_the_pools_of(super().proxy_manager_for(proxy, **proxy_kwargs))

    def close(self) -> None:
        """Close the connections now: urllib3 leaves it to the garbage collector, which exceptions make late."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - urllib3's container refuses to be iterated itself
                if pool := manager.pools.get(key):
                    pool.close()
        super().close()


def _time_the_pools_of(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
    return manager
