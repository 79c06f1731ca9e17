"""A few regions in a database, and the command `mohe` in this process."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mohe_assets import cli
from mohe_assets.store.database import Database
from mohe_assets_tests.conftest import Environment
from mohe_assets_tests.support.stores import Store


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Mohe = Callable[..., Ended]


@pytest.fixture
def store(database: Database) -> Store:
    """Six regions, PENDING."""
    return Store.of(database)


@pytest.fixture
def mohe(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    process_environment: Callable[..., Environment],
) -> Mohe:
    """Runs one command with the test's environment, changed as asked; `without` names variables to
    leave out.
    """

    def run(*arguments: str, without: tuple[str, ...] = (), **changes: str) -> Ended:
        variables = process_environment(**changes)
        for name in {*os.environ, *variables}:
            if name in variables and name not in without:
                monkeypatch.setenv(name, variables[name])
            else:
                monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["mohe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return run
