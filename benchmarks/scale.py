"""256, 2,560 and 20,000 regions: refresh, a tick of the sensor, a claim, `mohe status`, the report,
the asset's page.
"""

import argparse
import datetime as dt
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import dagster as dg
from sqlalchemy import text

from benchmarks.figures import exponent, rounded
from benchmarks.simulated_stack import UNLIMITED, SimulatedStack, simulated_stack, write
from mohe_assets.app import App
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.region_refresh import sync_partition_keys
from mohe_assets.defs.sensors import pending_region_sensor
from mohe_assets.publishing.report import build_report
from mohe_assets.simulator.region_list import base_rows
from mohe_assets_tests.support.dagster_instances import dagster_instance
from mohe_assets_tests.support.databases import statements
from mohe_assets_tests.support.ui import STATUSES, Up

TICKS = 5
CLAIMS = 20
MIDDLE = 2_560
# As a collection under way has them: some completed, some failed, the events of all of them lost.
# Few, because each event that is logged again takes ten milliseconds.
UNDER_WAY = """
UPDATE batch_checkpoint SET run_id = '', end_time = now(), attempt = 1,
       status = CASE WHEN id % 50 = 0 THEN 'COMPLETED' WHEN id % 100 = 1 THEN 'FAILED'
       ELSE 'PENDING' END
"""
Edits = Sequence[Mapping[str, str]]


def seconds_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def median_seconds(work: Callable[[], object], times: int = TICKS) -> float:
    return statistics.median(seconds_of(work) for _ in range(times))


def ticks(stack: SimulatedStack, instance: dg.DagsterInstance) -> dict[str, float]:
    """Every tick here compares all regions, as one in a dozen does; the others are faster."""

    def tick(cursor: str | None = None) -> str:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        mohe = MoheResource(environment=dict(stack.variables))
        result = cast("dg.SensorResult", pending_region_sensor(context, mohe=mohe))
        return result.cursor or ""

    def paint() -> list[float]:
        """Let the sensor repair the statuses that UNDER_WAY set without Dagster, some hundred
        regions a tick.
        """
        taken, cursor = list[float](), ""
        while not cursor:
            began = time.monotonic()
            cursor = tick()
            taken.append(time.monotonic() - began)
        return taken

    repairing = paint()
    comparing = median_seconds(tick)
    cursor = tick()
    plain = median_seconds(lambda: tick(cursor))
    with statements() as sent:
        tick()
    return {
        "tick, median (s)": plain,
        "tick that compares every region, median (s)": comparing,
        "statements of such a tick": len(sent),
        "ticks that repair a lost event log": len(repairing),
        "longest of these (s)": max(repairing),
    }


def page(stack: SimulatedStack) -> float:
    """Query the partition statuses of `places` as the asset's page does."""
    up = Up({**stack.variables, "CHECKPOINT_AUTO_RESUME": "false"}, stack.home / "up.log")
    try:
        up.ready()
        return median_seconds(lambda: up.ui.ask(STATUSES))
    finally:
        up.end()


def status(stack: SimulatedStack) -> float:
    """The command as a shell runs it, its imports included."""
    command = [str(Path(sys.executable).with_name("mohe")), "status", "--json"]
    return median_seconds(
        lambda: subprocess.run(command, env=dict(stack.variables), check=True, capture_output=True),
        3,
    )


def claims(app: App) -> float:
    """One region after the other by one run, as its threads do."""
    app.executions.start("bench", total=CLAIMS)
    return median_seconds(lambda: app.checkpoints.claim("bench"), CLAIMS)


def report(app: App) -> float:
    now = dt.datetime.now(dt.UTC)
    build_report(app, now=now)  # the first one loads fonts
    return median_seconds(lambda: build_report(app, now=now), 3)


def measured(region_type: str, edits: Edits = ()) -> dict[str, float]:
    """Measure one size and print it at once, because the last takes a minute."""
    # A dong's list is as long as the sigungus': the simulator gives both the same rows.
    config = UNLIMITED.changed({"warm": True, "region_edits": edits})
    with simulated_stack(config, CHECKPOINT_REGION_TYPE=region_type) as stack:
        database = stack.app.database
        refresh = seconds_of(stack.app.refresh_regions)
        with dagster_instance(stack.app.settings) as instance, App.open(stack.app.settings) as app:
            mirror = seconds_of(lambda: sync_partition_keys(instance, app))
            database.transaction(lambda connection: connection.execute(text(UNDER_WAY)))
            total = app.checkpoints.progress().total
            found = ticks(stack, instance)
            found |= {"mohe status, median (s)": status(stack), "report, median (s)": report(app)}
            found["claim, median (s)"] = claims(app)
        found = {
            "regions": total,
            "refresh of a known list (s)": refresh,
            "first mirroring of the partition keys (s)": mirror,
            **found,
            "partition statuses for the asset's page, median (s)": page(stack),
        }
        print(
            ", ".join(f"{label}: {rounded(value, 3):g}" for label, value in found.items()),
            flush=True,
        )
        return found


def fewer(regions: int) -> Edits:
    """Return edits that leave about this number of dongs by dropping whole provinces."""
    rows = base_rows()
    sizes = {
        row.code: sum(other.code[:2] == row.code[:2] for other in rows)
        for row in rows
        if row.code.endswith("00000000")
    }
    kept, edits = 0, []
    for province, size in sizes.items():
        if kept + size > regions * 1.1:
            edits.append({"op": "drop", "code": province})
        else:
            kept += size
    return edits


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    load = rounded(os.getloadavg()[0], 3)
    found = [measured("sigungu"), measured("legal_dong", fewer(MIDDLE)), measured("legal_dong")]
    sizes = [one["regions"] for one in found]
    result: dict[str, object] = {"load average before": load}
    for label in found[0]:
        values = [rounded(one[label], 3) for one in found]
        result[label] = values
        grows = exponent(sizes, [one[label] for one in found])
        if label.endswith("(s)") and grows is not None:
            result[f"{label}: exponent"] = rounded(grows, 2)
    write("scale", result)


if __name__ == "__main__":
    main()
