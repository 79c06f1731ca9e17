"""A jump of the database's clock, or its way back, holds nothing for longer than it would be held
without it. The clock is moved by moving the rows' moments the other way.
"""

import asyncio
import threading
import time
from typing import Any

import pytest
from sqlalchemy import text

from mohe_assets.app import App
from mohe_assets.collection import rate_limiter as rate_limiter_module
from mohe_assets.collection.cancellation import CancellationToken
from mohe_assets.collection.rate_limiter import SharedRateLimiter
from mohe_assets.store.database import rows
from mohe_assets_tests.support.commands import Mohe
from mohe_assets_tests.support.processes import holding, soon

FAILED = """UPDATE batch_checkpoint SET status = 'FAILED', failures = 1, end_time = now() + {ahead},
                   retry_at = now() + {ahead} + interval '1 minute' WHERE region_code = '11680'"""
WAITING = "SELECT count(*) AS waiting FROM pg_locks WHERE NOT granted"
# What was written while the clock was ahead, the moment it must not lie after, and what it is.
WRITTEN = [
    ("UPDATE api_budget SET next_slot_at = now() + {ahead}", "next_slot_at", 1, "turn of the next"),
    (
        """UPDATE api_budget SET exhausted_why = '',
               exhausted_until = budget_midnight(budget_day(now()) + 1) + {ahead}""",
        "exhausted_until",
        86_400,
        "used-up quota",
    ),
    (
        (
            "UPDATE api_budget SET unavailable_since = now() + {ahead}, "
            "next_probe_at = now() + {ahead}"
        ),
        "next_probe_at",
        3_600,
        "next probe",
    ),
    ("UPDATE api_budget SET probing_since = now() + {ahead}", "probing_since", 1, "start of a"),
    ("UPDATE api_budget SET paced_at = now() + {ahead}", "paced_at", 1, "last slowing"),
    ("UPDATE api_budget SET refused_since = now() + {ahead}", "refused_since", 1, "first refusal"),
    (
        """UPDATE batch_checkpoint SET status = 'PROCESSING', lease_expires_at = now() + {ahead}
         WHERE region_code = '11680'""",
        "lease_expires_at",
        61,
        "lease of a region",
    ),
    (FAILED, "retry_at", 61, "next try"),
    (
        "UPDATE batch_execution_metadata SET heartbeat_at = now() + {ahead}",
        "heartbeat_at",
        1,
        "heartbeat of a run",
    ),
    ("UPDATE region_refresh SET refreshed_at = now() + {ahead}", "refreshed_at", 1, "last refresh"),
]
TABLES = {
    "lease_expires_at": "batch_checkpoint",
    "retry_at": "batch_checkpoint",
    "heartbeat_at": "batch_execution_metadata",
    "refreshed_at": "region_refresh",
}


@pytest.fixture(scope="module")
def template(regions_template: str) -> str:
    return regions_template


def execute(app: App, sql: str) -> None:
    app.database.transaction(lambda connection: connection.execute(text(sql)))


def read(app: App, sql: str) -> dict[str, Any]:
    return app.database.transaction(lambda connection: rows(connection, sql))[0]


def limiter(app: App) -> SharedRateLimiter:
    return SharedRateLimiter(
        database=app.database, account=app.account, cancellation=CancellationToken()
    )


async def call(gate: SharedRateLimiter) -> float:
    """Make one call; returns how long its turn was waited for."""
    began = time.monotonic()
    await gate.reserve()
    await gate.answered()
    await gate.close()
    return time.monotonic() - began


@pytest.fixture
def used(app: App) -> App:
    """A call was made, a run lives."""
    asyncio.run(call(limiter(app)))
    app.executions.start("run")
    return app


@pytest.mark.parametrize(("written", "column", "at_most", "named"), WRITTEN)
@pytest.mark.parametrize("ahead", ["2 hours", "2 days"])
def test_a_moment_further_ahead_than_its_rule_explains_is_named_and_pulled_back(
    used: App,
    mohe: Mohe,
    caplog: pytest.LogCaptureFixture,
    written: str,
    column: str,
    at_most: int,
    named: str,
    ahead: str,
) -> None:
    if column == "exhausted_until" and ahead == "2 hours":
        ahead = "1 day"
    assert not used.clock.look()
    execute(used, written.format(ahead=f"interval '{ahead}'"))
    assert named in mohe("status").out.replace("\n", " ")
    assert named in used.clock.look().sentence, "looking has changed nothing"
    assert named in used.clock.pull_back().sentence
    assert "They are pulled back." in caplog.text
    table = TABLES.get(column, "api_budget")
    left = read(
        used, f"SELECT extract(epoch FROM max({column}) - now())::float AS seconds FROM {table}"
    )["seconds"]
    assert left <= at_most + 1
    assert not used.clock.look()
    assert not used.clock.pull_back()


