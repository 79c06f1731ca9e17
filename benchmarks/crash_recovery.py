"""SIGKILL at half of the searches, then the same command again: repeated and lost searches, and the
time to resume.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from psycopg2 import Error
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.comparison import PATIENCE, Entry, Scenario, now_and_then, placed
from benchmarks.competitors import (
    BATCH,
    CEILING,
    DLT_PIECES,
    DLT_TUNED,
    PLAIN_DAGSTER,
    SCRAPY,
    SENSOR,
    SEQUENTIAL,
    Competitor,
)
from benchmarks.environment import Environment, Sandbox
from benchmarks.figures import Spread, repeated
from benchmarks.programs import Program, ProgramFailed

REGIONS = 48
KILLED = Scenario(
    name="killed at half",
    latency_ms=10,
    entries=[
        Entry(who=one, regions=REGIONS)
        for one in (CEILING, BATCH, DLT_TUNED, DLT_PIECES, SCRAPY, SEQUENTIAL)
    ],
)
# These take most of a minute each; two rounds of them are what half an hour has no room for.
KILLED_ONCE = Scenario(
    name="killed at half",
    latency_ms=10,
    entries=[Entry(who=SENSOR, regions=REGIONS), Entry(who=PLAIN_DAGSTER, regions=8)],
)
MEASURED = ("repeated", "lost", "seconds_to_next_call", "seconds_to_next_new_call")


@dataclass(frozen=True, kw_only=True, slots=True)
class Killed:
    """`repeated`: answers beyond the first of a search. `lost`: searches without an answer although
    the second run ended. Seconds count from the start of the second run.
    """

    searches: int
    failure: str = ""
    answered_before: int = 0
    repeated: int | None = None
    lost: int | None = None
    seconds_to_next_call: float | None = None
    seconds_to_next_new_call: float | None = None
    places: int | None = None


@dataclass(kw_only=True)
class CrashRecovery:
    environment: Environment
    runs: dict[str, list[Killed]] = field(default_factory=dict)

    def play(self, scenario: Scenario, entry: Entry) -> Killed:
        """Make one kill and keep its result."""
        searches = entry.regions * len(self.environment.keywords)
        try:
            with placed(self.environment, scenario, entry) as sandbox:
                run = self._killed(entry.who, sandbox, searches)
        except (ProgramFailed, SQLAlchemyError, Error) as error:
            run = Killed(searches=searches, failure=str(error)[-900:])
        self.runs.setdefault(entry.who.name, []).append(run)
        return run

    def as_json(self) -> dict[str, Any]:
        return {name: summary(runs) for name, runs in self.runs.items()}

    def _killed(self, who: Competitor, sandbox: Sandbox, searches: int) -> Killed:
        self._until_half(who.begin(sandbox), searches)
        before = self.environment.simulator.stats()["naver"]
        began = time.monotonic()
        program = who.begin(sandbox, again=True)
        try:
            call, new = self._first_calls(
                program, before["received"], len(before["answers_per_search"])
            )
            program.wait(now_and_then(who, sandbox), seconds=PATIENCE)
        finally:
            program.kill()
        answers = self.environment.simulator.stats()["naver"]["answers_per_search"]
        return Killed(
            searches=searches,
            answered_before=before["answered"],
            repeated=repeated(answers),
            lost=searches - len(answers),
            seconds_to_next_call=call - began if call else None,
            seconds_to_next_new_call=new - began if new else None,
            places=sandbox.read("SELECT count(DISTINCT naver_place_id) AS n FROM places")[0]["n"],
        )

    def _until_half(self, program: Program, searches: int) -> None:
        def half() -> bool:
            return bool(
                self.environment.simulator.stats(brief=True)["naver"]["received"] >= searches / 2
            )

        try:
            program.wait(half, seconds=PATIENCE)
        finally:
            program.kill()

    def _first_calls(
        self, program: Program, received: int, distinct: int
    ) -> tuple[float | None, float | None]:
        """Moments of the first call and of the first that asks something new; None if it ended
        without one.
        """
        call = None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            seen = self.environment.simulator.stats()["naver"]
            now = time.monotonic()
            if call is None and seen["received"] > received:
                call = now
            if len(seen["answers_per_search"]) > distinct:
                return call or now, now
            if program.finished():
                break
            time.sleep(0.03)
        return call, None


def summary(runs: Sequence[Killed]) -> dict[str, Any]:
    spreads = {name: Spread.of(getattr(run, name) for run in runs) for name in MEASURED}
    return {
        "searches": runs[0].searches,
        "failures": [run.failure for run in runs if run.failure],
        "places": sorted({run.places for run in runs if run.places is not None}),
        **{name: spread.as_json() for name, spread in spreads.items() if spread is not None},
        "runs": [
            {key: value for key, value in asdict(run).items() if value is not None} for run in runs
        ],
    }
