"""requirements/ has the pinned versions with hashes, without addresses; licences are checked."""

import importlib.util
import re
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
# Constraints are those of one platform and one version of Python, and pip does not list itself.
UNLISTED = {"pip", "setuptools"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    found = re.findall(
        r"^([\w.-]+)==([^\s;]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return {normal(name): version for name, version in found}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_has_pinned_versions_with_hashes_and_no_address(path: Path) -> None:
    pinned = pins(ROOT / "constraints.txt")
    text = path.read_text(encoding="utf-8")
    for line in text.replace("\\\n", " ").splitlines():
        assert re.fullmatch(r"[\w.-]+==\S+( ; .+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), (
            line[:80]
        )
        name, version = re.match(r"([\w.-]+)==(\S+)", line).groups()  # type: ignore[union-attr]
        elsewhere = " ; " in line or normal(name) in UNLISTED
        assert pinned.get(normal(name)) == version or (elsewhere and normal(name) not in pinned), (
            name
        )
    assert "://" not in text


def test_every_pinned_version_has_its_hashes() -> None:
    hashed: dict[str, str] = {}
    for path in FILES:
        hashed |= pins(path)
    assert pins(ROOT / "constraints.txt").items() <= hashed.items()


@pytest.fixture(scope="module")
def licences() -> Any:
    spec = importlib.util.spec_from_file_location("licences", ROOT / ".ci" / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Package(metadata.PathDistribution):
    """A package with these metadata."""

    def __init__(self, **stated: str) -> None:
        self._message = Message()
        for name, value in {"Name": "one", "Version": "1", **stated}.items():
            self._message[name.replace("_", "-")] = value

    @property
    def metadata(self) -> Any:
        return self._message


@pytest.mark.parametrize(
    ("stated", "allowed"),
    [
        ({"License_Expression": "MIT AND BSD-3-Clause"}, True),
        ({"License_Expression": "MIT AND AGPL-3.0-only"}, False),
        ({"Classifier": "License :: OSI Approved :: Apache Software License"}, True),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"}, False),
        ({"License": "GPL-3.0"}, False),
        ({"License": "LGPL-2.1"}, True),
        ({}, False),
    ],
)
def test_a_licence_that_is_not_listed_is_refused(
    licences: Any, stated: dict[str, str], allowed: bool
) -> None:
    assert (list(licences.refused([Package(**stated)])) == []) is allowed


def test_all_dependencies_may_be_used(licences: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert licences.main() == 0, capsys.readouterr().err
