"""deploy/compose/docker-runs.yml: another run launcher needs configuration only."""

import re
from pathlib import Path

import pytest

from mohe_assets_tests.deployment.containers.test_compose import interrupted
from mohe_assets_tests.support.compose import DEMO, ROOT
from mohe_assets_tests.support.engine import StartStack, build_image, docker, engine_socket

SHIPPED = ROOT / "deploy" / "compose" / "docker-runs" / "dagster.yaml"
SETTINGS = {
    "MOHE_NAVER_API_URL": "http://mohe-simulator:8900",
    "MOHE_GOVERNMENT_API_URL": "http://mohe-simulator:8900",
    "MOHE_CALLS_PER_SECOND": "50",
    "MOHE_LEASE_SECONDS": "6",
    "MOHE_HEARTBEAT_SECONDS": "1",
}


@pytest.fixture
def dagster_yaml(tmp_path: Path) -> Path:
    """The shipped file with this project's volumes, the demo's keys and quick leases."""
    keys = dict(re.findall(r"^((?:GOVT|NAVER)_\w+)=(.*)$", DEMO.read_text("utf-8"), re.MULTILINE))
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, key in keys.items():
        (secrets / name.lower()).write_text(key, encoding="utf-8")
    for folder in (secrets, *tmp_path.parents[:2]):  # pytest's own; above is the system's
        folder.chmod(0o755)
    text = SHIPPED.read_text(encoding="utf-8").replace("/srv/mohe/secrets", str(secrets))
    text = text.replace("mohe-assets_mohe-", "mohe-demo_mohe-")
    more = "".join(f"      - {name}={value}\n" for name, value in SETTINGS.items())
    path = tmp_path / "dagster.yaml"
    path.write_text(text.replace("    env_vars:\n", f"    env_vars:\n{more}"), encoding="utf-8")
    path.chmod(0o644)
    return path


def runs() -> list[str]:
    """The containers of runs."""
    found = docker("ps", "--format", "{{.Names}} {{.Command}}", "--no-trunc").splitlines()
    return [line.split()[0] for line in found if "execute_run" in line]


def test_a_run_s_container_may_be_killed(
    stack: StartStack, tmp_path: Path, dagster_yaml: Path
) -> None:
    build_image(tmp_path, "docker")
    path, group = engine_socket()
    demo = stack(
        "deploy/compose/docker-runs.yml",
        MOHE_DOCKER_SOCKET=path,
        MOHE_DOCKER_GROUP=group,
        MOHE_DOCKER_RUNS_YAML=str(dagster_yaml),
        **SETTINGS,
    )
    demo.compose("up", "-d", "--no-build")
    demo.until("regions are collected by containers", lambda: demo.completed() >= 4)
    killed = runs()
    assert killed
    docker("kill", *killed)
    demo.until("other runs continue", lambda: bool(set(runs()) - set(killed)))
    demo.goes_on("a kill of runs")
    assert interrupted(docker("logs", "mohe-batch"))
    demo.compose("stop", "daemon", "batch")
    docker("rm", "--force", *runs())
