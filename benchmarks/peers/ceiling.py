"""The most that the machine can do: concurrent calls, and COPY into a table without an index. It
does not resume.
"""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import aiohttp
import asyncpg
import uvloop

from benchmarks.peers.job import COLUMNS, Job, rows

IN_FLIGHT = 100
BATCH = 1_000
TABLE = """CREATE TABLE places (naver_place_id text, name text, category text, address text,
             road_address text,
    latitude numeric(10,8), longitude numeric(11,8), phone text, website_url text,
    region_code text)"""


async def call(
    session: aiohttp.ClientSession, job: Job, searches: Iterator[tuple[str, str]], found: list[Any]
) -> None:
    for code, query in searches:
        async with session.get(job.url, params=job.params(query)) as response:
            response.raise_for_status()
            found.extend(rows(await response.json(), code))


async def copy(connection: asyncpg.Connection, found: list[Any], *, least: int) -> None:
    while len(found) >= least:
        batch = found[:BATCH]
        del found[:BATCH]
        await connection.copy_records_to_table("places", records=batch, columns=COLUMNS)


async def main() -> None:
    job = Job.given()
    connection = await asyncpg.connect(job.database_url)
    await connection.execute(TABLE)
    found: list[Any] = []
    searches = itertools.chain(job.searches())
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(headers=job.headers, connector=connector) as session:
        calls = asyncio.gather(*(call(session, job, searches, found) for _ in range(IN_FLIGHT)))
        while not calls.done():
            await copy(connection, found, least=BATCH)
            await asyncio.sleep(0.01)
        await calls
    await copy(connection, found, least=1)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main())
