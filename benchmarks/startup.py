"""How long it takes to begin: importing the definitions, `mohe status`, a run of one region."""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.figures import Spread
from benchmarks.scale import seconds_of
from benchmarks.simulated_stack import UNLIMITED, simulated_stack, write
from mohe_assets.settings import DEFAULT_KEYWORDS
from mohe_assets_tests.support.processes import statuses
from mohe_assets_tests.support.regions import keep_regions

RUNS = 3


def run(command: Sequence[str], variables: Mapping[str, str]) -> None:
    subprocess.run(command, env=variables, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    runs = parser.parse_args().runs
    load = round(os.getloadavg()[0], 2)
    with simulated_stack(UNLIMITED.changed({"warm": True})) as stack:
        variables = dict(stack.variables)
        commands = {
            "import of mohe_assets.definitions (s)": [
                sys.executable,
                "-c",
                "import mohe_assets.definitions",
            ],
            "import of dagster alone (s)": [sys.executable, "-c", "import dagster"],
            "mohe status (s)": [str(Path(sys.executable).with_name("mohe")), "status"],
        }
        batch = [
            str(Path(sys.executable).with_name("dagster")),
            "job",
            "execute",
            "-m",
            "mohe_assets.definitions",
        ]
        batch += ["-j", "place_ingestion_batch"]
        keep_regions(stack.app.database, 1)
        found: dict[str, list[float]] = {}
        for _ in range(runs + 1):
            for label, command in commands.items():
                found.setdefault(label, []).append(seconds_of(partial(run, command, variables)))
            stack.app.checkpoints.new_round()
            label = f"a run of one region, {len(DEFAULT_KEYWORDS)} searches (s)"
            found.setdefault(label, []).append(seconds_of(lambda: run(batch, variables)))
            if statuses(stack.app.database) != {"COMPLETED": 1}:
                raise RuntimeError("the run of one region did not complete it")
    # The first turn fills the caches of the system and writes Dagster's tables; it is not a start
    # as the others are.
    spreads = {label: Spread.of(values[1:]) for label, values in found.items()}
    write(
        "startup",
        {
            "load average before": load,
            **{label: spread.as_json() for label, spread in spreads.items() if spread is not None},
        },
    )


if __name__ == "__main__":
    main()
