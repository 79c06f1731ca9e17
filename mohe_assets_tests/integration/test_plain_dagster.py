"""Dagster's commands in a checkout without exports find and start the embedded server."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mohe_assets.cli.processes import LOCATION
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database, rows

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
EXPORTED = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """What Dagster looks at in a checkout, and no home yet."""
    folder = Path(tempfile.mkdtemp(prefix="mohe-checkout-"))
    folder.chmod(0o755)
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "mohe_assets").symlink_to(ROOT / "mohe_assets")
    yield folder
    server = EmbeddedServer(home=folder / ".mohe")
    server.stop()
    shutil.rmtree(server.data, ignore_errors=True)
    shutil.rmtree(folder)


@pytest.fixture
def dotenv(checkout: Path, simulator: Simulator) -> Iterator[None]:
    """Keys and addresses of the simulator in `.env`, for a small collection."""
    keys = SimulatorConfig()
    (checkout / ".env").write_text(
        f"MOHE_GOVERNMENT_API_URL={simulator.url}\nMOHE_NAVER_API_URL={simulator.url}\n"
        f"GOVT_API_KEY='{keys.government_key}'\nNAVER_CLIENT_ID={keys.client_id}\n"
        f"NAVER_CLIENT_SECRET={keys.client_secret}\nMOHE_CALLS_PER_SECOND=5000\n"
        "MOHE_SEARCH_KEYWORDS=카페\n",
        encoding="utf-8",
    )
    yield
    (checkout / ".env").unlink()


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = command
    return subprocess.run(
        [str(BIN / program), *arguments],
        cwd=folder,
        env=EXPORTED,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_the_code_location_has_one_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (served,) = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    values = yaml.safe_load((ROOT / "deploy/kubernetes/values.yaml").read_text(encoding="utf-8"))
    (server,) = values["dagsterWebserver"]["workspace"]["servers"]
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert (server["host"], server["port"]) == (deployment["name"], deployment["port"])
    assert {
        project["dagster"]["code_location_name"],
        project["dg"]["project"]["code_location_name"],
        served["python_module"]["location_name"],
        server["name"],
    } == {LOCATION}


@pytest.mark.usefixtures("dotenv")
def test_dg_checks_lists_and_launches(checkout: Path) -> None:
    checked = run(checkout, "dg", "check", "defs")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = run(checkout, "dg", "list", "defs", "--json")
    assert listed.returncode == 0, listed.stderr
    found = json.loads(listed.stdout[listed.stdout.index("{") :])
    assert {asset["asset_key"] for asset in found["assets"]} >= {"places", "sigungu_regions"}
    launched = run(checkout, "dg", "launch", "--job", "place_ingestion_batch")
    assert launched.returncode == 0, launched.stdout[-2000:] + launched.stderr[-2000:]
    server = EmbeddedServer(home=checkout / ".mohe")
    counted = "SELECT count(*) AS n FROM batch_checkpoint WHERE status = 'COMPLETED'"
    assert read(server.url(), counted) == [{"n": 256}]
    # Dagster's own records are in the same server: they are there for the next command.
    runs = "SELECT status FROM runs WHERE pipeline_name = 'place_ingestion_batch'"
    assert read(server.url("dagster"), runs) == [{"status": "SUCCESS"}]


@pytest.mark.parametrize("command", [("dagster", "dev"), ("dg", "dev")], ids=" ".join)
def test_without_keys_dev_prints_a_sentence_for_each_tick_and_no_traceback(
    checkout: Path, command: tuple[str, ...]
) -> None:
    log, port = checkout / "dev.log", free_port()
    with log.open("wb") as output:
        dev = subprocess.Popen(
            [str(BIN / command[0]), *command[1:], "--port", str(port)],
            cwd=checkout,
            env=EXPORTED,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ticks = wait_for(log, r"Sensor \w+ skipped: NAVER_CLIENT_ID and .* are not set; .*", 3)
        finally:
            dev.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                dev.wait(timeout=30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(dev.pid, signal.SIGKILL)
            dev.wait()
    told = log.read_text(encoding="utf-8")
    assert ticks, told
    assert "Traceback" not in told
    names = "SELECT DISTINCT instigator_body::json ->> 'origin' AS origin FROM instigators"
    origins = read(EmbeddedServer(home=checkout / ".mohe").url("dagster"), names)
    assert origins
    assert all(f'"location_name": "{LOCATION}"' in str(one["origin"]) for one in origins)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(log: Path, pattern: str, count: int) -> bool:
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        if len(re.findall(pattern, log.read_text(encoding="utf-8"))) >= count:
            return True
        time.sleep(0.5)
    return False


def read(url: str, sql: str) -> list[dict[str, object]]:
    database = Database.connect(url)
    try:
        return database.transaction(lambda connection: rows(connection, sql))
    finally:
        database.close()
