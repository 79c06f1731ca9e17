"""Connections to an API with aiohttp, which only this module imports, at the first call."""

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
MAX_CONNECTIONS = 256  # the largest MOHE_SEARCHES_IN_FLIGHT
MAX_HEADER_BYTES = 65_536  # per header line, as in Python's http.client
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Connections:
    """A connection pool of the event loop it is created in; many tasks may share it.

    With `trust_env` the proxies and certificates of the environment are read once. aiohttp's own
    option would read them for each call, in a thread, and would send keys from a netrc file.
    """

    def __init__(
        self, *, base_url: str, headers: Mapping[str, str], timeouts: Timeouts, trust_env: bool
    ) -> None:
        proxy, context = None, None
        if trust_env:
            # Imported here: it takes 5 MB, and calls to a local simulator do not need it.
            from mohe_assets.clients.proxy_settings import proxy_settings  # noqa: PLC0415 - see above

            proxy, context = proxy_settings(base_url)
        # They contain the keys and are passed per request: aiohttp sends a session's headers to a
        # proxy, too.
        self._headers = dict(headers)
        # aiohttp restarts this timer with every chunk; it is useless if the total is as short.
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
            middlewares=(_send_once,),
        )

    async def fetch(self, url: str) -> tuple[int, bytes, str]:
        """Make a GET request and return status, unpacked body and the header Retry-After.

        Raises NoResponse if no complete answer came. Its text does not contain the library's
        message, which includes the URL and the key.
        """
        try:
            async with self._session.get(
                URL(url, encoded=True), headers=self._headers, allow_redirects=False
            ) as response:
                body = bytearray()
                while chunk := await response.content.readany():
                    body += chunk
                    _require_bounded(body)
                encoding = response.headers.get("Content-Encoding", "").lower()
                is_packed = encoding in {"gzip", "x-gzip", "deflate"}
                retry_after = response.headers.get("Retry-After", "")
                unpacked = _unpack(bytes(body)) if is_packed else bytes(body)
                return response.status, unpacked, retry_after
        except (ClientError, HttpProcessingError, OSError, zlib.error) as error:
            name = type(error).__name__
            trouble, signature = next(
                (each[1:] for each in _TROUBLES if isinstance(error, each[0])), (name, name)
            )
        raise NoResponse(trouble, signature=signature)

    async def close(self) -> None:
        """Close the connections; calls in flight fail."""
        await self._session.close()


class _Connector(TCPConnector):
    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> Connection:
        """Return a connection that the server has not closed.

        Of a kept connection the end may be in the socket before the event loop has read it.
        """
        connection = await super().connect(req, traces, timeout)
        transport = connection.transport
        if transport is not None:
            # Before a request is sent, readable data is usually the connection's end.
            sockets = select.poll()
            sockets.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
            if not sockets.poll(0):
                return connection
        try:
            # The loop polls its sockets, then notifies the connection. A new connection stays open:
            # its data may belong to TLS.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except BaseException:
            connection.close()
            raise
        if not connection.closed:
            return connection
        connection.close()
        return await super().connect(req, traces, timeout)


class _Broken(ClientError):
    """The connection ended before an answer came."""


async def _send_once(request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
    """Prevent aiohttp's resending after a broken kept connection: that call would be uncounted."""
    try:
        return await send(request)
    except ClientConnectorError:
        raise
    except (ClientOSError, ServerDisconnectedError) as error:
        raise _Broken from error


def _unpack(packed: bytes) -> bytes:
    """Unpack a body, at most a byte more than the limit, so that a small body cannot expand."""
    body = bytearray()
    while packed:
        unpacking = zlib.decompressobj(GZIP_OR_ZLIB)
        body += unpacking.decompress(packed, MAX_BODY_BYTES + 1 - len(body))
        _require_bounded(body)
        if not unpacking.eof:
            raise zlib.error("cut short")
        # A gzip file can have several members; other data after a member is padding.
        packed = unpacking.unused_data if unpacking.unused_data.startswith(b"\x1f\x8b") else b""
    return bytes(body)


def _require_bounded(body: bytearray) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise NoResponse(f"the answer exceeds {MAX_BODY_BYTES:,} bytes", signature="too-large")


# The first match decides: the message, and the signature that equal failures share.
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
