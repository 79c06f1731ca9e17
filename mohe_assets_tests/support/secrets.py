"""Settings of the containers with secrets that can be found again in every encoding."""

from pathlib import Path

from mohe_assets_tests.support.compose import DEMO

KEYWORDS = ("카페", "공원")
THREADS, RUNS = 8, 1
# Each secret contains a word that survives every encoding; the tests search for that word.
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
SECRETS = {
    # Passwords may have any character but quotes and $: they are in no URL.
    "MOHE_POSTGRES_PASSWORD": f"'p@ss/w:rd %41 {NEEDLES[3]}'",
    "MOHE_COLLECTOR_PASSWORD": f"'p@ss/w:rd %41 {NEEDLES[4]}'",
    "GOVT_API_KEY": GOVERNMENT_KEY,
    "NAVER_CLIENT_ID": CLIENT_ID,
    "NAVER_CLIENT_SECRET": CLIENT_SECRET,
}


def write_env_file(path: Path) -> None:
    """Write the demo's env file with quick settings and the secrets."""
    changed = "".join(f"{name}={value}\n" for name, value in {**SETTINGS, **SECRETS}.items())
    path.write_text(DEMO.read_text(encoding="utf-8") + changed, encoding="utf-8")
