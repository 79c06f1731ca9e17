"""The health checks of the containers: what they find, and that they load little."""

import subprocess
import sys

import pytest

from mohe_assets.ops import health_check

LOADED = """
import sys
from mohe_assets.ops import health_check
health_check.main({arguments})
heavy = {{"dagster", "sqlalchemy", "pandas", "typer"}}
print(sorted({{name.partition(".")[0] for name in sys.modules}} & heavy))
"""
NOWHERE = "postgresql://nobody@127.0.0.1:1/dagster"


def test_a_code_server_that_does_not_listen_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert health_check.main(["code-server", "127.0.0.1:1"]) == 1
    assert "the code server at 127.0.0.1:1 does not answer" in capsys.readouterr().err


def test_a_database_that_does_not_answer_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOHE_DAGSTER_DATABASE_URL", NOWHERE)
    assert health_check.main(["daemon"]) == 1
    assert "Dagster's database cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["code-server", "127.0.0.1:1"], ["daemon", NOWHERE]])
def test_nothing_heavy_is_loaded(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
