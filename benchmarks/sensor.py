"""A real `mohe up` on an empty database: how much of the limit the sensor alone uses between the first call and the last."""

import argparse
import os
import time
from itertools import pairwise

from benchmarks.stage import stage, write

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets_tests.dagster_ui.ui import Up
from mohe_assets_tests.recovery.processes import executions, read, repeated, statuses, until


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=50, help="calls per second")
    parser.add_argument("--latency-ms", type=float, default=60)
    parser.add_argument("--regions-per-run", type=int, help="instead of the default, to see many waves of runs")
    arguments = parser.parse_args()
    config = SimulatorConfig(warm=True, calls_per_second=arguments.limit, latency_ms=arguments.latency_ms, daily_quota=None)
    changes = {"MOHE_REGIONS_PER_RUN": str(arguments.regions_per_run)} if arguments.regions_per_run else {}
    load_before = round(os.getloadavg()[0], 2)
    with stage(config, **changes) as made:
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
        completed = read(made.platform.database, "SELECT count(*) AS regions FROM batch_checkpoint")[0]["regions"]
    moments = seen["answered_at"]
    span = moments[-1] - moments[0]
    answered = seen["answered"]
    write(
        "sensor_waves" if changes else "sensor",
        {
            "limit (calls/s)": arguments.limit,
            "latency (ms)": arguments.latency_ms,
            "regions per run": made.platform.settings.mohe_regions_per_run,
            "runs in flight": made.platform.settings.mohe_runs_in_flight,
            "load average before": load_before,
            "regions completed": completed,
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
