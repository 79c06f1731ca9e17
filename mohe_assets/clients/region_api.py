"""Download the list of legal districts; an incomplete list is an error."""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from mohe_assets.clients.credentials import QueryCredentials
from mohe_assets.clients.exchange import Response, Timeouts
from mohe_assets.clients.gateway_errors import KEY_VARIABLE
from mohe_assets.clients.http import HttpClient, RateLimiter, RetryPolicy
from mohe_assets.clients.region_responses import REGION_API, RegionPage, Row, read_page
from mohe_assets.domain.kst import KST
from mohe_assets.errors import AnswerChanged, ApiError

PATH = "/1741000/StanReginCd/getStanReginCdList"
ROWS_PER_PAGE = 1_000  # the API's maximum
# Five times the current list; limits the calls that a wrong totalCount costs (10,000 a day).
MAX_PAGES = 100
REGION_TIMEOUTS = Timeouts(connect=5.0, read=15.0, total=40.0)  # pages of 1,000 rows are slow


@dataclass(frozen=True, kw_only=True)
class RawRegionRow:
    """A row with stripped values; a missing optional value is "" or None."""

    region_cd: str
    sido_cd: str
    sgg_cd: str
    umd_cd: str
    ri_cd: str
    locatadd_nm: str
    locat_order: int | None
    locathigh_cd: str
    locallow_nm: str
    adpt_de: str


@dataclass(frozen=True, kw_only=True)
class RegionListDownload:
    """A complete list: `len(rows) == total_count`, unique codes. `calls` counts all calls."""

    rows: tuple[RawRegionRow, ...]
    total_count: int
    calls: int


class RegionApiClient:
    """The ministry's list of legal district codes (StanReginCd on data.go.kr).

    The methods block; each runs its own event loop, so they cannot be called inside a running loop.
    """

    def __init__(
        self,
        *,
        base_url: str,
        service_key: str,
        rate_limiter: RateLimiter,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts = REGION_TIMEOUTS,
        clock: Callable[[], datetime] = lambda: datetime.now(KST),
    ) -> None:
        self._clock = clock
        self._http = HttpClient(
            api=REGION_API,
            base_url=base_url,
            credentials=QueryCredentials("ServiceKey", service_key, variable=KEY_VARIABLE),
            rate_limiter=rate_limiter,
            retry=retry or RetryPolicy(),
            timeouts=timeouts,
        )

    def download(self) -> RegionListDownload:
        """Fetch all pages and return the complete list; raises ApiError otherwise.

        The list can change between two pages: inconsistent pages are all fetched a second time.
        """

        async def download() -> RegionListDownload:
            async with self._http:
                first = _Download(self._page)
                if not await first.run():
                    return first.result()
                second = _Download(self._page, calls=first.calls)
                if inconsistency := await second.run():
                    raise AnswerChanged(
                        f"{REGION_API}: no complete list in two downloads: {inconsistency}",
                        api=REGION_API,
                        calls=second.calls,
                    )
                return second.result()

        return asyncio.run(download())

    def count_rows(self) -> int:
        """Return the number of rows of the list with a single call, which also checks the key."""

        async def count() -> int:
            async with self._http:
                page, _ = await self._page(1, rows=1)
            return page.total_count

        return asyncio.run(count())

    async def _page(self, number: int, *, rows: int = ROWS_PER_PAGE) -> tuple[RegionPage, int]:
        def read(answer: Response) -> RegionPage:
            return read_page(answer, now=self._clock())

        params = {"type": "json", "pageNo": str(number), "numOfRows": str(rows)}
        return await self._http.get(PATH, params, read)


class _Download:
    """A pass over all pages."""

    def __init__(
        self, fetch: Callable[[int], Awaitable[tuple[RegionPage, int]]], *, calls: int = 0
    ) -> None:
        self._fetch = fetch
        self.calls = calls
        self._totals: list[int] = []
        self._rows: list[RawRegionRow] = []

    async def run(self) -> str:
        """Fetch all pages and return the inconsistency of the list, "" if it is complete."""
        await self._take(1)
        total = self._totals[0]
        pages = math.ceil(total / ROWS_PER_PAGE)
        if not 1 <= pages <= MAX_PAGES:
            raise AnswerChanged(
                f"{REGION_API}: totalCount is {total:,}; a list of 1 to "
                f"{MAX_PAGES * ROWS_PER_PAGE:,} rows is accepted",
                api=REGION_API,
                calls=self.calls,
            )
        for number in range(2, pages + 1):
            await self._take(number)
        if len(set(self._totals)) > 1:
            others = sorted(set(self._totals[1:]))
            return f"totalCount was {total:,} on page 1, later {others}"
        if len(self._rows) != total:
            return f"totalCount is {total:,}, but {len(self._rows):,} rows came"
        code, times = Counter(row.region_cd for row in self._rows).most_common(1)[0]
        return f"region_cd {code} came {times} times" if times > 1 else ""

    def result(self) -> RegionListDownload:
        return RegionListDownload(
            rows=tuple(self._rows), total_count=self._totals[0], calls=self.calls
        )

    async def _take(self, number: int) -> None:
        try:
            page, calls = await self._fetch(number)
            self.calls += calls
            rows = [
                _row(row, f"page {number}, row {index}")
                for index, row in enumerate(page.rows, start=1)
            ]
        except ApiError as error:
            error.calls += self.calls
            raise
        self._totals.append(page.total_count)
        self._rows += rows


def _row(row: Row, where: str) -> RawRegionRow:
    """Strip and check a row; values of this API may be or end in a space. Makes no call."""
    value = {
        name: str(raw).strip() if isinstance(raw, str | int) else "" for name, raw in row.items()
    }
    code = value.get("region_cd", "")
    parts = [value.get(name, "") for name in ("sido_cd", "sgg_cd", "umd_cd", "ri_cd")]
    if (
        not re.fullmatch(r"[0-9]{10}", code)
        or "".join(parts) != code
        or [len(part) for part in parts] != [2, 3, 3, 2]
    ):
        raise AnswerChanged(
            f"{REGION_API}: {where}: no region_cd of ten digits that fits its parts",
            api=REGION_API,
            calls=0,
        )
    if not value.get("locatadd_nm"):
        raise AnswerChanged(f"{REGION_API}: {where}: no locatadd_nm", api=REGION_API, calls=0)
    order = value.get("locat_order", "")
    return RawRegionRow(
        region_cd=code,
        sido_cd=parts[0],
        sgg_cd=parts[1],
        umd_cd=parts[2],
        ri_cd=parts[3],
        locatadd_nm=value["locatadd_nm"],
        locat_order=int(order) if re.fullmatch(r"[0-9]{1,9}", order) else None,
        locathigh_cd=value.get("locathigh_cd", ""),
        locallow_nm=value.get("locallow_nm", ""),
        adpt_de=value.get("adpt_de", ""),
    )
