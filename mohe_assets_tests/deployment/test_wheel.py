"""The wheel outside a checkout: what is in it, and that its commands work."""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mohe_assets.postgres.embedded import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    subprocess.run([*PIP, *build, str(ROOT)], check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and, from ours, what it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    install = (*PIP, "--python", str(folder / "bin" / "python"), "install", "--no-index")
    subprocess.run([*install, "--no-deps", str(wheel)], check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # Files of our environment that add paths of their own, as that of the checkout, are not read.
    (site / "ours.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder / "bin"


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mohe-wheel-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder, "home")
        yield home
        EmbeddedServer(home=home).stop()


def run(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "MOHE_HOME": str(home)}
    return subprocess.run(
        command, cwd=home.parent, env=environment, capture_output=True, text=True, check=False
    )


def test_it_has_all_files_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"sql/{path.name}" for path in (ROOT / "sql").iterdir()}
    shipped |= {"dagster.yaml", "workspace.yaml"}
    assert {name for name in names if "/shipped_files/" in name} == {
        f"mohe_assets/shipped_files/{name}" for name in shipped
    }
    tracked = [path for path in (ROOT / "mohe_assets").rglob("*") if path.is_file()]
    package = {
        path.relative_to(ROOT).as_posix() for path in tracked if "__pycache__" not in path.parts
    }
    assert {"mohe_assets/py.typed", "mohe_assets/data/sigungu.csv"} <= package
    others = {name for name in names if not name.startswith("mohe_assets/shipped_files/")}
    assert {name for name in others if ".dist-info/" not in name} == package
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_its_commands_work_without_a_checkout(bin_folder: Path, home: Path) -> None:
    mohe, python = str(bin_folder / "mohe"), str(bin_folder / "python")
    where = run(home, python, "-c", "import mohe_assets; print(mohe_assets.__file__)")
    assert where.stdout.startswith(str(bin_folder.parent)), where.stderr
    shown = run(home, mohe, "--version")
    assert re.fullmatch(r"mohe-assets [\d.]+, schema \d+\n", shown.stdout), shown.stderr
    empty = run(home, mohe, "status")
    assert (empty.returncode, empty.stdout) == (1, "")
    assert "which has no database yet" in empty.stderr
    assert not home.exists()
    assert "--port" in run(home, python, "-m", "mohe_assets.simulator", "--help").stdout
    started = run(home, mohe, "db", "start")
    assert started.returncode == 0, started.stderr
    exported = run(home, mohe, "env")
    assert f"export PATH={bin_folder}:" in exported.stdout, exported.stderr
    assert (home / "dagster" / "dagster.yaml").read_bytes() == (ROOT / "dagster.yaml").read_bytes()
