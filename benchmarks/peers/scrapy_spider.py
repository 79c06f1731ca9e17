"""Scrapy: one spider with a JOBDIR, its places upserted by an item pipeline, one item an answer."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import asyncpg
import scrapy
from scrapy.crawler import Crawler
from scrapy.http import Response, TextResponse

from benchmarks.peers.job import COLUMNS, TABLE, Job, rows

UPSERT = f"""INSERT INTO places ({", ".join(COLUMNS)})
               VALUES ({", ".join(f"${n}" for n in range(1, len(COLUMNS) + 1))})
    ON CONFLICT (naver_place_id) DO UPDATE
    SET {", ".join(f"{column} = excluded.{column}" for column in COLUMNS[1:])}"""


class Upserts:
    """Store the places of one answer in one transaction; the reactor continues during it."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @classmethod
    def from_crawler(cls, _crawler: Crawler) -> Self:
        return cls(Job.given())

    async def open_spider(self) -> None:
        self.pool = await asyncpg.create_pool(self.job.database_url, min_size=1, max_size=4)
        await self.pool.execute(TABLE)

    async def close_spider(self) -> None:
        await self.pool.close()

    async def process_item(self, item: dict[str, Any]) -> dict[str, Any]:
        # In the order of their keys: two transactions with the same places would wait for each
        # other.
        async with self.pool.acquire() as connection:
            await connection.executemany(UPSERT, sorted(item["places"]))
        return item


class LocalSearch(scrapy.Spider):
    """Make every search, with the concurrency that Scrapy's page on broad crawls recommends."""

    name = "local_search"
    custom_settings = {  # noqa: RUF012 - Scrapy's own form
        "ITEM_PIPELINES": {Upserts: 300},
        "CONCURRENT_REQUESTS": 100,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 100,
        "CONCURRENT_ITEMS": 1,  # an answer is one item; Scrapy starts this number of tasks for each
        "LOG_LEVEL": "INFO",
        "COOKIES_ENABLED": False,
        "REDIRECT_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "AUTOTHROTTLE_ENABLED": False,
        "DOWNLOAD_DELAY": 0,
        **Job.given().settings,
    }

    async def start(self) -> AsyncIterator[scrapy.Request]:
        job = Job.given()
        for code, query in job.searches():
            yield scrapy.Request(
                job.address(query), headers=dict(job.headers), cb_kwargs={"code": code}
            )

    def parse(self, response: Response, code: str) -> Iterator[dict[str, Any]]:
        assert isinstance(response, TextResponse)  # noqa: S101 - JSON is text
        yield {"places": rows(response.json(), code)}
