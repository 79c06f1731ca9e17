"""deploy/compose/external-database.yml: a second server stands for one that another team runs."""

from collections.abc import Iterator

import pytest

from mohe_assets_tests.support.engine import OWNER, Stack, StartStack, docker

OVERRIDE = "deploy/compose/external-database.yml"
PASSWORD = "of-the-owner"
# What docs/compose.md has an administrator run once.
PREPARED = f"""
CREATE ROLE mohe_user LOGIN CREATEDB CREATEROLE PASSWORD '{PASSWORD}';
GRANT mohe_user TO CURRENT_USER;
CREATE DATABASE mohe_db OWNER mohe_user;
"""


@pytest.fixture
def demo(stack: StartStack) -> Iterator[Stack]:
    one = stack(
        OVERRIDE,
        MOHE_POSTGRES_PASSWORD=PASSWORD,
        MOHE_DATABASE_HOST="outside",
        MOHE_DATABASE_SSLMODE="disable",  # the stand-in has no certificate
    )
    one.compose("up", "-d", "--no-build", "simulator")
    try:
        docker(
            "run", "--detach", "--name", "mohe-outside", "--network", "mohe-demo_default",
            "--network-alias", "outside", "--env", "POSTGRES_PASSWORD=of-its-own", "postgres:18",
        )  # fmt: skip
        admin = ("exec", "-i", "mohe-outside", "psql", "-U", "postgres", "-v", "ON_ERROR_STOP=1")
        one.until(
            "the server answers", lambda: "1" in docker(*admin, "-c", "SELECT 1", check=False)
        )
        docker(*admin, given=PREPARED)
        yield one
    finally:
        docker("rm", "--force", "--volumes", "mohe-outside", check=False)


def test_a_database_outside_is_used_by_settings_alone(demo: Stack) -> None:
    demo.compose("up", "-d", "--no-build")
    demo.until("the first regions are collected", lambda: demo.completed() >= 4)
    processes = docker("top", "mohe-postgres")
    assert "sleep infinity" in processes
    assert "postgres -c" not in processes, "no server of its own"
    there = ("exec", "-i", "mohe-outside", "psql", "-U", "postgres", "-d", "mohe_db", "-XAt")
    host = "SELECT count(*) > 0 FROM batch_checkpoint"
    assert docker(*there, "-c", host) == docker("exec", "-i", *OWNER, "-XAt", "-c", host) == "t\n"
    docker("kill", "mohe-outside")
    docker("start", "mohe-outside")
    demo.goes_on("a failover of the database")
    docker("stop", "mohe-batch")
    assert "PROCESSING" not in demo.statuses()
