"""The services of docker-compose.yml as processes: the same commands, environments, health checks,
users and signals.

No Docker engine is needed. Its stand-in is small: a service's name and port become this
machine's loopback and a free port, the volume becomes a folder, `init` and the restart policy are
played here, and a container's end is the end of all that runs in it. The image of PostgreSQL is
played by the wheel's binaries, with a password over TCP.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from dockerfile_parse import DockerfileParser

from mohe_assets.postgres.embedded import EmbeddedServer, _account, _others_can_enter
from mohe_assets.store.database import Database
from mohe_assets_tests.support.compose import ROOT, Service
from mohe_assets_tests.support.ports import free_port
from mohe_assets_tests.support.ui import kill

IMAGE_HOME = "/var/lib/mohe"
# Time that a busy machine may add to a stop, and may need to start everything.
UNDER_LOAD = 20
PATIENCE = 300.0
PORTS = ("5432", "4266", "3000", "8900")
# PostgreSQL's image is stopped by SIGINT, which ends sessions; on SIGTERM it would wait for them.
STOP_SIGNALS = {"postgres": signal.SIGINT}


@dataclass(kw_only=True)
class Topology:
    """All services, none of them running yet."""

    services: Mapping[str, Service]
    folder: Path
    ports: Mapping[str, str] = field(
        default_factory=lambda: {port: str(free_port()) for port in PORTS}
    )
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _wanted: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, services: Mapping[str, Service]) -> "Topology":
        # Not pytest's own folder, which is closed to others.
        folder = Path(tempfile.mkdtemp(prefix="mohe-topology-"))
        folder.chmod(0o755)
        topology = cls(services=services, folder=folder)
        topology.home.mkdir()
        if user := container_user():
            shutil.chown(topology.home, user)
        return topology

    @property
    def home(self) -> Path:
        """The volume."""
        return self.folder / "home"

    @property
    def server(self) -> EmbeddedServer:
        """Where the binaries of PostgreSQL come from, and its data directory."""
        return EmbeddedServer(home=self.folder)

    def port(self, inside: str) -> int:
        return int(self.ports[inside])

    def database_url(self, name: str = "mohe_db") -> str:
        """URL for a person on this machine without a password, as for `docker exec -i mohe-postgres
        psql`.
        """
        return f"postgresql://mohe_user@/{name}?host={self.server.data}&port={self.ports['5432']}"

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def output(self, name: str) -> str:
        return self.log(name).read_text(encoding="utf-8", errors="replace")

    def start(self, name: str) -> None:
        """`docker start`: the same container continues its log."""
        assert name not in self._running
        self._wanted.add(name)
        if name == "postgres":
            self._initialise()
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._as_its_user(name, self._command(name)),
                env=self._environment(name),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, name: str) -> None:
        """A container that ends by itself, with success."""
        self.start(name)
        assert self._running.pop(name).wait(timeout=PATIENCE) == 0, self.output(name)[-3000:]
        self._wanted.discard(name)

    def stop(self, name: str) -> float:
        """`docker stop`: the signal to the main process alone; seconds it took. It has to end
        within its grace period.
        """
        self._wanted.discard(name)
        main = self._running.pop(name)
        family = self._family(main)
        told = time.monotonic()
        main.send_signal(STOP_SIGNALS.get(name, signal.SIGTERM))
        try:
            main.wait(timeout=self.services[name].grace_seconds + UNDER_LOAD)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{name} outlived its grace period:\n{self.output(name)[-3000:]}"
            ) from None
        finally:
            kill(family)
            main.wait(timeout=PATIENCE)
        return time.monotonic() - told

    def kill(self, name: str) -> None:
        """`docker kill`: everything in the container is gone at once. It stays so until it is
        started.
        """
        self._wanted.discard(name)
        main = self._running.pop(name)
        kill(self._family(main))
        main.wait(timeout=PATIENCE)

    def keep_up(self) -> None:
        """Start again every container that ended by itself, as `restart: unless-stopped` does."""
        for name in sorted(self._wanted):
            if self._running[name].poll() is not None:
                assert self.services[name].restarted, f"{name} ended:\n{self.output(name)[-3000:]}"
                self._running.pop(name)
                self.start(name)

    def until(
        self,
        condition: Callable[[], bool],
        what: str,
        *,
        seconds: float = PATIENCE,
        every: float = 0.2,
    ) -> None:
        """Waits for something outside of this process, with the restart policy at work."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.keep_up()
            assert time.monotonic() < deadline, (
                f"{what}: did not happen within {seconds:g} s\n{self.tails()}"
            )
            time.sleep(every)

    def tails(self) -> str:
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}"
            for log in self.folder.glob("*.log")
        )

    def healthy(self, name: str) -> bool:
        """Return whether the service's own health check succeeds."""
        command = [self._here(word) for word in self.services[name].health]
        if name == "postgres":
            command[0] = self._binaries(command[0])
        done = subprocess.run(
            self._as_its_user(name, command),
            env=self._environment(name),
            cwd="/",
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def execute(
        self, name: str, *command: str, given: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """`docker exec -i`: a command more in a container."""
        program, *arguments = command
        if name == "postgres":
            program = self._binaries(program)
        return subprocess.run(
            self._as_its_user(name, [program, *arguments]),
            env=self._environment(name), cwd="/", input=given, capture_output=True, check=False,
        )  # fmt: skip

    def users(self, name: str) -> set[str]:
        """Who the processes of a container run as."""
        return {process.username() for process in self._family(self._running[name])}

    def end(self) -> None:
        """End everything that still runs."""
        for name in [*self._running]:
            self.kill(name)
        shutil.rmtree(self.server.data, ignore_errors=True)
        shutil.rmtree(self.folder)

    def _initialise(self) -> None:
        """Create the data directory, the owner with its password, and the database, as the image's
        first start does.
        """
        data, given = self.server.data, self.services["postgres"].environment
        if (data / "PG_VERSION").exists():
            return
        self.server._own(data)
        secret = data.with_name(f"{data.name}.password")
        secret.write_text(given["POSTGRES_PASSWORD"], encoding="utf-8")
        if account := _account():
            shutil.chown(secret, account)
        done = self.server._run(
            "initdb", "-D", str(data), "-U", "postgres", f"--pwfile={secret}", "--auth-local=trust",
            "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8",
        )  # fmt: skip
        secret.unlink()
        assert done.returncode == 0, done.stdout
        done = subprocess.run(
            [self._binaries("postgres"), "--single", "-D", str(data), "postgres"],
            input=f'CREATE DATABASE "{given["POSTGRES_DB"]}"\n',
            user=_account(), cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self._run_init_scripts(data)

    def _run_init_scripts(self, data: Path) -> None:
        """The files of /docker-entrypoint-initdb.d, on a server that nothing else reaches."""
        assert (
            "./deploy/compose/postgres:/docker-entrypoint-initdb.d"
            in (ROOT / "docker-compose.yml").read_text()
        )
        server = [
            "-D",
            str(data),
            "-w",
            "-o",
            f"-k '{data}' -p {self.ports['5432']} -c listen_addresses=''",
        ]
        started = self.server._run("pg_ctl", *server, "-l", str(data / "init.log"), "start")
        assert started.returncode == 0, started.stdout
        for script in sorted((ROOT / "deploy" / "compose" / "postgres").iterdir()):
            done = subprocess.run(
                [
                    self._binaries("psql"),
                    "-X",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-U",
                    "postgres",
                    "-d",
                    "mohe_db",
                ],
                input=script.read_text(encoding="utf-8"),
                env=self._environment("postgres"),
                user=_account(),
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        stopped = self.server._run("pg_ctl", "-D", str(data), "-w", "stop")
        assert stopped.returncode == 0, stopped.stdout

    def _command(self, name: str) -> list[str]:
        command = [self._here(word) for word in self.services[name].command]
        if name != "postgres":
            return command
        data = str(self.server.data)
        return [
            self._binaries(command[0]),
            "-D",
            data,
            "-k",
            data,
            "-c",
            "listen_addresses=127.0.0.1",
            "-p",
            self.ports["5432"],
            *command[1:],
        ]

    def _binaries(self, program: str) -> str:
        return str(self.server._binaries() / program)

    def _environment(self, name: str) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
        given = {key: self._here(value) for key, value in self.services[name].environment.items()}
        if name == "postgres":
            # As in the container, its programs find the server by these defaults.
            return {
                "PATH": path,
                "LC_ALL": "C.UTF-8",
                "PGHOST": str(self.server.data),
                "PGPORT": self.ports["5432"],
                **given,
            }
        image = {
            key: self._here(value)
            for key, value in DockerfileParser(str(ROOT / "Dockerfile")).envs.items()
            if key != "PATH"
        }
        return {"PATH": path, "LANG": "C.UTF-8", "HOME": str(self.home), **image, **given}

    def _here(self, text: str) -> str:
        """The same on this machine: services by name are loopback, their ports are free ones, the
        volume is a folder.
        """
        text = re.sub(rf"\b(?:mohe-)?({'|'.join(self.services)}):(?=\d)", "127.0.0.1:", text)
        text = text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - replaced, not listened on
        text = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: self.ports[found[1]], text)
        return text.replace(IMAGE_HOME, str(self.home))

    def _as_its_user(self, name: str, command: Sequence[str]) -> list[str]:
        user = _account() if name == "postgres" else container_user()
        if not user:
            return list(command)
        return [*_become(user, may_read_all=name != "postgres"), *command]

    @staticmethod
    def _family(main: subprocess.Popen[bytes]) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            itself = psutil.Process(main.pid)
            return [itself, *itself.children(recursive=True)]
        return []

    def connect(self, name: str = "mohe_db") -> Database:
        return Database.connect(self.database_url(name))


def container_user() -> str | None:
    """Return the account that stands in for the image's user: another one if we are root."""
    return "nobody" if os.geteuid() == 0 else None


def _become(user: str, *, may_read_all: bool) -> list[str]:
    """Return a command prefix that becomes this user; it may read all files where this checkout is
    private.
    """
    entry = pwd.getpwnam(user)
    command = [
        "setpriv",
        f"--reuid={entry.pw_uid}",
        f"--regid={entry.pw_gid}",
        "--clear-groups",
        "--no-new-privs",
    ]
    closed = not all(
        _others_can_enter(path)
        for path in (ROOT, Path(sys.executable), Path(sys.executable).resolve())
    )
    if may_read_all and closed:
        command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return command
