"""Searches for tests that are no coroutines: one search in its own loop, and waits that take no
time.
"""

import asyncio

from mohe_assets.sources.naver_local.client import NaverLocalClient, SearchResponse
from mohe_assets.sources.naver_local.plan import Sort


def searched(
    client: NaverLocalClient, query: str = "카페", *, sort: Sort = Sort.ACCURACY
) -> SearchResponse:
    """Closes the client, too: its connections belong to this loop."""

    async def search() -> SearchResponse:
        async with client:
            return await client.search(query, sort=sort)

    return asyncio.run(search())


async def no_wait(_: float) -> None:
    pass
