"""Naver's local search: one client for its two generations, which differ in address, headers and
envelopes only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self, cast

from mohe_assets.clients.credentials import HeaderCredentials
from mohe_assets.clients.exchange import Response, Timeouts
from mohe_assets.clients.http import HttpClient, RateLimiter, RetryPolicy
from mohe_assets.domain.kst import KST
from mohe_assets.errors import SettingsError
from mohe_assets.sources.naver_local.responses import read_search
from mohe_assets.sources.naver_local.search_plan import Sort

DISPLAY = 5  # the most either generation gives; there is no second page


@dataclass(frozen=True, kw_only=True)
class ApiVersion:
    """What tells the generations apart. `api` is the short name in errors and in the shared budget."""

    api: str
    path: str
    id_header: str
    secret_header: str
    id_variable: str
    secret_variable: str
    extra_params: tuple[tuple[str, str], ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        return (self.id_variable, self.secret_variable)


CLASSIC = ApiVersion(
    api="naver-classic",
    path="/v1/search/local.json",
    id_header="X-Naver-Client-Id",
    secret_header="X-Naver-Client-Secret",  # noqa: S106 - a header's name
    id_variable="NAVER_CLIENT_ID",
    secret_variable="NAVER_CLIENT_SECRET",  # noqa: S106 - a variable's name
)
HUB = ApiVersion(
    api="naver-hub",
    path="/search/v1/local",
    id_header="X-NCP-APIGW-API-KEY-ID",
    secret_header="X-NCP-APIGW-API-KEY",  # noqa: S106 - a header's name
    id_variable="NCP_APIGW_API_KEY_ID",
    secret_variable="NCP_APIGW_API_KEY",  # noqa: S106 - a variable's name
    extra_params=(("format", "json"),),
)


@dataclass(frozen=True, kw_only=True)
class SearchResponse:
    """`raw` is the whole body, cleaned only of what jsonb refuses; `items` are its places as they
    came.
    """

    raw: dict[str, object]
    items: tuple[dict[str, object], ...]
    calls: int


class NaverLocalClient:
    """Searches by text, five places at most. Many tasks of one event loop may share one client."""

    def __init__(
        self,
        *,
        base_url: str,
        api_version: ApiVersion,
        client_id: str,
        client_secret: str,
        rate_limiter: RateLimiter,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(KST),
    ) -> None:
        self._dialect = api_version
        self._clock = clock
        headers = {
            api_version.id_header: _header_value(client_id, api_version.id_variable),
            api_version.secret_header: _header_value(client_secret, api_version.secret_variable),
        }
        self._http = HttpClient(
            api=api_version.api,
            base_url=base_url,
            credentials=HeaderCredentials(headers),
            rate_limiter=rate_limiter,
            retry=retry or RetryPolicy(),
            timeouts=timeouts or Timeouts(),
        )

    async def search(self, query: str, *, sort: Sort) -> SearchResponse:
        """Search once. BadQuery means that this query is refused and no other; an empty answer has
        `items == ()`.
        """
        params = {"query": query, "display": str(DISPLAY), "start": "1", "sort": sort.value}
        raw, calls = await self._http.get(
            self._dialect.path, params | dict(self._dialect.extra_params), self._read
        )
        return SearchResponse(
            raw=raw, items=tuple(cast("list[dict[str, object]]", raw["items"])), calls=calls
        )

    async def close(self) -> None:
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _read(self, answer: Response) -> dict[str, object]:
        return read_search(
            answer, api=self._dialect.api, variables=self._dialect.variables, now=self._clock()
        )


def _header_value(configured: str, variable: str) -> str:
    """Checked here, because the HTTP library would put a value that it cannot send into its
    exception.
    """
    value = configured.strip()
    if not (value.isascii() and value.isprintable()):
        raise SettingsError(
            f"{variable} must be printable ASCII characters, as the console shows them"
        )
    return value
