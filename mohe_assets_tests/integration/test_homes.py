"""Homes: their owner, the state after a crash, and commands that only look and change nothing."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO

import psutil
import pytest

from mohe_assets import cli
from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli import up as up_module
from mohe_assets.cli.supervisor import Supervisor
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.postgres import embedded
from mohe_assets.postgres.databases import ensure_ready, resolve_urls
from mohe_assets.postgres.embedded import SOCKET, EmbeddedServer
from mohe_assets.store.database import Database, rows
from mohe_assets_tests.support.commands import Ended, Mohe
from mohe_assets_tests.support.environments import Environment

OWN_URLS = ("MOHE_DATABASE_URL", "MOHE_DAGSTER_DATABASE_URL")
LOOKING = (("status",), ("plan",), ("db", "url"))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as somebody else")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that does not exist yet, in a folder that others can enter."""
    folder = Path(tempfile.mkdtemp(prefix="mohe-homes-"))
    folder.chmod(0o755)
    yield folder / "home"
    _stop(folder / "home")
    shutil.rmtree(folder)


@pytest.fixture
def long_home(home: Path) -> Iterator[Path]:
    """One whose sockets need a folder elsewhere."""
    folder = home.joinpath("x" * 90, "home")
    yield folder
    _stop(folder)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """These servers survive no power loss, so that some thirty of them start fast."""
    monkeypatch.setattr(embedded, "_CONFIG", f"{embedded._CONFIG}fsync = off\n")
    monkeypatch.setattr(embedded, "INITDB", (*embedded.INITDB, "--no-sync"))


def _stop(home: Path) -> None:
    server = EmbeddedServer(home=home)
    with contextlib.suppress(DatabaseUnavailable):
        server.stop()
    if server.socket_folder != server.data:
        shutil.rmtree(server.socket_folder, ignore_errors=True)
    if server.data.exists():
        _end_all_in(server.data)


