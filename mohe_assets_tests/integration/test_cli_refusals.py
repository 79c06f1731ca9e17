"""Bad settings through the real commands: one sentence, a failing exit status, and nothing was
begun.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.postgres import schema
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.stores import Store

BIN = Path(sys.executable).parent
STATUS = ("mohe", "status")
URL = ("mohe", "db", "url")
UP = ("mohe", "up", "--port", "1")
CODE_SERVER = ("mohe", "code-server", "--refresh")
JOB = ("dagster", "job", "execute", "-m", "mohe_assets.definitions", "-j", "place_ingestion_batch")
NOWHERE = "postgresql://someone:recognisable-password@127.0.0.1:1/mohe"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(process_environment: Callable[..., Environment], tmp_path: Path) -> Run:
    """Runs a command with the test's environment, changed as asked; None leaves a variable out."""

    def execute(
        command: tuple[str, ...], changes: dict[str, str | None]
    ) -> subprocess.CompletedProcess[str]:
        variables = {
            name: value
            for name, value in {**process_environment(), **changes}.items()
            if value is not None
        }
        program, *arguments = command
        return subprocess.run(
            [str(BIN / program), *arguments],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return execute


def refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    """It failed with the sentence and shows neither keys nor a traceback of ours."""
    everything = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(sentence, everything), everything[-3000:]
    for secret in ("recognisable-password", "demo-client-secret", "demo-govt-key"):
        assert secret not in everything


def untouched(store: Store, simulator: Simulator) -> None:
    stats: dict[str, Any] = simulator.stats(brief=True)
    assert (stats["naver"]["received"], stats["regions"]["received"]) == (0, 0)
    assert store.read("SELECT DISTINCT status, attempt FROM batch_checkpoint") == [
        {"status": "PENDING", "attempt": 0}
    ]
    assert (
        store.read("SELECT 1 AS run FROM batch_execution_metadata WHERE status <> 'FAILED'") == []
    )


@pytest.mark.parametrize(
    ("command", "changes", "sentence"),
    [
        (
            STATUS,
            {"MOHE_DAILY_QUOTA": "-5"},
            r"^mohe: MOHE_DAILY_QUOTA is -5; it has to be greater than 0\.\n$",
        ),
        (
            STATUS,
            {"NAVER_CLIENT_SECRET": None},
            r"^mohe: NAVER_CLIENT_ID is set but NAVER_CLIENT_SECRET is not; [^\n]+\.\n$",
        ),
        (
            STATUS,
            {"MOHE_DATABASE_URL": NOWHERE},
            r"^mohe: The database postgresql://someone:\*\*\*@127.0.0.1:1/mohe [^\n]+\.\n$",
        ),
        (
            STATUS,
            {"CHECKPOINT_REGION_TYPE": "sido"},
            r"^mohe: CHECKPOINT_REGION_TYPE is 'sido'; allowed [^\n]+\.\n$",
        ),
        (
            URL,
            {"MOHE_DATABASE_URL": "mysql://x:recognisable-password@y/z"},
            r"^mohe: MOHE_DATABASE_URL has to be [^\n]+\.\n$",
        ),
        (
            URL,
            {"MOHE_DATABASE_URL": NOWHERE, "MOHE_DAGSTER_DATABASE_URL": NOWHERE},
            r"^mohe: The database [^\n]+\.\n$",
        ),
        (UP, {"GOVT_API_KEY": ""}, r"^mohe: GOVT_API_KEY is not set; [^\n]+\.\n$"),
        (UP, {"MOHE_SEARCH_KEYWORDS": ""}, r"^mohe: MOHE_SEARCH_KEYWORDS is ''; [^\n]+\.\n$"),
        (CODE_SERVER, {"GOVT_API_KEY": ""}, r"^mohe: GOVT_API_KEY is not set; [^\n]+\.\n$"),
        (
            ("mohe", "daemon", "--code-server", "batch"),
            {},
            r"^mohe: --code-server is 'batch'; it has to be host:port or [^\n]+\.\n$",
        ),
        (
            ("mohe", "webserver", "--code-server", "a:99999"),
            {},
            r"^mohe: --code-server is 'a:99999'; [^\n]+\.\n$",
        ),
    ],
)
def test_mohe_refuses_a_bad_setting_with_one_sentence(
    run: Run,
    store: Store,
    simulator: Simulator,
    command: tuple[str, ...],
    changes: dict[str, str | None],
    sentence: str,
) -> None:
    refused(run(command, changes), sentence)
    untouched(store, simulator)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"GOVT_API_KEY": None}, r"GOVT_API_KEY is not set; [^\n]+\."),
        (
            {"NAVER_CLIENT_ID": None},
            r"NAVER_CLIENT_SECRET is set but NAVER_CLIENT_ID is not; [^\n]+\.",
        ),
    ],
)
def test_the_batch_job_refuses_a_bad_setting_before_it_begins(
    run: Run, store: Store, simulator: Simulator, changes: dict[str, str | None], sentence: str
) -> None:
    refused(run(JOB, changes), sentence)
    untouched(store, simulator)


def test_a_run_gives_up_a_database_that_stays_away_with_one_sentence() -> None:
    settings = settings_module.load({"MOHE_DATABASE_URL": NOWHERE})
    database = Database.connect(NOWHERE, reconnect_seconds=0.5)
    with pytest.raises(DatabaseUnavailable) as refused, App.open(settings, database, wait=True):
        pass
    assert re.fullmatch(
        r"The database postgresql://someone:\*\*\*@127\.0\.0\.1:1/mohe [^\n]+\.", str(refused.value)
    )


@pytest.mark.parametrize(
    "command", [("mohe", "code-server"), ("mohe", "daemon"), ("mohe", "webserver")]
)
def test_processes_that_run_many_times_over_migrate_nothing(
    run: Run, empty_database_url: str, command: tuple[str, ...]
) -> None:
    urls = {
        "MOHE_DATABASE_URL": empty_database_url,
        "MOHE_DAGSTER_DATABASE_URL": empty_database_url,
    }
    refused(
        run(command, urls),
        r"^mohe: The database postgresql://[^\n]+ is empty, and revision \w+ is needed: run `mohe "
        r"db migrate`\.\n$",
    )
    database = Database.connect(empty_database_url)
    assert schema.current_revision(database) is None
    database.close()
