"""A whole collection into PostgreSQL: the base plan, then refinement until the quota ends, and the
places of each.
"""

import argparse
import time

from benchmarks.simulated_stack import UNLIMITED, SimulatedStack, simulated_stack, write
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.processes import repeated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--calls", type=int, default=6_000, help="the day's quota; 25000, the real one, with --long"
    )
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--seed", type=int, default=1, help="which made-up country")
    arguments = parser.parse_args()
    calls = 25_000 if arguments.long else arguments.calls
    config = UNLIMITED.changed({"warm": True, "seed": arguments.seed})
    with simulated_stack(config, MOHE_DAILY_QUOTA=str(calls)) as stack:
        result = {
            "seed": arguments.seed,
            **collect(stack, ClaimFilter(), "base plan"),
            **collect(stack, ClaimFilter(refine=True), "all"),
        }
        result["searches answered more than once"] = repeated(
            stack.simulator.stats()["naver"]["answers_per_search"]
        )
        result["regions completed"] = count(
            stack, "SELECT count(*) AS n FROM batch_checkpoint WHERE status = 'COMPLETED'"
        )
    write("depth" if arguments.long else "depth_short", result)


def collect(stack: SimulatedStack, claim_filter: ClaimFilter, name: str) -> dict[str, object]:
    began = time.monotonic()
    before = count(stack, "SELECT coalesce(sum(calls), 0) AS n FROM search_query")
    with stack.app.collection(name, claim_filter) as run:
        for _ in run.outcomes():
            pass
    seconds = time.monotonic() - began
    calls = count(stack, "SELECT sum(calls) AS n FROM search_query")
    return {
        f"{name}: calls": calls,
        f"{name}: places": count(stack, "SELECT count(*) AS n FROM places"),
        f"{name}: searches a second, without a limit": round((calls - before) / seconds),
    }


def count(stack: SimulatedStack, sql: str) -> int:
    return int(read(stack.app.database, sql)[0]["n"])


if __name__ == "__main__":
    main()