def _end_all_in(data: Path) -> None:
    """Stop the servers of this test, even if their pid files are wrong."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd() == str(data):
                process.kill()


def postmaster(server: EmbeddedServer) -> psutil.Process:
    found = server._postmaster()
    assert found is not None
    return found


def works(server: EmbeddedServer) -> bool:
    database = Database.connect(server.url())
    try:
        return database.transaction(lambda c: rows(c, "SELECT 1 AS one")) == [{"one": 1}]
    finally:
        database.close()


def tree(home: Path) -> dict[str, tuple[int, int, int]]:
    """Return owner, mode and time of every file in a home, without those that a running server
    writes.
    """
    found = {}
    for path in (home, *home.rglob("*")):
        if path != home / "postgres" and not path.is_relative_to(home / "postgres"):
            entry = path.lstat()
            found[str(path)] = (entry.st_uid, entry.st_mode, entry.st_mtime_ns)
    if (home / "postgres").exists():
        entry = (home / "postgres").lstat()
        found["postgres"] = (entry.st_uid, entry.st_mode, 0)
    return found


class TestOwners:
    @dataclass(frozen=True)
    class Other:
        """A second account of this machine."""

        name: str
        uid: int
        folder: Path

        def do(self, work: Callable[[], object]) -> Ended:
            """Run a function in a process of that account, with nothing of ours but the loaded
            modules.
            """
            with (
                tempfile.TemporaryFile("w+", encoding="utf-8") as out,
                tempfile.TemporaryFile("w+", encoding="utf-8") as err,
            ):
                status = self._fork(work, out, err)
                out.seek(0)
                err.seek(0)
                return Ended(status, out.read(), err.read())

        def _fork(self, work: Callable[[], object], out: IO[str], err: IO[str]) -> int:
            child = os.fork()
            if child == 0:
                status = 0
                try:
                    os.dup2(out.fileno(), 1)
                    os.dup2(err.fileno(), 2)
                    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                    os.setgroups([])
                    os.setgid(pwd.getpwuid(self.uid).pw_gid)
                    os.setuid(self.uid)
                    os.chdir("/")
                    work()
                except SystemExit as ended:
                    status = int(ended.code or 0)
                except BaseException:  # noqa: BLE001 - whatever it is, it must not get into the parent's test run
                    traceback.print_exc()
                    status = 99
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(status)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        def mohe(self, environment: Environment, *arguments: str) -> Ended:
            def work() -> None:
                os.environ.clear()
                os.environ.update(environment)
                sys.argv = ["mohe", *arguments]
                cli.main()

            return self.do(work)

    @pytest.fixture
    def other(self) -> Iterator["TestOwners.Other"]:
        binaries = embedded._site_packages() / embedded._BINARIES
        if os.geteuid() != 0 or not embedded._others_can_enter(binaries):
            pytest.skip("a second account is made by root, and has to reach PostgreSQL's programs")
        # Imported here: the other account may not be able to read this interpreter's files.
        for module in (
            "cli.db",
            "cli.doctor",
            "cli.plan",
            "cli.status",
            "cli.up",
            "postgres.migrations.env",
        ):
            with contextlib.suppress(AttributeError):
                import_module(f"mohe_assets.{module}")
        name = f"mohe-t-{uuid.uuid4().hex[:8]}"
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run([*command, name], check=True)
        uid = pwd.getpwnam(name).pw_uid
        folder = Path(tempfile.mkdtemp(prefix="mohe-other-"))
        folder.chmod(0o755)
        os.chown(folder, uid, -1)
        other = TestOwners.Other(name, uid, folder)
        yield other
        for path in folder.glob("**/postgres"):
            other.do(EmbeddedServer(home=path.parent).stop)
            _end_all_in(path)
        shutil.rmtree(folder)
        subprocess.run(["userdel", name], check=True, capture_output=True)  # noqa: S607

    @pytest.fixture
    def embedded_environment(
        self, process_environment: Callable[..., Environment]
    ) -> Callable[[Path], Environment]:
        def build(home: Path) -> Environment:
            variables = process_environment(MOHE_HOME=str(home))
            return {name: value for name, value in variables.items() if name not in OWN_URLS}

        return build

    def test_root_takes_nothing_over_from_the_user_whose_home_it_is(
        self,
        other: "TestOwners.Other",
        mohe: Mohe,
        embedded_environment: Callable[[Path], Environment],
    ) -> None:
        home = other.folder / "home"
        server = EmbeddedServer(home=home)
        started = other.do(server.start)
        assert started.status == 0, started.err
        before = tree(home)
        for arguments in (
            *LOOKING,
            ("db", "start"),
            ("db", "stop"),
            ("db", "psql"),
            ("env",),
            ("up",),
            ("metrics",),
        ):
            done = mohe(*arguments, without=OWN_URLS, MOHE_HOME=str(home))
            assert (done.status, done.out) == (1, ""), arguments
            assert done.err == (
                f"mohe: {home / 'postgres'} belongs to {other.name}, and this is root. "
                f"Run the command as {other.name} (sudo -u {other.name} …), "
                "or set MOHE_HOME to a folder of your own.\n"
            )
        found = json.loads(mohe("doctor", "--json", without=OWN_URLS, MOHE_HOME=str(home)).out)
        assert [one["level"] for one in found if one["check"] == "embedded server"] == ["error"]
        assert tree(home) == before
        assert other.do(lambda: works(server) or sys.exit(7)).status == 0
        assert (
            other.mohe(embedded_environment(home), "db", "stop").out
            == "The embedded PostgreSQL is stopped.\n"
        )

    def test_root_makes_no_database_in_a_home_of_another_user(
        self, other: "TestOwners.Other"
    ) -> None:
        home = other.folder / "home"
        home.mkdir()
        os.chown(home, other.uid, -1)
        with pytest.raises(
            DatabaseUnavailable, match=f"^{home} belongs to {other.name}, and this is root"
        ):
            EmbeddedServer(home=home).start()
        assert list(home.iterdir()) == []

    def test_what_an_earlier_version_took_over_is_named_with_how_to_give_it_back(
        self, other: "TestOwners.Other"
    ) -> None:
        server = EmbeddedServer(home=other.folder / "home")
        started = other.do(server.start)
        assert started.status == 0, started.err
        assert other.do(server.stop).status == 0
        embedded._account()
        shutil.chown(server.data, embedded.SERVER_ACCOUNT)
        refused = other.do(server.start)
        assert f"`sudo chown -R {other.name}: {server.data}` gives it back" in refused.err
        with pytest.raises(DatabaseUnavailable, match=f"belongs to {other.name}"):
            server.start()

    @pytest.mark.parametrize("mode", [0o711, 0o700])
    def test_a_user_is_told_of_roots_home_in_one_sentence(
        self,
        other: "TestOwners.Other",
        home: Path,
        embedded_environment: Callable[[Path], Environment],
        mode: int,
    ) -> None:
        server = EmbeddedServer(home=home)
        server.start()
        home.chmod(mode)
        before = tree(home)
        for arguments in (*LOOKING, ("db", "start"), ("db", "stop"), ("up",)):
            done = other.mohe(embedded_environment(home), *arguments)
            assert (done.status, done.out) == (1, ""), done
            assert done.err.startswith("mohe: ")
            assert done.err.count("\n") == 1, done.err
            assert "root" in done.err
        done = other.mohe(embedded_environment(home), "doctor", "--no-calls", "--json")
        assert done.status == 1, done
        assert "root" in next(
            one["found"] for one in json.loads(done.out) if one["check"] == "embedded server"
        )
        assert tree(home) == before
        home.chmod(0o711)
        assert works(server)

    def test_the_socket_of_a_long_home_goes_into_a_private_folder_and_never_through_a_link(
        self, other: "TestOwners.Other"
    ) -> None:
        runtime, victim = other.folder / "run", other.folder / "victim"

        def make(folder: Path, mode: int, *, uid: int = other.uid) -> None:
            folder.mkdir()
            folder.chmod(mode)
            os.chown(folder, uid, -1)

        def link(path: Path, target: Path) -> None:
            path.symlink_to(target)
            os.chown(path, other.uid, -1, follow_symlinks=False)

        make(runtime, 0o700)
        make(victim, 0o755)
        server = EmbeddedServer(home=other.folder / ("y" * 100) / "home")

        def start(runtime_folder: Path) -> None:
            os.environ["XDG_RUNTIME_DIR"] = str(runtime_folder)
            server.start()
            assert works(server)
            assert stat.S_IMODE(server.socket_folder.lstat().st_mode) == 0o700

        def folder_after(runtime_folder: Path) -> Path:
            done = other.do(lambda: start(runtime_folder))
            assert done.status == 0, done.err
            assert other.do(server.stop).status == 0
            return (server.home / "socket").readlink()

        first = folder_after(runtime)
        assert first.parent == runtime
        assert folder_after(other.folder) == first, (
            "the same one while it is there: URLs stay what they are"
        )
        shutil.rmtree(first)
        assert folder_after(runtime) == first, "made again after the machine was restarted"
        shutil.rmtree(first)
        link(first, victim)
        second = folder_after(runtime)
        assert second != first
        assert stat.S_IMODE(victim.stat().st_mode) == 0o755
        assert list(victim.iterdir()) == []
        # A runtime folder that is a link, open to others, or another account's is not used.
        linked, open_to_all, roots = (other.folder / name for name in ("link", "open", "roots"))
        link(linked, runtime)
        make(open_to_all, 0o777)
        make(roots, 0o700, uid=0)
        for bad in (linked, open_to_all, roots, Path("relative"), other.folder / "missing"):
            other.do((server.home / "socket").unlink)
            found = folder_after(bad)
            assert found.parent == Path(tempfile.gettempdir())
            shutil.rmtree(found)


class TestWhatIsLeft:
    @pytest.mark.parametrize("content", ["", "no number\n", "{other}\n"])
    def test_a_pid_file_that_names_no_server_of_this_folder_is_cleared_and_its_process_left_alone(
        self, home: Path, content: str
    ) -> None:
        server = EmbeddedServer(home=home)
        server.start()
        server.stop()
        account = embedded._account()
        with subprocess.Popen(["sleep", "600"], user=account, cwd="/") as innocent:  # noqa: S607
            for name in ("postmaster.pid", f"{SOCKET}.lock"):
                path = server.data / name
                path.write_text(content.format(other=innocent.pid), encoding="ascii")
                if account:
                    shutil.chown(path, account)
            assert not server.running
            assert server.stop() is False
            assert innocent.poll() is None
            server.start()
            assert works(server)
            assert innocent.poll() is None
            innocent.kill()

    def test_a_killed_server_is_started_again(self, home: Path) -> None:
        server = EmbeddedServer(home=home)
        server.start()
        killed = postmaster(server)
        killed.kill()
        psutil.wait_procs([killed], timeout=30)
        server.start()
        assert works(server)

    @pytest.mark.parametrize("which", ["home", "long_home"])
    def test_the_server_of_a_removed_home_takes_no_socket_away_from_the_new_one(
        self, request: pytest.FixtureRequest, which: str
    ) -> None:
        home: Path = request.getfixturevalue(which)
        server = EmbeddedServer(home=home)
        server.start()
        old, old_folder = postmaster(server), server.socket_folder
        shutil.rmtree(server.data)
        shutil.rmtree(home)
        assert not server.running
        server.start()
        assert postmaster(server).pid != old.pid
        old.send_signal(signal.SIGINT)  # as it does by itself within a minute: its pid file is gone
        psutil.wait_procs([old], timeout=60)
        assert server.reachable
        assert works(server)
        if which == "long_home":
            assert server.socket_folder != old_folder
            shutil.rmtree(old_folder, ignore_errors=True)

    @pytest.mark.parametrize("which", ["home", "long_home"])
    def test_a_server_that_cannot_be_reached_is_named_and_restarted(
        self, request: pytest.FixtureRequest, mohe: Mohe, which: str
    ) -> None:
        home: Path = request.getfixturevalue(which)
        server = EmbeddedServer(home=home)
        server.start()
        old = postmaster(server)
        (server.socket_folder / SOCKET).unlink()
        assert server.running
        done = mohe("status", without=OWN_URLS, MOHE_HOME=str(home))
        assert f"runs (pid {old.pid}), but takes no connections" in done.err
        found = json.loads(
            mohe("doctor", "--json", "--no-calls", without=OWN_URLS, MOHE_HOME=str(home)).out
        )
        assert next(one["level"] for one in found if one["check"] == "embedded server") == "error"
        assert mohe("db", "start", without=OWN_URLS, MOHE_HOME=str(home)).status == 0
        assert works(server)
        assert postmaster(server).pid != old.pid

    def test_a_copy_of_a_home_is_a_server_of_its_own(self, long_home: Path) -> None:
        server = EmbeddedServer(home=long_home)
        server.start()
        copied = EmbeddedServer(home=long_home.with_name("copy"))
        server.stop()
        shutil.copytree(long_home, copied.home, symlinks=True)
        for path in (copied.data, *copied.data.rglob("*")):
            if account := embedded._account():
                shutil.chown(path, account, account)
        server.start()
        copied.start()
        try:
            assert copied.socket_folder != server.socket_folder
            assert postmaster(copied).pid != postmaster(server).pid
        finally:
            _stop(copied.home)

    def test_a_failed_start_shows_its_own_lines_of_the_log(self, home: Path) -> None:
        server = EmbeddedServer(home=home)
        server.start()
        server.stop()
        with (server.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("no_such_setting = 1\n")
        with pytest.raises(DatabaseUnavailable, match="no_such_setting") as caught:
            server.start()
        assert "ready to accept connections" not in str(caught.value)


class TestEnvironment:
    def test_variables_for_servers_of_a_persons_own_do_not_reach_the_embedded_one(
        self, home: Path, mohe: Mohe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        redirecting = {
            "PGSERVICE": "elsewhere",
            "PGTZ": "Nowhere/Land",
            "PGTARGETSESSIONATTRS": "standby",
            "PGPORT": "6543",
            "PGOPTIONS": "-c no.such=1 -c work_mem=x",
            "PGREQUIREAUTH": "scram-sha-256",
        }
        done = mohe("env", without=OWN_URLS, MOHE_HOME=str(home), **redirecting)
        assert done.status == 0, done
        assert [line for line in done.out.splitlines() if line.startswith("unset")] == [
            f"unset {name}" for name in sorted(redirecting)
        ]
        assert mohe("status", without=OWN_URLS, MOHE_HOME=str(home), **redirecting).status == 0
        for name, value in {**redirecting, "PGPASSWORD": "kept"}.items():
            monkeypatch.setenv(name, value)
        with App.open(settings_module.load({"MOHE_HOME": str(home)})):
            assert not set(redirecting) & set(os.environ)
            assert os.environ["PGPASSWORD"] == "kept"

    def test_nor_the_processes_of_mohe_up(
        self, home: Path, mohe: Mohe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[Mapping[str, str]] = []

        class Noted(Supervisor):
            def run(self) -> int:
                given.append(self.environment)
                return 0

        monkeypatch.setattr(up_module, "Supervisor", Noted)
        monkeypatch.setattr(up_module, "refresh_if_empty", lambda *_: None)
        done = mohe("up", "--port", "39417", without=OWN_URLS, MOHE_HOME=str(home), PGSERVICE="x")
        assert done.status == 0, done
        assert "PGSERVICE" not in given[0]
        assert given[0]["MOHE_DATABASE_URL"] == EmbeddedServer(home=home).url()

    def test_they_stay_for_a_server_of_a_persons_own(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGOPTIONS", "-c work_mem=8MB")
        with App.open(settings_module.load({"MOHE_DATABASE_URL": database_url})):
            assert os.environ["PGOPTIONS"] == "-c work_mem=8MB"

    def test_the_server_inherits_no_key(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("NAVER_CLIENT_SECRET", "GOVT_API_KEY", "ANYTHING_ELSE"):
            monkeypatch.setenv(name, "needle-5517")
        server = EmbeddedServer(home=home)
        server.start()
        process = postmaster(server)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has just done its work
                assert "needle-5517" not in json.dumps(one.environ())
        # The shell and PostgreSQL's own programs add some.
        allowed = (*embedded.INHERITED, "LC_", "PG", "PWD", "OLDPWD", "SHLVL", "_")
        assert all(name.startswith(allowed) for name in process.environ())

    @as_root
    def test_no_account_is_made_by_looking(
        self, home: Path, database_url: str, mohe: Mohe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(embedded, "SERVER_ACCOUNT", "mohe-no-such")
        server = EmbeddedServer(home=home)
        assert server.data == home / "postgres"
        assert "requirepeer=mohe-no-such" in server.url()
        assert not server.running
        assert (
            resolve_urls(
                settings_module.load({"MOHE_HOME": str(home), "MOHE_DATABASE_URL": database_url})
            ).embedded
            is None
        )
        assert mohe("status", MOHE_HOME=str(home)).status == 0
        assert mohe("db", "dump", "--help", MOHE_HOME=str(home), PATH="/nowhere").status in (0, 1)
        for arguments in LOOKING:
            mohe(*arguments, without=OWN_URLS, MOHE_HOME=str(home))
        with pytest.raises(KeyError):
            pwd.getpwnam("mohe-no-such")
        monkeypatch.setattr(subprocess, "run", _refuse_useradd)
        with pytest.raises(
            DatabaseUnavailable, match="the account mohe-no-such cannot be made: useradd"
        ):
            server.start()


def _refuse_useradd(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    assert command[0] == "useradd"
    raise FileNotFoundError(2, "No such file or directory")


class TestLooking:
    def test_a_home_that_does_not_exist_stays_so(self, home: Path, mohe: Mohe) -> None:
        for arguments in (("status",), ("db", "url")):
            done = mohe(*arguments, without=OWN_URLS, MOHE_HOME=str(home))
            assert (done.status, done.out) == (1, "")
            nothing = f"MOHE_HOME is {home}, which has no database yet."
            assert done.err == f"mohe: {nothing} `mohe up` or `mohe db start` makes it.\n"
        plan = json.loads(mohe("plan", "--json", without=OWN_URLS, MOHE_HOME=str(home)).out)
        assert plan["base"]["calls"] == 256 * 15
        assert plan["note"].startswith(nothing)
        assert nothing in mohe("plan", without=OWN_URLS, MOHE_HOME=str(home)).out
        found = json.loads(
            mohe("doctor", "--json", "--no-calls", without=OWN_URLS, MOHE_HOME=str(home)).out
        )
        assert next(one["level"] for one in found if one["check"] == "embedded server") == "warning"
        assert not home.exists()

    def test_a_home_with_a_running_server_is_left_as_it_is(self, home: Path, mohe: Mohe) -> None:
        assert mohe("env", without=OWN_URLS, MOHE_HOME=str(home)).status == 0
        (home / "dagster" / "dagster.yaml").write_text(
            "telemetry:\n  enabled: true\n", encoding="ascii"
        )
        before = tree(home)
        for arguments in (*LOOKING, ("doctor", "--no-calls")):
            assert mohe(*arguments, without=OWN_URLS, MOHE_HOME=str(home)).status == 0, arguments
        assert tree(home) == before

    def test_a_server_that_does_not_run_is_not_started(self, home: Path, mohe: Mohe) -> None:
        server = ensure_ready(settings_module.load({"MOHE_HOME": str(home)})).embedded
        assert server is not None
        url = server.url()
        server.stop()
        before = tree(home)
        for arguments in (("status",), ("plan",)):
            done = mohe(*arguments, without=OWN_URLS, MOHE_HOME=str(home))
            assert done.status == 1
            assert done.err.endswith("is not running; `mohe up` or `mohe db start` starts it.\n")
        done = mohe("db", "url", without=OWN_URLS, MOHE_HOME=str(home))
        assert (done.status, done.out) == (0, f"{url}\n")
        assert "`mohe db start` starts it" in done.err
        assert not server.running
        assert tree(home) == before

    def test_an_old_schema_is_named_and_not_migrated(self, home: Path, mohe: Mohe) -> None:
        server = EmbeddedServer(home=home)
        server.start()
        done = mohe("status", without=OWN_URLS, MOHE_HOME=str(home))
        assert done.err.endswith("run `mohe db migrate`.\n")
        assert mohe("db", "migrate", without=OWN_URLS, MOHE_HOME=str(home)).status == 0
        assert mohe("status", without=OWN_URLS, MOHE_HOME=str(home)).status == 0


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_home_is_passable_and_its_folders_are_closed_under_any_umask(
    home: Path, mohe: Mohe, mask: int
) -> None:
    before = os.umask(mask)
    try:
        assert mohe("env", MOHE_HOME=str(home)).status == 0
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home, home / "dagster")] == [
        0o711,
        0o700,
    ]


def test_an_open_home_is_a_warning_and_stays_open(home: Path, mohe: Mohe) -> None:
    assert mohe("env", MOHE_HOME=str(home)).status == 0
    home.chmod(0o755)
    (home / "dagster").chmod(0o755)
    assert mohe("env", MOHE_HOME=str(home)).status == 0
    done = mohe("doctor", "--json", "--no-calls", MOHE_HOME=str(home))
    found = [one["advice"] for one in json.loads(done.out) if one["check"] == "MOHE_HOME"]
    for sentence in (
        f"Run `chmod 711 {home}`.",
        f"Run `chmod 700 {home / 'dagster'}`.",
    ):
        assert sentence in found
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
