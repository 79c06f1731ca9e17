"""Three processes under one limit: how much of it they use between the first call and the last, and what is refused."""

import argparse

from benchmarks.stage import stage, write

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets_tests.recovery.conftest import keep_regions
from mohe_assets_tests.recovery.processes import backends_waiting, holding, until

PROCESSES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", default="10,50", help="calls per second, comma-separated")
    parser.add_argument("--latency-ms", type=float, default=60)
    parser.add_argument("--seconds", type=float, default=60, help="about how long each limit is measured")
    arguments = parser.parse_args()
    result: dict[str, object] = {"processes": PROCESSES, "latency (ms)": arguments.latency_ms}
    for limit in map(int, arguments.limits.split(",")):
        result |= measure(limit, arguments.latency_ms, arguments.seconds)
    write("rate", result)


def measure(limit: int, latency_ms: float, seconds: float) -> dict[str, object]:
    """One limit, with as many regions as keep it busy for the time."""
    config = SimulatorConfig(warm=True, calls_per_second=limit, latency_ms=latency_ms, daily_quota=None)
    with stage(config) as made:
        keywords = len(made.platform.settings.mohe_search_keywords)
        keep_regions(made.platform.database, min(256, max(6, round(limit * seconds / keywords))))
        url = made.variables["MOHE_DATABASE_URL"]
        with holding(url, "LOCK TABLE batch_execution_metadata IN ACCESS EXCLUSIVE MODE"):
            workers = [made.start_worker() for _ in range(PROCESSES)]
            until(lambda: backends_waiting(url) == PROCESSES, "all are at the start")
        for worker in workers:
            worker.wait(seconds * 5 + 60)
        seen = made.simulator.stats(moments=True)["naver"]
    span = seen["answered_at"][-1] - seen["answered_at"][0]
    return {
        f"calls answered, limit {limit}/s": seen["answered"],
        f"share of the limit used, limit {limit}/s": round((seen["answered"] - 1) / span / limit, 4),
        f"share of the calls refused, limit {limit}/s": round(seen["refused_rate"] / seen["received"], 4),
    }


if __name__ == "__main__":
    main()