def test_moments_as_far_ahead_as_the_rules_allow_are_left_alone(used: App) -> None:
    execute(
        used,
        """UPDATE api_budget SET next_slot_at = now() + interval '59 seconds',
                  next_probe_at = now() + interval '1 hour', unavailable_since = now(),
                  exhausted_until = budget_midnight(budget_day(now()) + 1)""",
    )
    execute(
        used,
        """UPDATE batch_checkpoint SET status = 'FAILED', end_time = now(),
                  retry_at = now() + interval '6 hours' WHERE region_code = '11680'""",
    )
    execute(
        used,
        """UPDATE batch_checkpoint SET status = 'PROCESSING',
                  lease_expires_at = now() + interval '1 minute' WHERE region_code = '11110'""",
    )
    assert not used.clock.look()


def test_a_call_that_sleeps_until_a_wrong_turn_wakes_when_the_turn_is_put_right(
    used: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter_module, "LOOK_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(rate_limiter_module, "QUEUE_TOLERANCE_SECONDS", 0.2)
    execute(used, "UPDATE api_budget SET next_slot_at = now() + interval '2 hours'")

    async def both() -> float:
        waiting = asyncio.create_task(call(limiter(used)))
        await asyncio.sleep(1)
        assert not waiting.done()
        await asyncio.to_thread(used.clock.pull_back)
        async with asyncio.timeout(10):
            return await waiting

    assert asyncio.run(both()) < 5
    assert read(used, "SELECT sum(reserved) AS calls FROM api_usage")["calls"] == 2


def test_a_call_whose_turn_is_far_by_the_rate_alone_keeps_it(
    used: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter_module, "LOOK_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(rate_limiter_module, "QUEUE_TOLERANCE_SECONDS", 0.2)
    execute(used, "UPDATE api_budget SET next_slot_at = now() + interval '2 seconds'")
    assert asyncio.run(call(limiter(used))) > 1.5


def test_a_heartbeat_that_waited_for_its_row_writes_the_moment_at_which_it_got_it(
    used: App, database_url: str
) -> None:
    lock = "SELECT * FROM batch_execution_metadata FOR UPDATE"
    with holding(database_url, lock):
        beat = threading.Thread(target=used.executions.heartbeat, args=("run",))
        beat.start()
        soon(lambda: bool(read(used, WAITING)["waiting"]), "it waits for the row")
        time.sleep(1)
    beat.join()
    age = read(
        used,
        """SELECT extract(epoch FROM clock_timestamp() - heartbeat_at)::float AS seconds
             FROM batch_execution_metadata""",
    )["seconds"]
    assert age < 0.9


def test_a_live_holder_keeps_what_it_could_not_renew_while_the_table_was_locked(used: App) -> None:
    (lease,) = used.checkpoints.claim("run", limit=1)
    late = """UPDATE batch_checkpoint SET lease_expires_at = now() - interval '{}'
               WHERE run_id = 'run'"""
    execute(used, late.format("30 seconds"))
    assert used.executions.reap_dead_runs(used.checkpoints).regions == ()
    used.checkpoints.renew([lease])
    # Not for good: the holder may have lost track of a region.
    execute(used, late.format("601 seconds"))
    assert used.executions.reap_dead_runs(used.checkpoints).regions == (lease.region_code,)


def test_a_silent_holder_loses_what_it_did_not_renew_at_once(used: App) -> None:
    (lease,) = used.checkpoints.claim("run", limit=1)
    execute(
        used,
        """UPDATE batch_checkpoint SET lease_expires_at = now() - interval '1 second'
            WHERE run_id = 'run'""",
    )
    execute(
        used, "UPDATE batch_execution_metadata SET heartbeat_at = now() - interval '61 seconds'"
    )
    assert used.executions.reap_dead_runs(used.checkpoints).regions == (lease.region_code,)
