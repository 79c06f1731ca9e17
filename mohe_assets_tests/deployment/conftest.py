"""For the platform as docker-compose.yml starts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mohe_assets_tests.conftest import Environment
from mohe_assets_tests.support.compose import DEMO, services
from mohe_assets_tests.support.containers import Topology

KEYWORDS = ("카페", "공원")
THREADS, RUNS = 8, 1
# Each secret has a word in it that survives every encoding, and that is what is searched for.
NEEDLES = (
    "GovtNeedle7731",
    "IdNeedle4412",
    "SecretNeedle9083",
    "OwnerNeedle5520",
    "CollectorNeedle6617",
)
GOVERNMENT_KEY, CLIENT_ID, CLIENT_SECRET = f"a+b+{NEEDLES[0]}/==", NEEDLES[1], NEEDLES[2]
SETTINGS = {
    "MOHE_SEARCH_KEYWORDS": ",".join(KEYWORDS),
    "MOHE_SEARCHES_IN_FLIGHT": str(THREADS),
    "MOHE_RUNS_IN_FLIGHT": str(RUNS),
    "MOHE_REGIONS_PER_RUN": "256",
    "MOHE_HEARTBEAT_SECONDS": "0.5",
    "MOHE_LEASE_SECONDS": "6",
    "MOHE_RETRY_SECONDS": "0.1",
    "MOHE_REFINE": "false",
}


@pytest.fixture
def environment(environment: Environment) -> Environment:
    """What is collected before the move asks the same questions."""
    return {**environment, "MOHE_SEARCH_KEYWORDS": SETTINGS["MOHE_SEARCH_KEYWORDS"]}


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    """The demo's services with an env file as a person would write it: quicker, with secrets that
    can be searched for.
    """
    env_file = tmp_path / "env"
    secrets = {
        # Passwords may have any character but quotes and $: they are in no URL.
        "MOHE_POSTGRES_PASSWORD": f"'p@ss/w:rd %41 {NEEDLES[3]}'",
        "MOHE_COLLECTOR_PASSWORD": f"'p@ss/w:rd %41 {NEEDLES[4]}'",
        "GOVT_API_KEY": GOVERNMENT_KEY,
        "NAVER_CLIENT_ID": CLIENT_ID,
        "NAVER_CLIENT_SECRET": CLIENT_SECRET,
    }
    changed = "".join(f"{name}={value}\n" for name, value in {**SETTINGS, **secrets}.items())
    env_file.write_text(DEMO.read_text(encoding="utf-8") + changed, encoding="utf-8")
    topology = Topology.of(services(env_file))
    yield topology
    topology.end()
