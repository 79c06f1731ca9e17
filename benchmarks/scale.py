"""256 regions and all 20,000 dongs and ris: a tick of the sensor, the asset's page, and a refresh of the list."""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import dagster as dg
from benchmarks.stage import UNLIMITED, Stage, stage, write
from sqlalchemy import text

from mohe_assets.defs.refreshing import mirror_partitions
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.sensors import pending_region_sensor
from mohe_assets.platform import Platform
from mohe_assets_tests.dagster_ui.conftest import statements
from mohe_assets_tests.dagster_ui.ui import STATUSES, Up
from mohe_assets_tests.recovery.conftest import dagster_instance

TICKS = 5
# As a collection under way has them: some completed, some failed, the events of all of them lost.
UNDER_WAY = """
UPDATE batch_checkpoint SET run_id = '', end_time = now(), attempt = 1,
       status = CASE WHEN id % 10 = 0 THEN 'COMPLETED' WHEN id % 50 = 1 THEN 'FAILED' ELSE 'PENDING' END
"""


def seconds_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def ticks(made: Stage, instance: dg.DagsterInstance) -> dict[str, float]:
    """Every tick here compares all regions, as one in a dozen does; the others are faster."""

    def tick(cursor: str | None = None) -> str:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        return str(pending_region_sensor(context, mohe=MoheResource(environment=dict(made.variables))).cursor or "")

    def paint() -> list[float]:
        """What UNDER_WAY set without Dagster is repaired, some hundred regions a tick."""
        taken, cursor = list[float](), ""
        while not cursor:
            began = time.monotonic()
            cursor = tick()
            taken.append(time.monotonic() - began)
        return taken

    repairing = paint()
    comparing = [seconds_of(tick) for _ in range(TICKS)]
    cursor = tick()
    plain = [seconds_of(lambda: tick(cursor)) for _ in range(TICKS)]
    with statements() as sent:
        tick()
    return {
        "tick, median (s)": round(statistics.median(plain), 3),
        "tick that compares every region, median (s)": round(statistics.median(comparing), 3),
        "statements of such a tick": len(sent),
        "ticks that repair a lost event log": len(repairing),
        "longest of these (s)": round(max(repairing), 1),
    }


def page(made: Stage) -> float:
    """The partition statuses of `places`, as the asset's page asks for them."""
    up = Up({**made.variables, "CHECKPOINT_AUTO_RESUME": "false"}, made.home / "up.log")
    try:
        up.ready()
        return statistics.median(seconds_of(lambda: up.ui.ask(STATUSES)) for _ in range(TICKS))
    finally:
        up.end()


def measured(region_type: str) -> dict[str, float]:
    # A dong's list is as long as the sigungus': the simulator gives both the same rows.
    with stage(replace(UNLIMITED, warm=True), CHECKPOINT_REGION_TYPE=region_type) as made:
        database = made.platform.database
        refresh = seconds_of(made.platform.refresh_regions)
        with dagster_instance(made.platform.settings) as instance, Platform.open(made.platform.settings) as platform:
            mirror = seconds_of(lambda: mirror_partitions(instance, platform))
            database.transact(lambda connection: connection.execute(text(UNDER_WAY)))
            total = platform.checkpoints.progress().total
            found = ticks(made, instance)
        return {
            "regions": total,
            "refresh of a known list (s)": round(refresh, 1),
            "first mirroring of the partition keys (s)": round(mirror, 1),
            **found,
            "partition statuses for the asset's page, median (s)": round(page(made), 3),
        }


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    load = round(os.getloadavg()[0], 2)
    found = {kind: measured(kind) for kind in ("sigungu", "legal_dong")}
    labels = found["sigungu"]
    write("scale", {"load average before": load, **{label: [one[label] for one in found.values()] for label in labels}})


if __name__ == "__main__":
    main()
