"""Fixtures of the platform as docker-compose.yml starts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mohe_assets_tests.support.compose import services
from mohe_assets_tests.support.containers import Topology
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.secrets import SETTINGS, write_env_file


@pytest.fixture
def environment(environment: Environment) -> Environment:
    """The keywords of the containers, for what is collected before the move into them."""
    return {**environment, "MOHE_SEARCH_KEYWORDS": SETTINGS["MOHE_SEARCH_KEYWORDS"]}


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    """The demo's services with an env file as a person would write it."""
    env_file = tmp_path / "env"
    write_env_file(env_file)
    topology = Topology.of(services(env_file))
    yield topology
    topology.end()
