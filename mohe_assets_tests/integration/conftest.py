"""Fixtures of integration tests: a few regions in a database, and the command `mohe`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from mohe_assets import app as app_module
from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.clients.http import RetryPolicy
from mohe_assets.store.database import Database
from mohe_assets_tests.support.collections import OpenApp
from mohe_assets_tests.support.commands import Commands, Mohe
from mohe_assets_tests.support.environments import KEYWORDS, Environment
from mohe_assets_tests.support.stores import Store


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
    """Run one command with the test's environment."""
    return Commands(monkeypatch=monkeypatch, capsys=capsys, environment=process_environment)


@pytest.fixture
def open_app(environment: Environment, store: Store) -> Iterator[OpenApp]:
    """Open apps on the same database, each with its own changes to the environment."""
    del store
    with ExitStack() as opened:

        def build(**changes: str) -> App:
            variables = {
                **environment,
                "MOHE_SEARCH_KEYWORDS": ",".join(KEYWORDS),
                "MOHE_SEARCHES_IN_FLIGHT": "3",
                **changes,
            }
            return opened.enter_context(App.open(settings_module.load(variables)))

        yield build


@pytest.fixture
def few(open_app: OpenApp) -> App:
    """An app that searches for two keywords, three searches at a time."""
    return open_app()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make retries of a call follow at once, in their usual number."""
    quick = partial(RetryPolicy, first_wait=0.0, max_wait=0.0, jitter=0.0, rate_first_wait=0.0)
    monkeypatch.setattr(app_module, "RetryPolicy", quick)
