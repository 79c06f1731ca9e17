"""One HTTP call, its failures told in our words and without our keys. No retries, no meaning."""

import ipaddress
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from mohe_assets.clients.credentials import Credentials
from mohe_assets.clients.exchange import NoResponse, Response, Timeouts
from mohe_assets.errors import SettingsError, TransientApiError

if TYPE_CHECKING:
    from mohe_assets.clients.connections import Connections

MAX_RETRY_AFTER = 30.0  # seconds; a longer wait belongs to the region's back-off, not to a client that holds a lease

logger = logging.getLogger(__name__)


class Transport:
    """Sends single GET requests; many tasks of one event loop may share one. Opens with a call, and
    anew after `close`.
    """

    def __init__(
        self, *, api: str, base_url: str, credentials: Credentials, timeouts: Timeouts
    ) -> None:
        self._api = api
        self._base_url = _checked(base_url, api)
        self._credentials = credentials
        self._timeouts = timeouts
        self._opened: Connections | None = None

    async def get(self, path: str, params: Mapping[str, str]) -> Response:
        """Make one call; TransientApiError when no whole answer came."""
        try:
            return await self._exchange(path, params)
        except NoResponse as error:
            trouble, signature = str(error), error.signature
        except OSError as error:
            trouble = signature = type(error).__name__
        # Raised outside of the handler: as __context__ the frames that hold the URL would be
        # printed.
        raise TransientApiError(f"{self._api}: {trouble}", api=self._api, signature=signature)

    async def close(self) -> None:
        """Calls in flight fail."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def _exchange(self, path: str, params: Mapping[str, str]) -> Response:
        connections = self._opened or self._open()
        query = urlencode({**params, **self._credentials.parameters})
        status, body, retry_after = await connections.fetch(f"{self._base_url}{path}?{query}")
        if logger.isEnabledFor(logging.DEBUG):
            self._log(path, params, status)
        return Response(
            status=status, body=self._credentials.mask_body(body), retry_after=_seconds(retry_after)
        )

    def _open(self) -> "Connections":
        # Imported here, because most commands make no call, and it would make their start a tenth
        # of a second longer.
        from mohe_assets.clients.connections import Connections  # noqa: PLC0415 - see above

        self._opened = Connections(
            base_url=self._base_url,
            # Only gzip: what else the library would offer depends on what happens to be installed.
            headers={
                "User-Agent": user_agent(),
                "Accept": "*/*",
                "Accept-Encoding": "gzip",
                **self._credentials.headers,
            },
            timeouts=self._timeouts,
            # A proxy of the environment never leads to this machine's own simulator.
            trust_env=not _is_loopback(self._base_url),
        )
        return self._opened

    def _log(self, path: str, params: Mapping[str, str], status: int) -> None:
        shown = {**params, **dict.fromkeys(self._credentials.parameters, "***")}
        logger.debug(
            "GET %s%s?%s: HTTP %d", self._base_url, path, urlencode(shown, safe="*"), status
        )


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
    if not retry_after:
        return None
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
