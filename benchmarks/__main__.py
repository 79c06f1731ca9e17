"""All measurements within half an hour. Failed sections are listed at the end and set the exit
status. The short ones come first, so that the side by side gets the remaining time.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

# Of the thirty minutes, three are for installing.
SECONDS = 27 * 60
# Time for the last turn to end and for writing the results.
MARGIN_SECONDS = 45
ENDING_SECONDS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A measurement. `seconds` is its time-out, a few times its duration on two idle cores."""

    module: str
    seconds: float
    has_long_form: bool = False


SECTIONS = (
    Section(module="startup", seconds=90),
    Section(module="scale", seconds=240),
    Section(module="recovery", seconds=120, has_long_form=True),
    Section(module="depth", seconds=100, has_long_form=True),
    Section(module="search_plan", seconds=150, has_long_form=True),
)


def run(module: str, *arguments: str, seconds: float | None) -> str:
    """How it ended, in a few words."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments], start_new_session=True
    ) as process:
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            end(process)
            return f"failed: not done within {seconds:.0f} s"
        except BaseException:
            end(process)
            raise
    taken = time.monotonic() - began
    return f"{taken:.0f} s" if status == 0 else f"failed with status {status} after {taken:.0f} s"


def end(process: subprocess.Popen[bytes]) -> None:
    """Lets it take its database server and its programs away; see `stage`."""
    process.terminate()
    try:
        process.wait(timeout=ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def side_by_side(deadline: float, *, long: bool, quick: bool) -> Sequence[str]:
    if quick:
        return ["--quick"]
    seconds = 0 if long else max(60, deadline - time.monotonic() - MARGIN_SECONDS)
    return ["--seconds", f"{seconds:.0f}", *(["--rounds", "5"] if long else [])]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the long forms, and no limit on time")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the side by side alone, with a few regions: does the harness work?",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything")
    arguments = parser.parse_args()
    console, began = Console(), time.monotonic()
    console.print(f"load average before: {' '.join(f'{one:.1f}' for one in os.getloadavg())}")
    ended: dict[str, str] = {}
    for section in () if arguments.quick else SECTIONS:
        console.rule(section.module)
        long_form = ["--long"] if arguments.long and section.has_long_form else []
        ended[section.module] = run(
            section.module, *long_form, seconds=None if arguments.long else section.seconds
        )
    console.rule("side by side")
    options = side_by_side(began + arguments.seconds, long=arguments.long, quick=arguments.quick)
    ended["side by side"] = run("side_by_side", *options, seconds=None)
    table = Table("section", "")
    for name, how in ended.items():
        table.add_row(name, f"[red]{how}[/]" if how.startswith("failed") else how)
    table.add_row("in all", f"{time.monotonic() - began:.0f} s")
    console.rule()
    console.print(table)
    if failed := [name for name, how in ended.items() if how.startswith("failed")]:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
