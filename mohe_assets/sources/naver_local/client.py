"""Client of Naver's local search, classic and HUB; they differ in URL, headers and envelopes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Self, cast

from mohe_assets.clients.api_errors import ApiErrors
from mohe_assets.clients.credentials import HeaderCredentials, plain_key
from mohe_assets.clients.exchange import Response, Timeouts
from mohe_assets.clients.http import HttpClient, RateLimiter, RetryPolicy
from mohe_assets.domain.kst import KST
from mohe_assets.domain.places import MAX_RESULTS
from mohe_assets.sources.naver_local.plan import Sort
from mohe_assets.sources.naver_local.responses import read_search

RESET_LATE_BY = timedelta(hours=1)  # the quota is reset between 00:00 and 01:00 KST


@dataclass(frozen=True, kw_only=True)
class ApiVersion:
    """The differences between the API versions: URL, headers, and the wording of errors."""

    errors: ApiErrors
    path: str
    id_header: str
    secret_header: str
    extra_params: tuple[tuple[str, str], ...] = ()

    @property
    def api(self) -> str:
        """The API's short name in errors and in the shared rate limiter."""
        return self.errors.api

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of the id and the secret, in this order."""
        return self.errors.variables


CLASSIC = ApiVersion(
    errors=ApiErrors(
        api="naver-classic",
        code_prefix="classic",
        variables=("NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET"),
        key_advice="look at NAVER_CLIENT_ID and NAVER_CLIENT_SECRET",
        not_enabled_advice=(
            "enable 검색 (search) in the API settings of the application of "
            "NAVER_CLIENT_ID and NAVER_CLIENT_SECRET"
        ),
        refused_advice=(
            "classic local search ends on 2027-06-30: "
            "set NCP_APIGW_API_KEY_ID and NCP_APIGW_API_KEY (NAVER API HUB)"
        ),
        reset_late_by=RESET_LATE_BY,
    ),
    path="/v1/search/local.json",
    id_header="X-Naver-Client-Id",
    secret_header="X-Naver-Client-Secret",  # noqa: S106 - a header's name
)
HUB = ApiVersion(
    errors=ApiErrors(
        api="naver-hub",
        code_prefix="hub",
        variables=("NCP_APIGW_API_KEY_ID", "NCP_APIGW_API_KEY"),
        key_advice="look at NCP_APIGW_API_KEY_ID and NCP_APIGW_API_KEY",
        not_enabled_advice=(
            "enable local search (지역 검색) in the application of "
            "NCP_APIGW_API_KEY_ID and NCP_APIGW_API_KEY"
        ),
        if_never_answered=(
            "these keys have never had an answer: the quota is used up, or local search "
            "(지역 검색) is not selected in the application of NCP_APIGW_API_KEY_ID"
        ),
        refused_advice=(
            "look at MOHE_NAVER_HUB_URL; if it is right, NAVER API HUB has changed: "
            "update mohe-assets"
        ),
        reset_late_by=RESET_LATE_BY,
    ),
    path="/search/v1/local",
    id_header="X-NCP-APIGW-API-KEY-ID",
    secret_header="X-NCP-APIGW-API-KEY",  # noqa: S106 - a header's name
    extra_params=(("format", "json"),),
)


@dataclass(frozen=True, kw_only=True)
class SearchResponse:
    """`raw` is the body, storable as jsonb; `items` are its unchecked elements."""

    raw: dict[str, object]
    items: tuple[object, ...]
    calls: int


class NaverLocalClient:
    """Searches by text, MAX_RESULTS places at most. Tasks of one event loop may share a client."""

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
        self._api_version = api_version
        self._clock = clock
        id_variable, secret_variable = api_version.variables
        headers = {
            api_version.id_header: plain_key(client_id, id_variable),
            api_version.secret_header: plain_key(client_secret, secret_variable),
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
        """Search and return the response; `items` is () when nothing was found.

        Raises ApiError. BadQuery: the API refuses this query only.
        """
        params = {"query": query, "display": str(MAX_RESULTS), "start": "1", "sort": sort.value}
        raw, calls = await self._http.get(
            self._api_version.path,
            params | dict(self._api_version.extra_params),
            self._read,
            read_at_last=partial(self._read, lenient=True),
        )
        items = cast("list[object]", raw["items"])
        return SearchResponse(raw=raw, items=tuple(items), calls=calls)

    async def close(self) -> None:
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _read(self, answer: Response, *, lenient: bool = False) -> dict[str, object]:
        return read_search(
            answer, errors=self._api_version.errors, now=self._clock(), lenient=lenient
        )
