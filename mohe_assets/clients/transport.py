"""One HTTP call over borrowed sessions, its body bounded, its failures told in our words. No retries, no meaning."""

import ipaddress
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from mohe_assets.clients.credentials import Credentials, keep_keys_out_of_the_log
from mohe_assets.clients.deadline import TimedAdapter, deadline_in
from mohe_assets.errors import SettingsError, TransientApiError

MAX_BODY_BYTES = 5_000_000  # a page of 1,000 regions has about 350,000
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


class Transport:
    """Sends single GET requests; many threads may share one.

    `requests` does not promise that a session may be used by two threads at once, so each call borrows one and the most
    recently used is lent first: there are as many sessions as calls ever were in flight together, their connections
    stay warm, and none is lost with a thread that ended.
    """

    def __init__(self, *, api: str, base_url: str, credentials: Credentials, timeouts: Timeouts) -> None:
        self._api = api
        self._base_url = _checked(base_url, api)
        self._credentials = credentials
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._idle: list[requests.Session] = []
        self._closed = False
        keep_keys_out_of_the_log()

    def get(self, path: str, params: Mapping[str, str]) -> Answer:
        """Make one call; TransientApiError when no whole answer came."""
        with self._session() as session, deadline_in(self._timeouts.total):
            try:
                return self._exchange(session, path, params)
            except (requests.RequestException, HTTPError, HTTPException, OSError) as error:
                trouble = _in_our_words(error)
        # Raised outside of the handler: the library's exception holds the URL, and as __context__ it would be printed.
        raise TransientApiError(f"{self._api}: {trouble}", api=self._api)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def _exchange(self, session: requests.Session, path: str, params: Mapping[str, str]) -> Answer:
        with session.get(
            self._base_url + path,
            params=params,
            auth=self._credentials,
            timeout=(self._timeouts.connect, self._timeouts.read),
            allow_redirects=False,
            stream=True,
        ) as response:
            return Answer(
                status=response.status_code,
                body=self._credentials.mask_body(self._bounded_body(response)),
                retry_after=_seconds(response.headers.get("Retry-After", "")),
            )

    def _bounded_body(self, response: requests.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(65_536):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise TransientApiError(f"{self._api}: the answer exceeds {MAX_BODY_BYTES:,} bytes", api=self._api)
        return bytes(body)

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        with self._lock:
            session = self._idle.pop() if self._idle else self._new_session()
        try:
            yield session
        finally:
            with self._lock:
                if not self._closed:
                    self._idle.append(session)
            if self._closed:
                session.close()

    def _new_session(self) -> requests.Session:
        session = _Session()
        # Only gzip: what else requests would offer depends on what happens to be installed.
        session.headers.update({"User-Agent": user_agent(), "Accept": "*/*", "Accept-Encoding": "gzip"})
        # A proxy of the environment never leads to this machine's own simulator.
        session.trust_env = not _is_loopback(self._base_url)
        for scheme in ("http://", "https://"):
            session.mount(scheme, TimedAdapter(pool_connections=1, pool_maxsize=1, max_retries=0))
        return session


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
    (requests.ConnectTimeout, "no connection in time"),
    (requests.ReadTimeout, "no complete answer in time"),
    (requests.exceptions.SSLError, "no secure connection"),
    (requests.exceptions.ProxyError, "the proxy refused"),
    (requests.exceptions.ChunkedEncodingError, "the answer was cut short"),
    (requests.exceptions.ContentDecodingError, "the compressed answer cannot be unpacked"),
    (requests.ConnectionError, "the connection failed or was reset"),
)


def _in_our_words(error: Exception) -> str:
    """A sentence that owes nothing to the library's text, which carries the URL and with it the key."""
    if error.args and isinstance(error.args[0], ReadTimeoutError):  # a body's time-out comes dressed as ConnectionError
        return "no complete answer in time"
    return next((words for kind, words in _TROUBLES if isinstance(error, kind)), type(error).__name__)
