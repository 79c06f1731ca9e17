"""Environments of collections in tests: their type, quick settings, nothing of a person's."""

import os

# The variables of one process.
Environment = dict[str, str]

PREFIXES = ("MOHE_", "GOVT_", "NAVER_", "NCP_", "CHECKPOINT_", "BATCH_", "DAGSTER_")
KEYWORDS = ("카페", "공원")
# Short intervals: with the default lease each test of a dead run would wait for a minute.
QUICK = {
    "MOHE_SEARCH_KEYWORDS": ",".join(KEYWORDS),
    "MOHE_SEARCHES_IN_FLIGHT": "4",
    "MOHE_HEARTBEAT_SECONDS": "0.5",
    "MOHE_RETRY_SECONDS": "0.1",
}


def without_settings() -> Environment:
    """Return this process's environment without the project's variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
