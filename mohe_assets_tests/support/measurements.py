"""The results of benchmarks that the pages quote."""

import json
from dataclasses import dataclass
from typing import Any

from mohe_assets_tests.support.pages import ROOT


@dataclass(frozen=True)
class Result:
    """A file of benchmarks/results."""

    raw: dict[str, Any]

    def medians(self, scenario: str, figure: str) -> dict[str, float]:
        """Return a figure's median by competitor."""
        found = self.raw["scenarios"][scenario]
        return {name: runs[figure]["median"] for name, runs in found.items() if figure in runs}

    def rates(self, scenario: str) -> dict[str, float]:
        """Return calls a second by competitor."""
        return self.medians(scenario, "calls_per_second")

    def shares(self, scenario: str) -> dict[str, float]:
        """Return the used part of the limit by competitor, in percent."""
        return {name: 100 * one for name, one in self.medians(scenario, "share_of_limit").items()}


def result(name: str) -> Result:
    """Return the results of one section of `make bench`."""
    file = ROOT / "benchmarks" / "results" / f"{name}.json"
    return Result(json.loads(file.read_text(encoding="utf-8")))
