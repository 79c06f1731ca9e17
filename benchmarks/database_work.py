"""The database's work for a search: statements and commits, and its growth up to a million places.
The embedded server has no pg_stat_statements; it logs every statement of the run's database
instead, in a run that is not timed.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from benchmarks.comparison import Entry, Run, Scenario, measured, now_and_then, placed, summary
from benchmarks.competitors import BATCH, CEILING, DLT_TUNED, SCRAPY, SEQUENTIAL
from benchmarks.environment import OURS, Environment
from benchmarks.figures import rounded
from benchmarks.programs import ProgramFailed
from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import administer, execute

COUNTED = Scenario(
    name="counted",
    entries=[
        Entry(who=one, regions=128) for one in (CEILING, BATCH, DLT_TUNED, SCRAPY, SEQUENTIAL)
    ],
)
SIZED = Scenario(name="sized", entries=[Entry(who=BATCH)])
SIZES = {"10,000 places": (10_000, 1_000), "1,000,000 places": (1_000_000, 100_000)}
_STATEMENT = re.compile(rb"LOG:  (?:statement|execute [^:]*): ")
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"

# As earlier rounds leave it: places of all regions, and a ledger whose rows have answers of the
# usual size.
_PLACES = """
INSERT INTO places (name, category, address, latitude, longitude, naver_place_id, region_code)
SELECT 'place ' || n, '음식점>카페', r.region_name || ' ' || n, 33 + random() * 5,
       125 + random() * 6,
md5(n::text), r.region_code
  FROM generate_series(1, :count) n
  JOIN (SELECT region_name, region_code, row_number() OVER (ORDER BY region_code) - 1 AS at,
  count(*) OVER () AS regions
          FROM region WHERE is_leaf AND status = 'ACTIVE') r ON r.at = n % r.regions
"""
_LEDGER = """
INSERT INTO search_query (batch_name, region_type, region_code, round, source, query, sort, keyword,
stage, status, attempt,
                          run_id, calls, result_count, place_ids, new_places, answer, answered_at)
SELECT c.batch_name, c.region_type, c.region_code, 1 + n / 25000, 'naver-local',
c.region_name || ' ' || n, 'random', 'k',
       'base', 'DONE', 1, 'earlier', 1, 5, ARRAY[n, n + 1, n + 2, n + 3, n + 4], 1,
       jsonb_build_object('items', repeat('x', 1500)), now()
  FROM generate_series(1, :count) n
  JOIN (SELECT batch_name, region_type, region_code, region_name,
  row_number() OVER (ORDER BY region_code) - 1 AS at,
               count(*) OVER () AS regions
          FROM batch_checkpoint) c ON c.at = n % c.regions
"""
_NEXT_ROUND = "UPDATE batch_checkpoint SET round = 10"


@dataclass(kw_only=True)
class DatabaseWork:
    environment: Environment
    counts: dict[str, dict[str, float | str]] = field(default_factory=dict)
    sized: dict[str, list[Run]] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)

    def count(self, entry: Entry) -> dict[str, float | str]:
        """Statements and commits a search, those of starting and ending included."""
        try:
            found: dict[str, float | str] = {**self._counted(entry)}
        except ProgramFailed as error:
            found = {"failure": str(error)[-900:]}
        self.counts[entry.who.name] = found
        return found

    def _counted(self, entry: Entry) -> dict[str, float]:
        searches = entry.regions * len(self.environment.keywords)
        with placed(self.environment, COUNTED, entry) as sandbox:
            name = sandbox.database.engine.url.database
            self.environment.execute(f"ALTER DATABASE {name} SET log_statement TO 'all'")
            log = self.environment.server.data / "server.log"
            at, before = log.stat().st_size, sandbox.read(_COMMITS)[0]["xact_commit"]
            program = entry.who.begin(sandbox)
            try:
                program.wait(now_and_then(entry.who, sandbox), seconds=240)
            finally:
                program.kill()
            time.sleep(1)  # backends hand in their statistics when they end
            commits = sandbox.read(_COMMITS)[0]["xact_commit"] - before
            with log.open("rb") as lines:
                lines.seek(at)
                statements = len(_STATEMENT.findall(lines.read()))
        return {
            "statements_per_search": rounded(statements / searches, 3),
            "commits_per_search": rounded(commits / searches, 3),
        }

    def prepare(self, size: str) -> None:
        """A database of that size, to copy from."""
        places, searches = SIZES[size]
        name = f"bench_sized_{places}"
        self.environment.execute(f"CREATE DATABASE {name} TEMPLATE {OURS} STRATEGY file_copy")
        database = Database.connect(self.environment.server.url(name))
        try:
            database.transaction(
                lambda connection: connection.execute(
                    text("SET LOCAL idle_in_transaction_session_timeout = 0")
                )
            )
            for sql, count in ((_PLACES, places), (_LEDGER, searches), (_NEXT_ROUND, 0)):
                execute(database, sql, count=count)
            administer(database, "VACUUM ANALYZE")
        finally:
            database.close()
        self.templates[size] = name

    def size(self, size: str, entry: Entry) -> Run:
        """Run the batch job once on a copy of it."""
        if size not in self.templates:
            self.prepare(size)
        try:
            with placed(self.environment, SIZED, entry, template=self.templates[size]) as sandbox:
                run = measured(self.environment, SIZED, entry, sandbox)
        except ProgramFailed as error:
            run = Run(
                searches=entry.regions * len(self.environment.keywords), failure=str(error)[-900:]
            )
        self.sized.setdefault(size, []).append(run)
        return run

    def as_json(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "sizes": {size: _with_milliseconds(runs) for size, runs in self.sized.items()},
        }


def _with_milliseconds(runs: Sequence[Run]) -> dict[str, Any]:
    found = summary(runs)
    rate = found.get("calls_per_second")
    return found | ({"milliseconds_per_search": rounded(1000 / rate["median"])} if rate else {})
