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

# Not a person's own: the demo must not fill a database of theirs with made-up places, nor use their
# keys. Nor does it read `.env`.
_NOT_FOR_DEMO = frozenset(f"{name}{suffix}" for name in SECRETS for suffix in ("", "_FILE"))


@contextmanager
def demo_settings(*, calls_per_second: int, latency_ms: float) -> Iterator[dict[str, str]]:
    """A running simulator, and the environment in which everything uses it and the embedded
    database.
    """
    # The day's calls are counted in our database alone: `mohe db reset` begins a new day, whatever
    # runs.
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
