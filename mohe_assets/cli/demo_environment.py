"""The simulator in place of the real APIs, for `mohe demo` and `mohe up --demo`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mohe_assets.settings import SECRETS
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import running

DEMO_CALLS_PER_SECOND = 50
DEMO_LATENCY_MS = 30.0
LOOPBACK = "127.0.0.1,localhost,::1"

# The demo must not fill the user's database with made-up places, nor use the user's keys. It does
# not read `.env` either.
_NOT_FOR_DEMO = frozenset(f"{name}{suffix}" for name in SECRETS for suffix in ("", "_FILE"))


@contextmanager
def demo_settings(*, calls_per_second: int, latency_ms: float) -> Iterator[dict[str, str]]:
    """Run a simulator; yield the environment that points to it and to the embedded database."""
    # Only our database counts the day's calls, so that `mohe db reset` starts a new day.
    config = SimulatorConfig(
        warm=True, calls_per_second=calls_per_second, latency_ms=latency_ms, daily_quota=None
    )
    with running(config) as simulator:
        variables = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_DEMO}
        yield variables | {
            "MOHE_GOVERNMENT_API_URL": simulator.url,
            "MOHE_NAVER_API_URL": simulator.url,
            "GOVT_API_KEY": config.government_key,
            "NAVER_CLIENT_ID": config.client_id,
            "NAVER_CLIENT_SECRET": config.client_secret,
            "MOHE_CALLS_PER_SECOND": str(calls_per_second),
            # No proxy leads to the simulator.
            "NO_PROXY": LOOPBACK,
            "no_proxy": LOOPBACK,
        }
