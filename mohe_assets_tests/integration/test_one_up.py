"""One `mohe up` serves a home; the next one is refused before it changes anything."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mohe_assets import settings as settings_module
from mohe_assets.cli.up import _alone
from mohe_assets_tests.support.commands import Mohe


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_second_mohe_up_on_a_home_is_refused_with_the_page_and_pid_of_the_first(
    home: Path, mohe: Mohe
) -> None:
    settings = settings_module.load({"MOHE_HOME": str(home)})
    with _alone(settings, "http://127.0.0.1:3456"):
        before = sorted(home.iterdir())
        done = mohe("up", MOHE_HOME=str(home))
        assert (done.status, done.out) == (1, "")
        assert done.err == (
            f"mohe: `mohe up` already runs on {home}, with its page at http://127.0.0.1:3456 "
            f"and pid {os.getpid()}; "
            "stop it first, or set another MOHE_HOME.\n"
        )
        assert sorted(home.iterdir()) == before
    with _alone(settings, "http://127.0.0.1:3457"):
        assert json.loads((home / "up.json").read_bytes())["page"] == "http://127.0.0.1:3457"
    assert not (home / "up.json").exists()


def test_a_killed_mohe_up_is_no_obstacle(home: Path) -> None:
    code = (
        "import os, sys\n"
        "from mohe_assets import settings\n"
        "from mohe_assets.cli.up import _alone\n"
        "with _alone(settings.load({'MOHE_HOME': sys.argv[1]}), 'http://127.0.0.1:1'):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", code, str(home)], check=False).returncode
        == -signal.SIGKILL
    )
    assert (home / "up.json").exists()
    with _alone(settings_module.load({"MOHE_HOME": str(home)}), "http://127.0.0.1:2"):
        assert json.loads((home / "up.json").read_bytes())["pid"] == os.getpid()
