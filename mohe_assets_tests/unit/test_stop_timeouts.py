"""The time-outs of a stop fit into each other, and into those of the deployment files."""

import re
from pathlib import Path

import yaml

from mohe_assets.collection import stop_timeouts as seconds

ROOT = Path(__file__).parents[2]


def test_a_run_ends_before_whatever_waits_for_it_kills_it() -> None:
    assert seconds.UP_OTHERS_SECONDS + seconds.RUN_STOP_SECONDS < seconds.UP_STOP_SECONDS
    assert seconds.UP_STOP_SECONDS < seconds.DOCKER_STOP_SECONDS
    assert seconds.RUN_STOP_SECONDS < seconds.DEMO_STOP_SECONDS
    assert seconds.RUN_STOP_SECONDS < seconds.CODE_SERVER_STOP_SECONDS


def test_a_code_server_ends_its_runs_before_its_container_is_killed() -> None:
    code_server = seconds.CODE_SERVER_CANCEL_SECONDS + seconds.CODE_SERVER_STOP_SECONDS
    assert code_server < seconds.CONTAINER_STOP_SECONDS


def test_containers_of_ours_get_the_time_that_their_processes_may_take() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    grace = {
        name: float(service["stop_grace_period"].removesuffix("s"))
        for name, service in services.items()
        if "stop_grace_period" in service and name != "postgres"
    }
    assert grace
    assert set(grace.values()) == {seconds.CONTAINER_STOP_SECONDS}
    values = (ROOT / "deploy/kubernetes/values.yaml").read_text()
    periods = re.findall(r"terminationGracePeriodSeconds: (\d+)", values)
    assert periods
    assert all(float(period) >= seconds.CONTAINER_STOP_SECONDS for period in periods)
