"""The stack of the measurements of recovery: a database server, a simulator, and workers."""

import datetime as dt
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli.env import environment
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.postgres.databases import ensure_ready
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.settings import process_environment
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator, running
from mohe_assets_tests.support.processes import Collected, Worker

RESULTS = Path(__file__).parent / "results"
OURS = ("MOHE_", "GOVT_", "NAVER_", "NCP_", "CHECKPOINT_", "BATCH_", "DAGSTER_")
UNLIMITED = SimulatorConfig(calls_per_second=None, daily_quota=None, region_calls_per_second=None)


@dataclass(kw_only=True)
class SimulatedStack:
    """A simulator with its limits, an empty database that knows the regions, and the workers
    started on them.
    """

    simulator: Simulator
    app: App
    variables: Mapping[str, str]
    home: Path
    workers: list[Worker] = field(default_factory=list)

    def start_worker(self) -> Worker:
        worker = Worker(self.variables, self.home / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        return worker


@contextmanager
def simulated_stack(config: SimulatorConfig, **changes: str) -> Iterator[SimulatedStack]:
    """Everything is made for the time of one measurement and taken away afterwards, workers
    included, after SIGTERM too.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    home = Path(tempfile.mkdtemp(prefix="mohe-bench-"))
    home.chmod(0o755)
    try:
        with running(config) as simulator:
            variables = {
                name: value
                for name, value in process_environment().items()
                if not name.startswith(OURS)
            }
            variables |= {
                "MOHE_HOME": str(home),
                "MOHE_GOVERNMENT_API_URL": simulator.url,
                "MOHE_NAVER_API_URL": simulator.url,
                "GOVT_API_KEY": config.government_key,
                "NAVER_CLIENT_ID": config.client_id,
                "NAVER_CLIENT_SECRET": config.client_secret,
                "MOHE_CALLS_PER_SECOND": str(config.calls_per_second or 5_000),
                "MOHE_DAILY_QUOTA": "10000000",
                "MOHE_REFINE": "false",  # the measurement ends with the base plan
                **changes,
            }
            settings = settings_module.load(variables)
            variables |= environment(settings, ensure_ready(settings))
            with App.open(settings) as app:
                app.refresh_regions(accept_any_change=True)  # some benchmarks drop provinces
                stack = SimulatedStack(simulator=simulator, app=app, variables=variables, home=home)
                try:
                    yield stack
                finally:
                    for worker in stack.workers:
                        worker.end()
    finally:
        server = EmbeddedServer(home=home)
        server.stop()
        shutil.rmtree(server.data, ignore_errors=True)
        shutil.rmtree(home)


def uninterrupted(**changes: str) -> Collected:
    """Return the result of a collection without limits and interruptions."""
    with simulated_stack(UNLIMITED, **changes) as stack:
        with stack.app.collection("reference", ClaimFilter()) as run:
            for _ in run.outcomes():
                pass
        return Collected.of(stack.app.database)


def write(name: str, result: Mapping[str, object]) -> None:
    """Keeps a result for the README and prints it as a table."""
    RESULTS.mkdir(exist_ok=True)
    result = {
        "measured": (
            f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}"
        ),
        **result,
    }
    (RESULTS / f"{name}.json").write_text(
        json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    width = max(map(len, result))
    for label, value in result.items():
        print(f"{label:<{width}}  {value}")
