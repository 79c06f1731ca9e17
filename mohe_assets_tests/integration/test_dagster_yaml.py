"""The home's dagster.yaml: brought to this version's while it is ours, a person's own stands."""

import json
import resource
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from mohe_assets import packaged_files as shipped_module
from mohe_assets.cli.env import place
from mohe_assets.packaged_files import is_shipped_dagster_yaml, packaged_file
from mohe_assets_tests.support.commands import Mohe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def placed(tmp_path: Path, mohe: Mohe) -> Path:
    """The file as `mohe env` has placed it."""
    assert mohe("env").status == 0
    return tmp_path / "home" / "dagster" / "dagster.yaml"


def test_a_changed_file_is_kept_by_all_commands_and_compared_by_doctor(
    placed: Path, mohe: Mohe
) -> None:
    assert placed.read_bytes() == packaged_file("dagster.yaml").read_bytes()
    lines = placed.read_text(encoding="utf-8").replace(
        "max_concurrent_runs: 4", "max_concurrent_runs: 1"
    )
    lines = lines.replace("    user_code_failure_retry_delay: 5\n", "").replace("nux:", "x_nux:")
    placed.write_text(lines, encoding="utf-8")
    for arguments in (("env",), ("doctor", "--no-calls"), ("db", "migrate")):
        mohe(*arguments)
        assert placed.read_text(encoding="utf-8") == lines, arguments
    found = {one["check"]: one for one in json.loads(mohe("doctor", "--no-calls", "--json").out)}
    assert found["dagster.yaml"]["level"] == "warning"
    assert found["dagster.yaml"]["found"] == (
        f"{placed} was changed by hand and is kept; it lacks nux.enabled: False, "
        "run_coordinator.config.user_code_failure_retry_delay: 5"
    )
    placed.write_bytes(packaged_file("dagster.yaml").read_bytes() + b"\n# a note\n")
    found = {one["check"]: one for one in json.loads(mohe("doctor", "--no-calls", "--json").out)}
    assert found["dagster.yaml"]["level"] == "ok"
    placed.write_bytes(b"a: [1\n")
    found = {one["check"]: one for one in json.loads(mohe("doctor", "--no-calls", "--json").out)}
    assert found["dagster.yaml"]["level"] == "error"


def test_an_earlier_versions_file_is_replaced(
    placed: Path, mohe: Mohe, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = b"# of an earlier version\n"
    monkeypatch.setattr(
        shipped_module, "SHIPPED_DAGSTER_YAML", frozenset({sha256(earlier).hexdigest()})
    )
    placed.write_bytes(earlier)
    mohe("doctor", "--no-calls")
    assert placed.read_bytes() == earlier, "a command that only looks leaves it, too"
    mohe("env")
    assert placed.read_bytes() == packaged_file("dagster.yaml").read_bytes()


def test_every_version_of_the_file_is_known() -> None:
    def git(*arguments: str) -> bytes:
        command = [shutil.which("git") or "git", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout

    try:
        commits = git("log", "--format=%H", "--", "dagster.yaml").decode().split()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no history here")
    for commit in commits:
        content = git("show", f"{commit}:dagster.yaml")
        assert is_shipped_dagster_yaml(content), f"its digest at {commit[:8]} is missing"


def test_a_file_of_ones_own_elsewhere_stands(placed: Path, mohe: Mohe, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_bytes(packaged_file("dagster.yaml").read_bytes() + b"\n# ours\n")
    assert mohe("env", MOHE_DAGSTER_YAML=str(own)).status == 0
    assert placed.read_bytes() == own.read_bytes()
    own.write_bytes(own.read_bytes() + b"# changed\n")
    assert mohe("env", MOHE_DAGSTER_YAML=str(own)).status == 0
    assert placed.read_bytes() == own.read_bytes()
    other = mohe("env", MOHE_DAGSTER_YAML=str(tmp_path / "none.yaml"))
    assert other.status == 1
    assert f"MOHE_DAGSTER_YAML is {tmp_path / 'none.yaml'}, which is no file." in other.err


def test_a_file_that_was_changed_by_hand_is_not_lost_to_another(
    placed: Path, mohe: Mohe, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    own.write_bytes(b"telemetry: {enabled: false}\n")
    placed.write_bytes(b"# by hand\n")
    refused = mohe("env", MOHE_DAGSTER_YAML=str(own))
    assert refused.status == 1
    assert f"{placed} was changed by hand, and MOHE_DAGSTER_YAML names another file" in refused.err
    assert placed.read_bytes() == b"# by hand\n"


def test_a_full_disk_leaves_no_draft_and_what_is_equal_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "dagster.yaml"
    path.write_bytes(b"a: 1\n" * 100)
    before = path.stat()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        place(path, b"a: 1\n" * 100)
        with pytest.raises(OSError, match="File too large"):
            place(path, b"b: 2\n" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [one.name for one in tmp_path.iterdir()] == ["dagster.yaml"]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
