"""The image, built once, and projects of docker-compose that leave nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mohe_assets_tests.support.compose import DEMO, ROOT
from mohe_assets_tests.support.engine import (
    Stack,
    StartStack,
    build_image,
    docker,
    require_engine,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("containers")
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    require_engine()
    return build_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def stack(image: str, tmp_path: Path) -> Iterator[StartStack]:
    """A project of the demo; further settings and files can be given."""
    assert image
    made = list[Stack]()

    def start(*files: str, **settings: str) -> Stack:
        env_file = tmp_path / "env"
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        env_file.write_text(DEMO.read_text(encoding="utf-8") + lines, encoding="utf-8")
        paths = tuple(ROOT / one for one in ("docker-compose.yml", *files))
        made.append(Stack(env_file=env_file, files=paths))
        return made[-1]

    yield start
    for one in made:
        one.compose("down", "--volumes", "--timeout", "1")
    assert docker("ps", "--all", "--quiet", "--filter", "name=mohe-") == ""
