"""The same job by all competitors: rounds in which each has its turn, as long as there is time,
then table and picture.
"""

import argparse
import datetime as dt
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.comparison import LIMIT_50, SCENARIOS, ZERO, Comparison, Run, Scenario
from benchmarks.competitors import PACKAGES
from benchmarks.crash_recovery import KILLED, KILLED_ONCE, CrashRecovery, Killed
from benchmarks.database_work import COUNTED, SIZED, SIZES, DatabaseWork
from benchmarks.environment import Environment, shared_environment
from benchmarks.figures import number
from benchmarks.report import write_report
from benchmarks.simulated_stack import RESULTS

QUICK_REGIONS = 4
QUICK_SCENARIOS = (ZERO, LIMIT_50)


@dataclass(kw_only=True)
class Turn:
    """One thing to measure. `rounds` of None: in every round. `taken` seconds the last time, a
    guess before the first.
    """

    name: str
    play: Callable[[], object]
    rounds: int | None = None
    taken: float = 30.0


@dataclass(kw_only=True)
class Schedule:
    """Rounds of turns until the time is up; a turn that would not fit any more is left out, and
    counted.
    """

    turns: Sequence[Turn]
    rounds: int
    deadline: float
    left_out: dict[str, int] = field(default_factory=dict)

    def run(self, console: Console) -> None:
        total = sum(min(self.rounds, turn.rounds or self.rounds) for turn in self.turns)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=total)
            for turn in self._order():
                progress.update(task, description=turn.name)
                self._play(turn, progress.console)
                progress.advance(task)

    def _order(self) -> Iterator[Turn]:
        """Rotate the order each round, so that no competitor always follows the same one."""
        for number_of_round in range(self.rounds):
            start = number_of_round * len(self.turns) // self.rounds
            for turn in [*self.turns[start:], *self.turns[:start]]:
                if turn.rounds is None or number_of_round < turn.rounds:
                    yield turn

    def _play(self, turn: Turn, console: Console) -> None:
        if time.monotonic() + turn.taken > self.deadline:
            self.left_out[turn.name] = self.left_out.get(turn.name, 0) + 1
            console.print(f"[yellow]no time left for[/] {turn.name}")
            return
        began = time.monotonic()
        found = turn.play()
        turn.taken = time.monotonic() - began
        console.print(
            f"{turn.name:<64} {spoken(found)}  [dim]{turn.taken:.0f} s[/]", highlight=False
        )


def spoken(found: object) -> str:
    """One line of progress."""
    failure = found.get("failure", "") if isinstance(found, dict) else getattr(found, "failure", "")
    if failure:
        return f"[red]failed:[/] {str(failure).strip().splitlines()[-1][:120]}"
    if isinstance(found, Run):
        share = f", {found.share_of_limit:.1%} of the limit" if found.share_of_limit else ""
        incomplete = f", [red]{found.missing} searches missing[/]" if found.missing else ""
        return f"{number(found.calls_per_second)} calls/s{share}{incomplete}"
    if isinstance(found, Killed):
        return (
            f"{found.repeated} repeated, {found.lost} lost, "
            f"{number(found.seconds_to_next_new_call)} s to the next new call"
        )
    return str(found)


def turns_of(
    environment: Environment, *, quick: bool
) -> tuple[list[Turn], Callable[[], dict[str, Any]]]:
    """Return all turns, and the function that gives their results."""
    comparison, killing, work = (
        Comparison(environment=environment),
        CrashRecovery(environment=environment),
        DatabaseWork(environment=environment),
    )

    def reduced(scenario: Scenario) -> Scenario:
        return scenario.reduced(QUICK_REGIONS) if quick else scenario

    turns = [
        Turn(
            name=f"{scenario.name}: {entry.who.name}",
            play=partial(comparison.play, scenario, entry),
        )
        for scenario in map(reduced, QUICK_SCENARIOS if quick else SCENARIOS)
        for entry in scenario.entries
    ]
    for scenario, rounds in ((KILLED, None), *(() if quick else ((KILLED_ONCE, 1),))):
        made_small = reduced(scenario)
        turns += [
            Turn(
                name=f"{scenario.name}: {entry.who.name}",
                play=partial(killing.play, made_small, entry),
                rounds=rounds,
            )
            for entry in made_small.entries
        ]
    turns += [
        Turn(name=f"statements: {entry.who.name}", play=partial(work.count, entry), rounds=1)
        for entry in reduced(COUNTED).entries
    ]
    sized = reduced(SIZED).entries[0]
    turns += [
        Turn(name=f"{size}: {sized.who.name}", play=partial(work.size, size, sized))
        for size in SIZES
    ]
    return turns, lambda: {
        "scenarios": comparison.as_json(),
        "killed": killing.as_json(),
        "database": work.as_json(),
    }


def machine() -> dict[str, object]:
    model = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor() or "unknown",
    )
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_before": [round(one, 2) for one in os.getloadavg()],
    }


@contextmanager
def _stopwatch() -> Iterator[Callable[[], float]]:
    began = time.monotonic()
    yield lambda: time.monotonic() - began


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - no file of ours
            return file.readlines()
    except OSError:
        return []  # not Linux: the platform's own word is taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds",
        type=float,
        default=1_300,
        help="after which no further turn is begun; 0: no limit",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few regions, one round, results not kept: does the harness work?",
    )
    parser.add_argument(
        "--only", action="append", help="turns whose name contains this; may be given several times"
    )
    arguments = parser.parse_args()
    before = {"measured": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC", "machine": machine()}
    versions = {
        "Python": platform.python_version(),
        "PostgreSQL": "18",
        **{name: version(name) for name in PACKAGES},
    }
    console = Console(width=None if os.isatty(1) else 140)
    console.print(
        ", ".join(f"{name} {number_}" for name, number_ in versions.items()), highlight=False
    )
    with _stopwatch() as elapsed, shared_environment() as environment:
        turns, found = turns_of(environment, quick=arguments.quick)
        if arguments.only:
            turns = [turn for turn in turns if any(part in turn.name for part in arguments.only)]
        schedule = Schedule(
            turns=turns,
            rounds=1 if arguments.quick else arguments.rounds,
            deadline=time.monotonic() + arguments.seconds if arguments.seconds else float("inf"),
        )
        schedule.run(console)
        result = {
            **before,
            "versions": versions,
            "seconds": round(elapsed()),
            "left_out": schedule.left_out,
            **found(),
        }
    folder = RESULTS / "tmp" if arguments.quick or arguments.only else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.json").write_text(
        json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    print(write_report(result, folder))


if __name__ == "__main__":
    main()
