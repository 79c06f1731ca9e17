"""The same job side by side: scenarios, interleaved rounds, and what each run was measured by."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from psycopg2 import Error
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.competitors import (
    BATCH,
    CEILING,
    DLT,
    DLT_TUNED,
    PLAIN_DAGSTER,
    SCRAPY,
    SENSOR,
    SEQUENTIAL,
    Competitor,
)
from benchmarks.environment import Environment, Sandbox
from benchmarks.figures import Spread, repeated, share_of_limit
from benchmarks.programs import ProgramFailed

ALL = 256
PATIENCE = 240.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A competitor in a scenario. Fewer regions than all where all would take minutes; the result
    is a rate.
    """

    who: Competitor
    regions: int = ALL


@dataclass(frozen=True, kw_only=True)
class Scenario:
    name: str
    entries: Sequence[Entry]
    latency_ms: float = 0
    limit: int | None = None

    def reduced(self, most: int) -> "Scenario":
        """The same for checking that the harness works."""
        return replace(
            self,
            entries=[replace(entry, regions=min(entry.regions, most)) for entry in self.entries],
        )


ZERO = Scenario(
    name="no latency, no limit",
    entries=[Entry(who=one) for one in (CEILING, BATCH, DLT_TUNED, SCRAPY, SEQUENTIAL)],
)
DISTANT = Scenario(
    name="60 ms, no limit",
    latency_ms=60,
    entries=[
        Entry(who=CEILING),
        Entry(who=BATCH),
        Entry(who=DLT_TUNED),
        Entry(who=DLT, regions=32),
        Entry(who=SCRAPY),
        Entry(who=SEQUENTIAL, regions=8),
        Entry(who=PLAIN_DAGSTER, regions=8),
    ],
)
# As many regions as keep the limit busy for a quarter to half a minute.
LIMIT_50 = Scenario(
    name="60 ms, limit 50/s",
    latency_ms=60,
    limit=50,
    entries=[
        Entry(who=BATCH, regions=64),
        Entry(who=SENSOR, regions=100),
        Entry(who=SCRAPY, regions=50),
        Entry(who=DLT, regions=50),
    ],
)
LIMIT_10 = Scenario(
    name="60 ms, limit 10/s",
    latency_ms=60,
    limit=10,
    entries=[Entry(who=BATCH, regions=12), Entry(who=SENSOR, regions=12)],
)
SCENARIOS = (ZERO, DISTANT, LIMIT_50, LIMIT_10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run. Rates count from the first answer: `calls_per_second` to the end of the program,
    when all is stored, `share_of_limit` to the last answer. CPU and memory: see Program. `failure`
    is the reason for missing figures.
    """

    searches: int
    failure: str = ""
    calls_per_second: float | None = None
    share_of_limit: float | None = None
    refused_share: float | None = None
    repeated: int = 0
    missing: int = 0
    seconds: float | None = None
    cpu_per_1000: float | None = None
    server_cpu_per_1000: float | None = None
    worker_mib: float | None = None
    total_mib: float | None = None
    places: int | None = None


MEASURED = (
    "calls_per_second",
    "share_of_limit",
    "refused_share",
    "seconds",
    "cpu_per_1000",
    "server_cpu_per_1000",
    "worker_mib",
    "total_mib",
)


@dataclass(kw_only=True)
class Comparison:
    """Runs by scenario and competitor, in the order they are made."""

    environment: Environment
    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)

    def play(self, scenario: Scenario, entry: Entry) -> Run:
        """Make one run and keep its result; a failing competitor is a result, too."""
        run = self._run(scenario, entry)
        self.runs.setdefault(scenario.name, {}).setdefault(entry.who.name, []).append(run)
        return run

    def _run(self, scenario: Scenario, entry: Entry) -> Run:
        try:
            with placed(self.environment, scenario, entry) as sandbox:
                return measured(self.environment, scenario, entry, sandbox)
        except (ProgramFailed, SQLAlchemyError, Error) as error:
            return Run(
                searches=entry.regions * len(self.environment.keywords), failure=str(error)[-900:]
            )

    def as_json(self) -> dict[str, Any]:
        return {
            scenario: {name: summary(runs) for name, runs in competitors.items()}
            for scenario, competitors in self.runs.items()
        }


def measured(environment: Environment, scenario: Scenario, entry: Entry, sandbox: Sandbox) -> Run:
    """Make one run in its sandbox. Raises ProgramFailed."""
    searches = entry.regions * len(environment.keywords)
    server_before, began = environment.server_cpu(), time.monotonic()
    program = entry.who.begin(sandbox)
    try:
        program.wait(now_and_then(entry.who, sandbox), seconds=PATIENCE)
    finally:
        program.kill()
    seen = environment.simulator.stats()["naver"]
    first, last = (seen[f"{which}_answered"]["monotonic"] for which in ("first", "last"))
    answers = seen["answers_per_search"]
    if first is None:
        raise ProgramFailed(f"made no call: {program.output[-800:]}")
    return Run(
        searches=searches,
        calls_per_second=seen["answered"] / (program.ended - first),
        share_of_limit=share_of_limit(seen["answered"], first, last, scenario.limit)
        if scenario.limit
        else None,
        refused_share=seen["refused_rate"] / seen["received"],
        repeated=repeated(answers),
        missing=searches - len(answers),
        seconds=program.ended - began,
        cpu_per_1000=program.cpu_seconds / searches * 1000,
        server_cpu_per_1000=(environment.server_cpu() - server_before) / searches * 1000,
        worker_mib=program.worker_mib,
        total_mib=program.total_mib,
        places=sandbox.read("SELECT count(DISTINCT naver_place_id) AS n FROM places")[0]["n"],
    )


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the spreads over all ended runs, the failures, and all runs."""
    spreads = {name: Spread.of(getattr(run, name) for run in runs) for name in MEASURED}
    return {
        "searches": runs[0].searches,
        "failures": [run.failure for run in runs if run.failure],
        "repeated": max(run.repeated for run in runs),
        "missing": max(run.missing for run in runs),
        "places": sorted({run.places for run in runs if run.places is not None}),
        **{name: spread.as_json() for name, spread in spreads.items() if spread is not None},
        "runs": [
            {key: value for key, value in asdict(run).items() if value is not None} for run in runs
        ],
    }


@contextlib.contextmanager
def placed(
    environment: Environment, scenario: Scenario, entry: Entry, *, template: str = ""
) -> Iterator[Sandbox]:
    """Open the sandbox that this entry needs."""
    who = entry.who
    settings = dict(who.settings)
    if pieces := settings.pop("pieces", None):
        settings["regions_per_run"] = -(-entry.regions // pieces)
    if scenario.limit:
        settings |= who.with_limit(scenario.limit)
    with environment.sandbox(
        count=entry.regions,
        latency_ms=scenario.latency_ms,
        limit=scenario.limit,
        settings=settings,
        template=template or who.template,
    ) as sandbox:
        yield sandbox


def now_and_then(who: Competitor, sandbox: Sandbox) -> Callable[[], bool] | None:
    """Asks rarely whether it is done: the question is work, too."""
    if who.done is None:
        return None
    done, asked = who.done, time.monotonic()

    def look() -> bool:
        nonlocal asked
        if time.monotonic() - asked < 0.1:
            return False
        asked = time.monotonic()
        return done(sandbox)

    return look
