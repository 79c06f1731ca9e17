"""The row of rate and quota that all processes share, and its clock."""

import asyncio
import datetime as dt

from sqlalchemy import text

from mohe_assets.app import App
from mohe_assets.collection.cancellation import CancellationToken
from mohe_assets.collection.rate_limiter import SharedRateLimiter
from mohe_assets.domain.kst import KST
from mohe_assets.errors import ApiError
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database


def set_noon(database: Database, simulator: Simulator | None, *, days_ahead: int = 0) -> None:
    """Set database and simulator to noon of a day in Korea: no test runs into a real midnight."""
    now = dt.datetime.now(KST)
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0) + dt.timedelta(days=days_ahead)
    ahead = (noon - now).total_seconds()
    sql = f"""CREATE OR REPLACE FUNCTION budget_clock() RETURNS timestamptz LANGUAGE sql VOLATILE
              AS $$ SELECT clock_timestamp() + make_interval(secs => {ahead}) $$"""
    database.transaction(lambda connection: connection.execute(text(sql)))
    if simulator is not None:
        simulator.set_clock(noon.isoformat())


def call_once(app: App, refusal: ApiError | None = None) -> None:
    """Reserve one call as a run would; it stays unanswered, or it is refused."""

    async def call() -> None:
        rate_limiter = SharedRateLimiter(
            database=app.database, account=app.account, cancellation=CancellationToken()
        )
        await rate_limiter.reserve()
        if refusal is not None:
            await rate_limiter.refused(refusal)

    asyncio.run(call())
