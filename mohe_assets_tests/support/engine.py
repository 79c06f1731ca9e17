"""docker-compose.yml on a Docker engine, as a person uses it: docker and docker-compose."""

import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mohe_assets.simulator.server import Simulator
from mohe_assets_tests.support.compose import ROOT

PATIENCE = 180.0
OWNER = ("mohe-postgres", "psql", "-U", "mohe_user", "-d", "mohe_db")


def docker(*arguments: str, given: str | None = None, check: bool = True) -> str:
    """What the command prints, on either stream; AssertionError if it fails."""
    program = os.environ.get("DOCKER") or shutil.which("docker") or "docker"
    done = subprocess.run(
        [program, *arguments],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stdout[-3000:]}"
    return done.stdout


def engine_socket() -> tuple[str, str]:
    """The engine's socket, and the number of the group that may use it."""
    path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    return path, str(Path(path).stat().st_gid)


def build_image(folder: Path, extra: str = "") -> str:
    """Build the image from the shipped Dockerfile under the name of docker-compose.yml, which is
    returned; with an extra, that is behind it.
    """
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    name = "-".join(filter(None, (str(services["batch"]["image"]), extra)))
    program = os.environ.get("DOCKER") or "docker"
    extras = ["--build-arg", f"EXTRAS=charts {extra}"] if extra else []
    log = folder / "build.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [program, "build", *extras, "--tag", name, str(ROOT)],
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert done.returncode == 0, log.read_text(errors="replace")[-3000:]
    return name


@dataclass(kw_only=True)
class Stack:
    """One project of docker-compose; its containers have fixed names."""

    env_file: Path
    files: tuple[Path, ...] = (ROOT / "docker-compose.yml",)
    _answers: Counter[str] = field(default_factory=Counter)

    def compose(self, *arguments: str) -> str:
        command = ["docker-compose", "--env-file", str(self.env_file)]
        for file in self.files:
            command += ["--file", str(file)]
        plain = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "DOCKER_HOST", "COMPOSE_HTTP_TIMEOUT")
            if name in os.environ
        }
        done = subprocess.run(
            [*command, "--project-directory", str(ROOT), *arguments],
            env=plain,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"docker-compose {' '.join(arguments)}: {done.stdout[-3000:]}"
        return done.stdout

    def sql(self, query: str, *, check: bool = True) -> str:
        """The one value of a query, by the command that users know."""
        return docker("exec", "-i", *OWNER, "-XAt", "-c", query, check=check).strip()

    def statuses(self) -> dict[str, int]:
        found = self.sql("SELECT status, count(*) FROM batch_checkpoint GROUP BY 1", check=False)
        return {
            status: int(count)
            for status, count in re.findall(r"^([A-Z]+)\|(\d+)$", found, re.MULTILINE)
        }

    def completed(self) -> int:
        return self.statuses().get("COMPLETED", 0)

    def until(self, what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s\n{self.tails()}"
            time.sleep(0.5)

    def goes_on(self, what: str) -> None:
        """Regions are completed that were not before."""
        before = self.completed()
        self.until(what, lambda: self.completed() > before)

    def tails(self) -> str:
        names = docker("ps", "--all", "--format", "{{.Names}} {{.Status}}")
        logs = (docker("logs", "--tail", "25", f"mohe-{one}", check=False)
                for one in ("postgres", "batch", "daemon"))  # fmt: skip
        return "\n---\n".join([names, *logs])

    @property
    def simulator(self) -> Simulator:
        """Reached at its address: only the containers publish ports that people need."""
        path = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = docker("inspect", "--format", path, "mohe-simulator").strip()
        return Simulator(f"http://{address}:8900")

    def note_answers(self) -> None:
        """Add the simulator's counts to those of its lives before."""
        self._answers.update(self.simulator.stats()["naver"]["answers_per_search"])

    def answered_twice(self) -> tuple[int, int]:
        """Answers beyond the first of each search, and the number of searches."""
        counts = self._answers + Counter(self.simulator.stats()["naver"]["answers_per_search"])
        return sum(count - 1 for count in counts.values()), len(counts)

    @contextmanager
    def following(self, log: Path) -> Iterator[None]:
        """`docker logs mohe-batch -f`, as a person has it open in another terminal."""
        program = os.environ.get("DOCKER") or "docker"
        with log.open("wb") as output:
            command = [program, "logs", "mohe-batch", "-f"]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                yield
            finally:
                process.terminate()
                process.wait(timeout=10)


def inspected(name: str) -> Mapping[str, Any]:
    """What the engine knows of a container or an image."""
    found: list[Mapping[str, Any]] = json.loads(docker("inspect", name))
    return found[0]


def require_engine() -> None:
    """Skip where no engine answers: `.ci/containers` starts one."""
    program = os.environ.get("DOCKER") or shutil.which("docker")
    command = [program or "docker", "version"]
    if program is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers; .ci/containers starts one")


# Type of the fixture `stack`.
StartStack = Callable[..., Stack]
