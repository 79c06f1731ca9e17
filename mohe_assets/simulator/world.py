"""State of a running simulator: settings, clock, places, counters."""

from collections.abc import Mapping
from typing import Any

from mohe_assets.simulator.clock import SimulatorClock
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.faults import FaultBook
from mohe_assets.simulator.gazetteer import Gazetteer
from mohe_assets.simulator.limits import Quota, RateWindow
from mohe_assets.simulator.matching import Searcher
from mohe_assets.simulator.naver_responses import Answers
from mohe_assets.simulator.region_edits import edited
from mohe_assets.simulator.region_list import base_rows
from mohe_assets.simulator.stats import ApiStats
from mohe_assets.simulator.universe import Universe

APIS = ("naver", "regions")


class World:
    def __init__(self, config: SimulatorConfig) -> None:
        self.clock = SimulatorClock()
        self.faults = FaultBook()
        self.universe = Universe(config.seed)
        self.rows = base_rows()
        self.gazetteer = Gazetteer(self.rows)
        self._edits: tuple[Mapping[str, Any], ...] = ()
        self._apply(config)
        self._start_counting()
        if config.warm:
            self.universe.make_all()

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change settings while running. Raises ValueError, without any change, if one is bad."""
        self._apply(self.config.changed(changes) if changes else self.config)

    def reset(self) -> None:
        """Clear counters, limits and faults. Settings and the clock stay."""
        self.faults.clear()
        self._start_counting()

    def _apply(self, config: SimulatorConfig) -> None:
        if self._edits != config.region_edits:
            self.rows = edited(base_rows(), config.region_edits)
            self.gazetteer = Gazetteer(self.rows)
            self._edits = config.region_edits
        if config.seed != self.universe.seed:
            self.universe = Universe(config.seed)
        self.config = config
        self.answers = Answers(
            Searcher(self.universe, self.gazetteer, round_number=config.round), config
        )

    def _start_counting(self) -> None:
        self.stats = {api: ApiStats() for api in APIS}
        self.rate = {api: RateWindow() for api in APIS}
        self.quota = Quota()
