"""docker-compose.yml as docker-compose itself reads it, with the values of an env file in it."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"
DEMO = ROOT / "deploy" / "compose" / "demo.env"


@dataclass(frozen=True, kw_only=True)
class Service:
    """The configuration of a container."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    health: Sequence[str]
    grace_seconds: float
    restarted: bool
    waits_for: Mapping[str, str]
    ports: Sequence[str]
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, raw: Mapping[str, Any]) -> "Service":
        return cls(
            name=name,
            command=raw.get("command", ()),
            # A variable without a value is one that the container does not get.
            environment={
                key: str(value)
                for key, value in raw.get("environment", {}).items()
                if value is not None
            },
            health=raw.get("healthcheck", {}).get("test", ["CMD"])[1:],
            grace_seconds=_seconds(raw.get("stop_grace_period", "10s")),
            restarted=raw.get("restart") == "unless-stopped",
            waits_for={one: rule["condition"] for one, rule in raw.get("depends_on", {}).items()},
            ports=[str(port) for port in raw.get("ports", ())],
            raw=raw,
        )


def _seconds(text: str) -> float:
    minutes, _, rest = text.rpartition("m")
    return 60 * float(minutes or 0) + float(rest.removesuffix("s") or 0)


def compose(
    *arguments: str, env_file: Path = EXAMPLE, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Runs docker-compose on the project's file; nothing of a person's own environment or .env gets
    into it.
    """
    program = _program()
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    command = [
        *program,
        "--file",
        str(ROOT / "docker-compose.yml"),
        "--env-file",
        str(env_file),
        *arguments,
    ]
    return subprocess.run(
        command, env={**plain, **variables}, cwd=ROOT, capture_output=True, text=True, check=False
    )


def _program() -> list[str]:
    if found := shutil.which("docker-compose"):
        return [found]
    docker = shutil.which("docker")
    if (
        docker
        and not subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        return [docker, "compose"]
    pytest.skip("docker-compose is not installed; make test installs it on Debian, as root")


def services(
    env_file: Path, variables: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Service]:
    """All services that the env file turns on, in the order in which they are written."""
    done = compose("config", env_file=env_file, variables=variables)
    assert done.returncode == 0, done.stderr
    return {
        name: Service.of(name, raw) for name, raw in yaml.safe_load(done.stdout)["services"].items()
    }


def with_all_it_waits_for(name: str, known: Mapping[str, Service]) -> set[str]:
    """The services that `up -d name` starts."""
    return {name}.union(*(with_all_it_waits_for(one, known) for one in known[name].waits_for))
