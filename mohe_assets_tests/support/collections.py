"""Collections in this process, through `App.collection`."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mohe_assets.app import App
from mohe_assets.collection.region_worker import Outcome, RegionOutcome
from mohe_assets.collection.run import CollectionRun
from mohe_assets.collection.scheduler import ClaimFilter

# Type of the fixture `open_app`.
OpenApp = Callable[..., App]

# Gangnam and five other regions of five kinds.
CODES = frozenset({"11110", "11140", "11680", "36110", "41111", "50110"})


@contextmanager
def started(
    app: App, codes: frozenset[str] | None, run_id: str = "run", **how: Any
) -> Iterator[CollectionRun]:
    with app.collection(run_id, ClaimFilter(codes=codes, **how), total=len(codes or ())) as run:
        yield run


def collect(
    app: App, codes: frozenset[str] | None = CODES, run_id: str = "run", **how: Any
) -> tuple[CollectionRun, list[RegionOutcome]]:
    with started(app, codes, run_id, **how) as run:
        return run, list(run.outcomes())


def kinds(outcomes: list[RegionOutcome]) -> Counter[Outcome]:
    return Counter(one.outcome for one in outcomes)
