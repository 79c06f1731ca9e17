"""A real `mohe up` on an empty database: how much of the limit the sensor alone uses between the first call and the last."""

import argparse
import time
from itertools import pairwise

from recovery_stage import stage, write

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets_tests.dagster_ui.ui import Up
from mohe_assets_tests.recovery.processes import executions, read, repeated, statuses, until


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=50, help="calls per second")
    parser.add_argument("--latency-ms", type=float, default=60)
    arguments = parser.parse_args()
    config = SimulatorConfig(warm=True, calls_per_second=arguments.limit, latency_ms=arguments.latency_ms, daily_quota=None)
    with stage(config) as made:
        began = time.monotonic()
        up = Up(made.variables, made.home / "up.log")
        try:
            up.ready()
            loaded = time.monotonic() - began
            until(lambda: statuses(made.platform.database) == {"COMPLETED": 256}, "all regions are completed", seconds=900)
            until(lambda: up.ui.idle, "all runs are over", seconds=120)
            seen = made.simulator.stats(moments=True)["naver"]
        finally:
            up.end()
        runs = executions(made.platform.database)
        starts = read(made.platform.database, "SELECT count(*) AS regions, count(DISTINCT run_id) AS runs FROM batch_checkpoint")[
            0
        ]
    moments = seen["answered_at"]
    span = moments[-1] - moments[0]
    answered = seen["answered"]
    write(
        "sensor",
        {
            "limit (calls/s)": arguments.limit,
            "latency (ms)": arguments.latency_ms,
            "regions completed": starts["regions"],
            "runs": len(runs),
            "calls answered": answered,
            "searches answered more than once": repeated(seen["answers_per_search"]),
            "share of the calls refused": round(seen["refused_rate"] / seen["received"], 4),
            "seconds between the first call and the last": round(span, 1),
            "share of the limit used": round((answered - 1) / span / arguments.limit, 4),
            "seconds lost per region against the limit": round((span - (answered - 1) / arguments.limit) / 256, 3),
            "longest pause between two calls (s)": round(max(b - a for a, b in pairwise(moments)), 2),
            "seconds from the start of mohe up to its page": round(loaded, 1),
        },
    )


if __name__ == "__main__":
    main()
