"""A national collection that is killed ten times: repeated and lost searches, leftovers, and the
time to resume.
"""

import argparse
import random
import statistics
import time

from benchmarks.simulated_stack import SimulatedStack, simulated_stack, uninterrupted, write
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.store.api_calls import LAST_PROBE_SECONDS
from mohe_assets_tests.support.processes import Collected, repeated, statuses, until

HOUR = 3_600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=50, help="the API's calls per second")
    parser.add_argument("--latency-ms", type=float, default=60)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease-seconds", type=float, default=10)
    parser.add_argument("--keywords", default="카페,공원,미술관", help="comma-separated")
    parser.add_argument("--long", action="store_true", help="ten kills, and all fifteen keywords")
    arguments = parser.parse_args()
    if arguments.long:
        arguments.kills, arguments.keywords = 10, ""
    changes = {"MOHE_SEARCH_KEYWORDS": arguments.keywords} if arguments.keywords else {}
    reference = uninterrupted(**changes)
    changes |= {"MOHE_LEASE_SECONDS": str(arguments.lease_seconds), "MOHE_HEARTBEAT_SECONDS": "1"}
    config = SimulatorConfig(
        warm=True,
        calls_per_second=arguments.rate,
        latency_ms=arguments.latency_ms,
        daily_quota=None,
    )
    with simulated_stack(config, **changes) as stack:
        result = measure(stack, reference, random.Random(arguments.seed), arguments.kills)
    with simulated_stack(config, **changes) as stack:
        result |= outage(stack)
    write(
        "recovery" if arguments.long else "recovery_short",
        {
            "calls per second": arguments.rate,
            "latency (ms)": arguments.latency_ms,
            "seed": arguments.seed,
            **result,
        },
    )


def measure(
    stack: SimulatedStack, reference: Collected, moments: random.Random, kills: int
) -> dict[str, object]:
    """Kill at random calls and start again each time; then count the leftovers one lease after the
    end.
    """
    settings, database = stack.app.settings, stack.app.database
    searches = len(reference.searches)
    began = time.monotonic()
    idle: list[float] = []
    worker = stack.start_worker()
    for target in sorted(moments.sample(range(1, searches - settings.searches_in_flight), kills)):
        until_received(stack, target)
        worker.kill()
        killed_at, before = time.monotonic(), received(stack)
        worker = stack.start_worker()
        until_received(stack, before + 1)
        idle.append(time.monotonic() - killed_at)
    status = worker.wait(3_600)
    seconds = time.monotonic() - began
    time.sleep(settings.lease_seconds)
    answers = stack.simulator.stats()["naver"]["answers_per_search"]
    left = stack.app.database.transaction(
        lambda connection: connection.exec_driver_sql(
            "SELECT count(*) FROM batch_execution_metadata WHERE status = 'RUNNING'"
        ).scalar_one()
    )
    return {
        "searches": searches,
        "kills": kills,
        "last run's exit status": status,
        "regions": statuses(database),
        "searches never answered": searches - len(answers),
        "searches answered more than once": sum(times > 1 for times in answers.values()),
        "answers beyond the first": repeated(answers),
        "searches in flight": settings.searches_in_flight,
        "places": len(reference.places),
        "places identical to an uninterrupted collection": "yes"
        if Collected.of(database) == reference
        else "no",
        "seconds from kill -9 to the next call, median": round(statistics.median(idle), 2)
        if idle
        else None,
        "seconds from kill -9 to the next call, longest": round(max(idle), 2) if idle else None,
        "left PROCESSING one lease after the end": statuses(database).get("PROCESSING", 0),
        "left RUNNING one lease after the end": left,
        "seconds in all": round(seconds, 1),
    }


def outage(stack: SimulatedStack) -> dict[str, object]:
    """Answer HTTP 503 for an hour in the middle of a collection, without its waits, then resume."""
    found: list[float] = []

    def run(name: str) -> None:
        with stack.app.collection(name, ClaimFilter()) as collection:
            found.extend(time.monotonic() for _ in collection.outcomes())

    down_at = 100
    stack.simulator.add_faults(
        [{"api": "naver", "fault": "status", "status": 503, "from_call": down_at}]
    )
    run("meets the outage")
    passed, number = 0.0, 0
    while (
        wait := one(
            stack, "SELECT extract(epoch FROM next_probe_at - budget_clock()) FROM api_budget"
        )
    ) + passed < HOUR:
        passed, number = passed + wait, number + 1
        let_probe(stack)
        run(f"probe {number}")
    dead_calls = received(stack) - down_at + 1
    charged = one(stack, "SELECT count(*) FROM batch_checkpoint WHERE failures > 0")
    stack.simulator.clear_faults()
    let_probe(stack)
    before, began = len(found), time.monotonic()
    run("after it")
    return {
        "outage: calls to the dead API in the first hour": dead_calls,
        "outage: seconds from the probe that is answered to the next region": round(
            found[before] - began, 2
        ),
        "outage: longest wait for a probe (s)": round(LAST_PROBE_SECONDS),
        "outage: regions charged": int(charged),
        "outage: regions completed afterwards": statuses(stack.app.database).get("COMPLETED", 0),
    }


def let_probe(stack: SimulatedStack) -> None:
    """The time until the next probe passes."""
    sql = "UPDATE api_budget SET next_probe_at = budget_clock() - interval '1 second'"
    stack.app.database.transaction(lambda connection: connection.exec_driver_sql(sql))


def one(stack: SimulatedStack, sql: str) -> float:
    return float(
        stack.app.database.transaction(
            lambda connection: connection.exec_driver_sql(sql).scalar_one()
        )
    )


def until_received(stack: SimulatedStack, calls: int) -> None:
    until(lambda: received(stack) >= calls, f"call {calls}", seconds=3_600)


def received(stack: SimulatedStack) -> int:
    return int(stack.simulator.stats(brief=True)["naver"]["received"])


if __name__ == "__main__":
    main()
