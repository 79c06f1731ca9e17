"""Fixtures of the browser tests: a real `mohe up` against the simulator, and Debian's Chromium."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mohe_assets_tests.support.chromium import ARGUMENTS, CHROMIUM, PATIENCE_MS
from mohe_assets_tests.support.environments import QUICK, Environment
from mohe_assets_tests.support.ui import Up

if TYPE_CHECKING:
    from playwright.sync_api import Page

collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]


@pytest.fixture
def up(process_environment: Callable[..., Environment], tmp_path: Path) -> Iterator[Up]:
    """`mohe up` on an empty database: it gets its regions first. Only a person launches runs."""
    settings = {**QUICK, "CHECKPOINT_AUTO_RESUME": "false", "MOHE_REGIONS_PER_RUN": "13"}
    up = Up(process_environment(**settings), tmp_path / "up.log", hurried=True)
    try:
        yield up.ready()
    finally:
        up.end()


@pytest.fixture
def page(up: Up) -> Iterator["Page"]:
    """An empty tab of a fresh browser."""
    # Not installed where these tests are deselected.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    del up  # the browser goes before what it looks at
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1280, "height": 760})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


@pytest.fixture
def pictures() -> Path:
    """Folder for screenshots; CI keeps it."""
    folder = Path(__file__).parents[2] / "ci-artifacts"
    folder.mkdir(exist_ok=True)
    return folder
