"""Connections to one API, by aiohttp: the only module that knows the library. Imported by the first
call that is made.
"""

import asyncio
import select
import ssl
import zlib
from collections.abc import Mapping

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientHandlerType,
    ClientHttpProxyError,
    ClientOSError,
    ClientProxyConnectionError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from aiohttp.tracing import Trace
from yarl import URL

from mohe_assets.clients.exchange import NoResponse, Timeouts

MAX_BODY_BYTES = 5_000_000  # a page of 1,000 regions has about 350,000
MAX_CONNECTIONS = 256  # as many as a run may have searches in flight
MAX_HEADER_BYTES = 65_536  # of one line, what Python's own HTTP accepts
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Connections:
    """A pool of connections for the event loop it is made in; many tasks may share one.

    The environment's proxies and certificates are used if `trust_env` says so, once for all calls:
    aiohttp would look for them anew with each call, in a thread, and would take keys for the API's
    host out of a netrc.
    """

    def __init__(
        self, *, base_url: str, headers: Mapping[str, str], timeouts: Timeouts, trust_env: bool
    ) -> None:
        proxy, context = None, None
        if trust_env:
            # Imported here: it takes five megabytes, and who asks this machine's own simulator has
            # no use for it.
            from mohe_assets.clients.proxy_settings import proxy_settings  # noqa: PLC0415 - see above

            proxy, context = proxy_settings(base_url)
        # The keys are in these. They go with each request, because a session's own go to a proxy,
        # too, that opens a tunnel.
        self._headers = dict(headers)
        # Watched by a timer that every piece of an answer starts anew; without it where the whole
        # call ends as early.
        silence = timeouts.read if timeouts.read < timeouts.total else None
        self._session = ClientSession(
            connector=_Connector(limit=MAX_CONNECTIONS, ssl=context or True),
            timeout=ClientTimeout(
                total=timeouts.total, sock_connect=timeouts.connect, sock_read=silence
            ),
            headers={"User-Agent": headers["User-Agent"]},
            proxy=proxy,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            middlewares=(_once,),
        )

    async def fetch(self, url: str) -> tuple[int, bytes, str]:
        """Status, unpacked body and Retry-After of one GET; NoAnswer when no whole answer came."""
        try:
            async with self._session.get(
                URL(url, encoded=True), headers=self._headers, allow_redirects=False
            ) as response:
                return (
                    response.status,
                    await _body(response),
                    response.headers.get("Retry-After", ""),
                )
        except (ClientError, HttpProcessingError, OSError, zlib.error) as error:
            trouble, signature = _in_our_words(error)
        raise NoResponse(trouble, signature=signature)

    async def close(self) -> None:
        """Calls in flight fail."""
        await self._session.close()


class _Connector(TCPConnector):
    # aiohttp's own signature.
    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> Connection:
        """Never a kept connection that the server has closed, be it so recently that the loop has
        not noticed yet.
        """
        connection = await super().connect(req, traces, timeout)
        if not _has_news(connection):
            return connection
        try:
            # The loop looks at its sockets, and then tells the connection. What is read from a new
            # one may be TLS' own.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except BaseException:
            connection.close()
            raise
        if not connection.closed:
            return connection
        connection.close()
        return await super().connect(req, traces, timeout)


def _has_news(connection: Connection) -> bool:
    """Nothing was asked yet, so what can be read is the connection's end, as a rule."""
    if connection.transport is None:
        return True
    sockets = select.poll()
    sockets.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(sockets.poll(0))


class _Broken(ClientError):
    """The connection ended before an answer came."""


async def _once(request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
    """Keeps aiohttp from sending a request a second time where a kept connection breaks: nobody
    would count that call.
    """
    try:
        return await send(request)
    except ClientConnectorError:
        raise
    except (ClientOSError, ServerDisconnectedError) as error:
        raise _Broken from error


async def _body(response: ClientResponse) -> bytes:
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        _bound(body)
    packed = response.headers.get("Content-Encoding", "").lower() in {"gzip", "x-gzip", "deflate"}
    return _unpacked(bytes(body)) if packed else bytes(body)


def _unpacked(packed: bytes) -> bytes:
    """Never more than a byte beyond the bound is unpacked, whatever the body would become."""
    body = bytearray()
    while packed:
        unpacking = zlib.decompressobj(GZIP_OR_ZLIB)
        body += unpacking.decompress(packed, MAX_BODY_BYTES + 1 - len(body))
        _bound(body)
        if not unpacking.eof:
            raise zlib.error("cut short")
        # A gzip file may have several members; what else follows one is padding.
        packed = unpacking.unused_data if unpacking.unused_data.startswith(b"\x1f\x8b") else b""
    return bytes(body)


def _bound(body: bytearray) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise NoResponse(f"the answer exceeds {MAX_BODY_BYTES:,} bytes", signature="too-large")


# The first that fits counts: the sentence, and the signature that is equal for failures alike.
_TROUBLES: tuple[tuple[type[Exception], str, str], ...] = (
    (ConnectionTimeoutError, "no connection in time", "timeout"),
    (TimeoutError, "no complete answer in time", "timeout"),
    (ClientSSLError, "no secure connection", "tls"),
    (ssl.SSLError, "no secure connection", "tls"),
    (ClientProxyConnectionError, "the proxy refused", "proxy"),
    (ClientHttpProxyError, "the proxy refused", "proxy"),
    (zlib.error, "the compressed answer cannot be unpacked", "unpack"),
    (ClientConnectorError, "the connection failed or was reset", "reset"),
    (ClientError, "the connection was reset, or the answer cut short", "reset"),
    (HttpProcessingError, "the connection was reset, or the answer cut short", "reset"),
)


def _in_our_words(error: Exception) -> tuple[str, str]:
    """A sentence and its signature, without the library's text, which carries the URL and the key."""
    for kind, words, signature in _TROUBLES:
        if isinstance(error, kind):
            return words, signature
    return type(error).__name__, type(error).__name__
