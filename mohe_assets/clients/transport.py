"""One HTTP call over a pool of connections, its body bounded, its failures told in our words. No retries, no meaning."""

import ipaddress
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from typing import cast
from urllib.parse import urlencode, urlsplit

import requests
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from mohe_assets.clients.credentials import Credentials, keep_keys_out_of_the_log
from mohe_assets.clients.deadline import TimedAdapter, deadline_in
from mohe_assets.errors import SettingsError, TransientApiError

MAX_BODY_BYTES = 5_000_000  # a page of 1,000 regions has about 350,000
MAX_IDLE_CONNECTIONS = 256  # as many as a run may have threads
MAX_RETRY_AFTER = 30.0  # seconds; a longer wait belongs to the region's back-off, not to a client that holds a lease


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds. `read` is the longest silence between two bytes, `total` bounds the whole call."""

    connect: float = 3.0
    read: float = 5.0
    total: float = 8.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, uninterpreted, our keys masked where it echoed them.

    `retry_after` is in seconds, bounded, None when the server did not say.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None = None


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - requests' own signature
        """Never: even when told not to follow, requests reads a redirect's whole body here, without any bound."""
        return None


@dataclass(frozen=True, kw_only=True)
class _Line:
    """Where requests go: urllib3's pool for the server or its proxy, and what stands before the path."""

    pool: HTTPConnectionPool
    prefix: str


class Transport:
    """Sends single GET requests; many threads may share one.

    requests says which proxies and certificates the environment names, and sets up the pool; each call then goes to the pool,
    which threads may share. A session would spend more on a call than the pool does: it prepares each request anew, and looks
    for cookies, hooks, netrc and redirects, none of which a call of ours has.
    """

    def __init__(self, *, api: str, base_url: str, credentials: Credentials, timeouts: Timeouts) -> None:
        self._api = api
        self._base_url = _checked(base_url, api)
        self._credentials = credentials
        self._total = timeouts.total
        self._timeout = Timeout(connect=timeouts.connect, read=timeouts.read)
        # Only gzip: what else urllib3 would offer depends on what happens to be installed.
        self._headers = {"User-Agent": user_agent(), "Accept": "*/*", "Accept-Encoding": "gzip", **credentials.headers}
        self._adapter = TimedAdapter(pool_connections=1, pool_maxsize=MAX_IDLE_CONNECTIONS, max_retries=0)
        self._opening = threading.Lock()
        self._opened: _Line | None = None
        keep_keys_out_of_the_log()

    def get(self, path: str, params: Mapping[str, str]) -> Answer:
        """Make one call; TransientApiError when no whole answer came."""
        with deadline_in(self._total):
            try:
                return self._exchange(path, params)
            except (requests.RequestException, HTTPError, HTTPException, OSError) as error:
                trouble = _in_our_words(error)
        # Raised outside of the handler: the library's exception holds the URL, and as __context__ it would be printed.
        raise TransientApiError(f"{self._api}: {trouble}", api=self._api)

    def close(self) -> None:
        """Connections in use are closed by those who use them."""
        self._adapter.close()

    def _exchange(self, path: str, params: Mapping[str, str]) -> Answer:
        line = self._line()
        query = urlencode({**params, **self._credentials.parameters})
        with line.pool.urlopen(
            "GET", f"{line.prefix}{path}?{query}", headers=self._headers, timeout=self._timeout,
            retries=False, redirect=False, preload_content=False,
        ) as response:  # fmt: skip
            return Answer(
                status=response.status,
                body=self._credentials.mask_body(self._bounded_body(response)),
                retry_after=_seconds(response.headers.get("Retry-After", "")),
            )

    def _bounded_body(self, response: BaseHTTPResponse) -> bytes:
        body = bytearray()
        for chunk in response.stream(65_536, decode_content=True):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise TransientApiError(f"{self._api}: the answer exceeds {MAX_BODY_BYTES:,} bytes", api=self._api)
        return bytes(body)

    def _line(self) -> _Line:
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> _Line:
        with requests.Session() as session:
            # A proxy of the environment never leads to this machine's own simulator.
            session.trust_env = not _is_loopback(self._base_url)
            request = session.prepare_request(requests.Request("GET", self._base_url))
            found = session.merge_environment_settings(request.url, {}, None, None, None)
        proxies, verify, cert = found["proxies"], found["verify"], found["cert"]
        pool = self._adapter.get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        self._adapter.cert_verify(pool, request.url, verify, cert)  # type: ignore[no-untyped-call]
        # A proxy for plain HTTP is told the whole URL.
        shown = self._adapter.request_url(request, proxies)
        return _Line(pool=cast("HTTPConnectionPool", pool), prefix=shown.removesuffix(request.path_url))


@cache
def user_agent() -> str:
    try:
        return f"mohe-assets/{version('mohe-assets')}"
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "mohe-assets/0"


def _checked(base_url: str, api: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+/?", base_url.strip()):
        raise SettingsError(f"{api}: the base URL must be http(s)://host[:port] and nothing else")
    return base_url.strip().rstrip("/")


def _is_loopback(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds(retry_after: str) -> float | None:
    """Seconds of a Retry-After header, as a number or a date, between 0 and MAX_RETRY_AFTER."""
    try:
        seconds = float(retry_after)
    except ValueError:
        seconds = _seconds_until(retry_after)
    return min(seconds, MAX_RETRY_AFTER) if seconds >= 0 else None


def _seconds_until(http_date: str) -> float:
    try:
        moment = parsedate_to_datetime(http_date)
    except ValueError:
        return -1.0
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


_TROUBLES: tuple[tuple[type[Exception], str], ...] = (
    (ConnectTimeoutError, "no connection in time"),
    (ReadTimeoutError, "no complete answer in time"),
    (SSLError, "no secure connection"),
    (ProxyError, "the proxy refused"),
    (DecodeError, "the compressed answer cannot be unpacked"),
    (NewConnectionError, "the connection failed or was reset"),
    (ProtocolError, "the connection was reset, or the answer cut short"),
)


def _in_our_words(error: Exception) -> str:
    """A sentence that owes nothing to the library's text, which carries the URL and with it the key."""
    return next((words for kind, words in _TROUBLES if isinstance(error, kind)), type(error).__name__)
