"""A single HTTP call; its errors contain no key. No retries, no interpretation of answers."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from mohe_assets.clients.base_url import checked_base_url, is_loopback
from mohe_assets.clients.credentials import Credentials
from mohe_assets.clients.exchange import NoResponse, Response, Timeouts
from mohe_assets.errors import SettingsError, TransientApiError

if TYPE_CHECKING:
    from mohe_assets.clients.connections import Connections

# Seconds that a client waits with its lease held; longer waits are the region's back-off.
MAX_RETRY_AFTER = 30.0

logger = logging.getLogger(__name__)


class Transport:
    """Sends GET requests; tasks of an event loop may share it.

    Connections are opened by the first call, and by the first call after `close`.
    """

    def __init__(
        self, *, api: str, base_url: str, credentials: Credentials, timeouts: Timeouts
    ) -> None:
        self._api = api
        try:
            self._base_url = checked_base_url(base_url)
        except ValueError as error:
            raise SettingsError(f"{api}: the base URL {error}") from None
        self._credentials = credentials
        self._timeouts = timeouts
        self._opened: Connections | None = None

    async def get(self, path: str, params: Mapping[str, str]) -> Response:
        """Make a call and return its response; TransientApiError if no complete answer came."""
        try:
            return await self._exchange(path, params)
        except NoResponse as error:
            trouble, signature = str(error), error.signature
        except OSError as error:
            trouble = signature = type(error).__name__
        # Raised outside the handler: the frames of a __context__ contain the URL with the key.
        raise TransientApiError(f"{self._api}: {trouble}", api=self._api, signature=signature)

    async def _exchange(self, path: str, params: Mapping[str, str]) -> Response:
        # A frame of its own: no frame of a raised error's traceback has the URL in a variable.
        if self._opened is None:
            # Imported here: it takes 0.1 s, and most commands make no call.
            from mohe_assets.clients.connections import Connections  # noqa: PLC0415 - see above

            self._opened = Connections(
                base_url=self._base_url,
                # Only gzip: aiohttp's default depends on the installed packages.
                headers={
                    "User-Agent": user_agent(),
                    "Accept": "*/*",
                    "Accept-Encoding": "gzip",
                    **self._credentials.headers,
                },
                timeouts=self._timeouts,
                # A proxy of the environment cannot reach a simulator on this host.
                trust_env=not is_loopback(urlsplit(self._base_url).hostname or ""),
            )
        query = urlencode({**params, **self._credentials.parameters})
        status, body, retry_after = await self._opened.fetch(f"{self._base_url}{path}?{query}")
        if logger.isEnabledFor(logging.DEBUG):
            shown = {**params, **dict.fromkeys(self._credentials.parameters, "***")}
            query = urlencode(shown, safe="*")
            logger.debug("GET %s%s?%s: HTTP %d", self._base_url, path, query, status)
        body = self._credentials.mask_body(body)
        return Response(status=status, body=body, retry_after=_seconds(retry_after))

    async def close(self) -> None:
        """Close the connections; calls in flight fail."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()


@cache
def user_agent() -> str:
    try:
        return f"mohe-assets/{version('mohe-assets')}"
    except PackageNotFoundError:  # a source tree that is not installed
        return "mohe-assets/0"


def _seconds(retry_after: str) -> float | None:
    """Return the seconds of a Retry-After header (number or date), at most MAX_RETRY_AFTER."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            moment = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(seconds, MAX_RETRY_AFTER) if seconds >= 0 else None
