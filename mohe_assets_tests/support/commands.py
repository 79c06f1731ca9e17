"""The command `mohe` in this process."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mohe_assets import cli
from mohe_assets_tests.support.environments import Environment


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


# Type of the fixture `mohe`.
Mohe = Callable[..., Ended]


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Runs `mohe` with a test's environment, changed by keyword; `without` leaves variables out."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    environment: Callable[..., Environment]

    def __call__(self, *arguments: str, without: tuple[str, ...] = (), **changes: str) -> Ended:
        variables = self.environment(**changes)
        for name in {*os.environ, *variables}:
            if name in variables and name not in without:
                self.monkeypatch.setenv(name, variables[name])
            else:
                self.monkeypatch.delenv(name, raising=False)
        self.monkeypatch.setenv("COLUMNS", "200")
        self.monkeypatch.setattr(sys, "argv", ["mohe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = self.capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)
