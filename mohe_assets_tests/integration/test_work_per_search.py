"""The database statements and API calls of a collection, in counts that do not depend on the
machine.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2.extensions
import pytest
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import soon
from mohe_assets_tests.support.stores import CODES, Store

FEW, MANY = ("카페", "공원"), ("카페", "공원", "서점", "요가", "미술관", "영화관", "박물관")
# The only one there is to store, and the two of the budget, of which how many are sent depends on
# how fast calls are made.
STORE, RESERVE, RELEASE_RESERVED = (
    "store_search_results(",
    "reserve_api_calls(",
    "SET reserved = greatest",
)
# Regions are claimed, completed and reported together or one by one, as it comes: how often is a
# matter of time.
CLAIM, COMPLETE, TOLD = "WITH due AS (", "WITH done AS MATERIALIZED (", "SET reported_at = now()"
WITH_COMPLETE = (
    "completed_regions = held.completed",
    "AS held (code, attempt)",
    "jsonb_array_length(q.set_aside)",
)
KINDS = (STORE, RESERVE, RELEASE_RESERVED, CLAIM, COMPLETE, TOLD, *WITH_COMPLETE)


@contextmanager
def sent_statements() -> Iterator[list[str]]:
    """Record the statements of every connection of every process."""
    sent: list[str] = []

    class Noting(psycopg2.extensions.cursor):
        def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - psycopg2's own name
            sent.append(str(query))
            super().execute(query, vars)

    def note(connection: Any, _record: object) -> None:
        connection.cursor_factory = Noting

    event.listen(Pool, "connect", note)
    try:
        yield sent
    finally:
        event.remove(Pool, "connect", note)


@pytest.fixture
def work_of(
    environment: Environment, database: Database, admin: Database, simulator: Simulator
) -> Callable[..., Counter[str]]:
    """Count the statements of collecting a few regions by kind, by default one search at a time."""
    store = Store.of(database)
    name = database.engine.url.database

    def commits() -> int:
        # A connection tells the server's statistics what it did when it ends. Waiting for that and
        # reading them takes transactions, too: in another database, where they are not counted.
        database.close()
        others = """SELECT 1 FROM pg_stat_activity
                     WHERE datname = :name AND backend_type = 'client backend'"""
        soon(lambda: not read(others), "the run's connections have ended")
        return int(read("SELECT xact_commit FROM pg_stat_database WHERE datname = :name")[0][0])

    def read(sql: str) -> list[tuple[Any, ...]]:
        return admin.transaction(
            lambda connection: [tuple(row) for row in connection.execute(text(sql), {"name": name})]
        )

    def measure(keywords: tuple[str, ...], *, in_flight: int = 1) -> Counter[str]:
        store.checkpoints.reset()
        simulator.reset()
        changes = {
            "MOHE_SEARCHES_IN_FLIGHT": str(in_flight),
            "MOHE_LEASE_SECONDS": "3600",
            "MOHE_HEARTBEAT_SECONDS": "600",
        }
        settings = settings_module.load(
            {**environment, "MOHE_SEARCH_KEYWORDS": ",".join(keywords), **changes}
        )
        before = commits()
        request = ClaimFilter(codes=frozenset(CODES))
        with (
            sent_statements() as sent,
            App.open(settings) as app,
            app.collection("run", request) as run,
        ):
            assert len(list(run.outcomes())) == len(CODES)
        found = Counter(next((kind for kind in KINDS if kind in one), "other") for one in sent)
        return found + Counter(
            commits=commits() - before, requests=simulator.stats(brief=True)["naver"]["received"]
        )

    return measure


def test_a_search_takes_one_request_one_statement_to_store_and_at_most_one_to_reserve(
    work_of: Callable[..., Counter[str]],
) -> None:
    work_of(FEW)  # the first answer opens the API, once
    few, many = work_of(FEW), work_of(MANY)
    for work, keywords in ((few, FEW), (many, MANY)):
        searches = len(keywords) * len(CODES)
        assert (work["requests"], work[STORE]) == (searches, searches)
        assert work[RESERVE] <= searches
        assert work[RELEASE_RESERVED] <= work[RESERVE]
        assert work[COMPLETE] <= len(CODES)
        per_region = sum(
            work[kind] for kind in ("other", CLAIM, COMPLETE, TOLD, *WITH_COMPLETE)
        ) / len(CODES)
        assert per_region <= 15
    assert few["other"] == many["other"], "nothing else is sent for a search"


def test_each_statement_of_a_search_is_a_transaction_and_there_are_no_others(
    work_of: Callable[..., Counter[str]],
) -> None:
    few, many = work_of(FEW), work_of(MANY)
    more = {kind: many[kind] - few[kind] for kind in (*KINDS, "commits")}
    # The server's own workers, autovacuum among them, commit now and then.
    of_regions = more[CLAIM] + more[COMPLETE] + more[TOLD]
    assert more["commits"] <= more[STORE] + more[RESERVE] + more[RELEASE_RESERVED] + of_regions + 6


def test_searches_that_are_answered_at_the_same_moment_share_a_statement_and_its_commit(
    work_of: Callable[..., Counter[str]], simulator: Simulator
) -> None:
    work_of(FEW)
    simulator.configure(latency_ms=150)
    work = work_of(MANY, in_flight=40)
    searches = len(MANY) * len(CODES)
    assert work["requests"] == searches
    # The first of each region, then all the others; half of them would mean that hardly two came
    # together.
    assert work[STORE] <= searches / 2
    assert work[STORE] + work[RESERVE] <= searches
