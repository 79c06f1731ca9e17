"""Downloads the whole list of legal districts, and hands it on only when it is provably whole."""

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
ROWS_PER_PAGE = 1_000  # the API's own maximum
MAX_PAGES = (
    100  # five times today's list; a mistaken totalCount must not cost the day's 10,000 calls
)
REGION_TIMEOUTS = Timeouts(
    connect=5.0, read=15.0, total=40.0
)  # a page of 1,000 rows can take its time


@dataclass(frozen=True, kw_only=True)
class RawRegionRow:
    """One row, its values stripped; an optional value that is missing is "" or None."""

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
    """A complete list: `len(rows) == total_count`, codes unique. `calls` counts all calls sent for
    it.
    """

    rows: tuple[RawRegionRow, ...]
    total_count: int
    calls: int


class RegionApiClient:
    """The ministry's list of legal district codes (StanReginCd on data.go.kr).

    Its methods block until all is done, each with an event loop and connections of its own: not for
    use inside of a loop.
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
        """Fetch every page and accept the list only whole; any doubt is an ApiError, never a
        shorter list.

        The list can change between two pages: pages that do not fit together are all fetched once
        more.
        """
        return asyncio.run(self._download())

    def count_rows(self) -> int:
        """How many rows the list has, by one call for one row: whether the key is accepted."""
        return asyncio.run(self._count_rows())

    async def _download(self) -> RegionListDownload:
        async with self._http:
            first = _Download(self._page)
            if not await first.run():
                return first.result()
            second = _Download(self._page, calls=first.calls)
            if doubt := await second.run():
                raise AnswerChanged(
                    f"{REGION_API}: twice no whole list: {doubt}",
                    api=REGION_API,
                    calls=second.calls,
                )
            return second.result()

    async def _count_rows(self) -> int:
        async with self._http:
            page, _ = await self._http.get(
                PATH, {"type": "json", "pageNo": "1", "numOfRows": "1"}, self._read
            )
        return page.total_count

    async def _page(self, number: int) -> tuple[RegionPage, int]:
        params = {"type": "json", "pageNo": str(number), "numOfRows": str(ROWS_PER_PAGE)}
        return await self._http.get(PATH, params, self._read)

    def _read(self, answer: Response) -> RegionPage:
        return read_page(answer, now=self._clock())


class _Download:
    """One pass over all pages."""

    def __init__(
        self, fetch: Callable[[int], Awaitable[tuple[RegionPage, int]]], *, calls: int = 0
    ) -> None:
        self._fetch = fetch
        self.calls = calls
        self._totals: list[int] = []
        self._rows: list[RawRegionRow] = []

    async def run(self) -> str:
        """Fetch all pages; the answer is what speaks against the list as a whole, "" when nothing
        does.
        """
        pages = await self._first_page()
        for number in range(2, pages + 1):
            await self._take(number)
        return self._doubt()

    def result(self) -> RegionListDownload:
        return RegionListDownload(
            rows=tuple(self._rows), total_count=self._totals[0], calls=self.calls
        )

    async def _first_page(self) -> int:
        await self._take(1)
        pages = math.ceil(self._totals[0] / ROWS_PER_PAGE)
        if not 1 <= pages <= MAX_PAGES:
            raise AnswerChanged(
                f"{REGION_API}: the whole list has {self._totals[0]:,} rows, it says",
                api=REGION_API,
                calls=self.calls,
            )
        return pages

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

    def _doubt(self) -> str:
        if len(set(self._totals)) > 1:
            return f"totalCount was {self._totals[0]:,} on page 1, later {sorted(set(self._totals[1:]))}"
        if len(self._rows) != self._totals[0]:
            return f"totalCount is {self._totals[0]:,}, but {len(self._rows):,} rows came"
        code, times = Counter(row.region_cd for row in self._rows).most_common(1)[0]
        return f"region_cd {code} came {times} times" if times > 1 else ""


def _row(row: Row, where: str) -> RawRegionRow:
    """Strip and check one row: values of this API may end in a space or be a single one. Costs no
    call of its own.
    """
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
