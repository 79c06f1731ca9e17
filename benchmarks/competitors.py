"""The competitors: how each starts, ends and resumes after a kill, and its guarantee."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.environment import OURS, REPOSITORY, Sandbox
from benchmarks.programs import Program, ProgramFailed

PEERS = REPOSITORY / "benchmarks" / "peers"
PACKAGES = (
    "mohe-assets",
    "dagster",
    "dlt",
    "Scrapy",
    "Twisted",
    "requests",
    "aiohttp",
    "asyncpg",
    "psycopg2-binary",
    "SQLAlchemy",
)
# A measurement must not send telemetry.
QUIET = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DAGSTER_DISABLE_TELEMETRY": "1"}
PLAIN = ("-m", "benchmarks.peers.plain_dagster")

_COMPLETED = "SELECT count(*) AS n FROM batch_checkpoint WHERE status = 'COMPLETED'"
_SUCCEEDED = (
    "SELECT count(DISTINCT partition) AS n FROM runs WHERE status = 'SUCCESS' AND partition IS "
    "NOT NULL"
)


@dataclass(frozen=True, kw_only=True)
class Competitor:
    """A program that does the job. `begin` starts it in a sandbox, and again after a kill; `done`
    is None if it ends by itself. `variables` are its environment, `settings` go into its job file;
    `with_limit` returns both for a limit in calls a second.
    """

    name: str
    guarantee: str
    command: Callable[[Sandbox], Sequence[str]]
    ours: bool = False
    done: Callable[[Sandbox], bool] | None = None
    before: Callable[[Sandbox], None] = lambda _sandbox: None
    before_again: Callable[[Sandbox], None] = lambda _sandbox: None
    worker: Callable[[psutil.Process], bool] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    with_limit: Callable[[int], Mapping[str, Any]] = lambda _limit: {}

    @property
    def template(self) -> str:
        return OURS if self.ours else ""

    def begin(self, sandbox: Sandbox, *, again: bool = False) -> Program:
        (self.before_again if again else self.before)(sandbox)
        return Program(
            command=self.command(sandbox),
            environment={**sandbox.environment, **QUIET, **self.variables},
            log=sandbox.folder / "output.log",
            worker=self.worker,
        )


def _module(name: str) -> Callable[[Sandbox], Sequence[str]]:
    return lambda _sandbox: [sys.executable, "-m", f"benchmarks.peers.{name}"]


def _program(name: str, *arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name(name)), *arguments]


def _run(sandbox: Sandbox, *command: str) -> None:
    """Something a person does before or between; its time counts, as theirs would."""
    done = subprocess.run(
        command,
        env=sandbox.environment | QUIET,
        cwd=sandbox.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ProgramFailed(
            f"{' '.join(command[:4])} ended with status {done.returncode}: "
            f"{(done.stdout + done.stderr)[-800:]}"
        )


def _all_completed(sandbox: Sandbox) -> bool:
    return bool(sandbox.read(_COMPLETED)[0]["n"] == len(sandbox.regions))


def _all_succeeded(sandbox: Sandbox) -> bool:
    return bool(sandbox.read(_SUCCEEDED, dagster=True)[0]["n"] == len(sandbox.regions))


def _below(text: str) -> Callable[[psutil.Process], bool]:
    """Return whether this process is a run of the code server; runs have small children that copy
    their output.
    """

    def is_run(process: psutil.Process) -> bool:
        parent = process.parent()
        return (
            parent is not None
            and text in " ".join(parent.cmdline())
            and text not in " ".join(process.cmdline())
        )

    return is_run


def _up(sandbox: Sandbox) -> list[str]:
    # The port is the folder's own: two plots never live at once, but a port may linger.
    return _program(
        "mohe", "up", "--port", str(20_000 + int(sandbox.folder.name[-4:], 16) % 20_000)
    )


def _prepare_plain(sandbox: Sandbox) -> None:
    from benchmarks.peers.job import TABLE  # noqa: PLC0415 - beside its only use

    sandbox.database.transaction(lambda connection: connection.exec_driver_sql(TABLE))
    _backfill(sandbox, [code for code, _ in sandbox.regions])


def _drop_places(sandbox: Sandbox) -> None:
    sandbox.database.transaction(lambda connection: connection.exec_driver_sql("DROP TABLE places"))


def _backfill(sandbox: Sandbox, codes: Sequence[str]) -> None:
    _run(
        sandbox,
        *_program(
            "dagster",
            "job",
            "backfill",
            *PLAIN,
            "-j",
            "collect",
            "--partitions",
            ",".join(codes),
            "--noprompt",
        ),
    )


def _backfill_what_is_missing(sandbox: Sandbox) -> None:
    """As a person does in the UI: the runs that died are marked cancelled, and the partitions they
    had are launched again.
    """
    _run(sandbox, sys.executable, "-m", "benchmarks.peers.plain_dagster")
    sql = (
        "SELECT partition FROM runs WHERE status IN ('SUCCESS', 'QUEUED') AND partition IS NOT NULL"
    )
    known = {row["partition"] for row in sandbox.read(sql, dagster=True)}
    if missing := [code for code, _ in sandbox.regions if code not in known]:
        _backfill(sandbox, missing)


BATCH = Competitor(
    name="mohe-assets, batch job",
    guarantee="a search is stored all or nothing; a kill repeats the searches in flight",
    command=lambda _sandbox: _program(
        "dagster", "job", "execute", "-m", "mohe_assets.definitions", "-j", "place_ingestion_batch"
    ),
    ours=True,
)
SENSOR = Competitor(
    name="mohe-assets, sensor-driven",
    guarantee=BATCH.guarantee + ", started by itself",
    command=_up,
    ours=True,
    done=_all_completed,
    worker=_below("mohe_assets.defs.runtime.code_server"),
)
DLT = Competitor(
    name="dlt, defaults",
    guarantee="a load is all or nothing; a kill repeats the whole run",
    command=_module("dlt_pipeline"),
)
_THREADS = {"EXTRACT__WORKERS": "48", "EXTRACT__MAX_PARALLEL_ITEMS": "96"}
DLT_TUNED = Competitor(
    name="dlt, 48 workers", guarantee=DLT.guarantee, command=DLT.command, variables=_THREADS
)
DLT_PIECES = Competitor(
    name="dlt, 48 workers, in 8 runs",
    guarantee="a load is all or nothing; a kill repeats one of the runs",
    command=DLT.command,
    variables=_THREADS,
    settings={"pieces": 8},
)
SCRAPY = Competitor(
    name="Scrapy with JOBDIR",
    guarantee="an answer is stored at once; resuming needs a clean stop",
    command=lambda sandbox: [
        sys.executable,
        "-m",
        "scrapy",
        "runspider",
        str(PEERS / "scrapy_spider.py"),
        "-s",
        f"JOBDIR={sandbox.folder / 'jobdir'}",
    ],
    with_limit=lambda limit: {"DOWNLOAD_DELAY": 1 / limit, "RANDOMIZE_DOWNLOAD_DELAY": False},
)
SEQUENTIAL = Competitor(
    name="requests in a loop",
    guarantee="one transaction a search; a kill repeats one search",
    command=_module("sequential"),
)
PLAIN_DAGSTER = Competitor(
    name="Dagster, a run per region",
    guarantee="one transaction a region; a kill repeats the regions under way, after a person has "
    "launched them",
    command=lambda _sandbox: _program("dagster-daemon", "run", *PLAIN),
    done=_all_succeeded,
    before=_prepare_plain,
    before_again=_backfill_what_is_missing,
    worker=_below("api grpc"),
)
CEILING = Competitor(
    name="ceiling: calls and COPY only",
    guarantee="none; a kill repeats everything",
    command=_module("ceiling"),
    before_again=_drop_places,
)
