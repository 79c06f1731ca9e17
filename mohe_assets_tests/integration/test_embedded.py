"""The embedded server: where its data lands, that no folder of others is touched, and that many may
start it.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.postgres import embedded
from mohe_assets.postgres.databases import ensure_ready
from mohe_assets.postgres.embedded import DAGSTER_DATABASE, EmbeddedServer
from mohe_assets.store.database import Database, rows

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another account")
START_AGAIN = """
import sys
from pathlib import Path
from mohe_assets.postgres.embedded import EmbeddedServer
EmbeddedServer(home=Path(sys.argv[1])).start()
"""


def modes(*paths: Path) -> dict[Path, int]:
    """Permissions of every folder above these paths."""
    return {
        folder: stat.S_IMODE(folder.stat().st_mode)
        for path in paths
        for folder in path.parents
        if folder.exists()
    }


def ask(server: EmbeddedServer, sql: str, database: str = "mohe") -> object:
    connection = Database.connect(server.url(database))
    try:
        return next(iter(connection.transaction(lambda c: rows(c, sql))[0].values()))
    finally:
        connection.close()


def watched(home: Path) -> tuple[Path, ...]:
    return (
        home / "postgres",
        Path.home() / "any",
        embedded._site_packages() / "any",
        embedded.STATE_FOLDER / "any",
    )


@pytest.fixture
def outer() -> Iterator[Path]:
    """A folder that others cannot enter, removed with what a server of root puts elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="mohe-closed-"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    yield folder
    for link in folder.rglob("postgres"):
        server = EmbeddedServer(home=link.parent)
        server.stop()
        shutil.rmtree(server.data, ignore_errors=True)
        if server.socket_folder != server.data:
            shutil.rmtree(server.socket_folder, ignore_errors=True)
    shutil.rmtree(folder)


@as_root
def test_in_a_closed_folder_the_data_goes_where_the_server_may_go_and_no_folder_is_opened(
    outer: Path,
) -> None:
    home = outer / "work" / ".mohe"
    before = modes(*watched(home))
    server = EmbeddedServer(home=home)
    assert not server.running
    assert server.stop() is False

    server.start()

    assert modes(*watched(home)).items() >= before.items()
    assert server.data.parent == embedded.STATE_FOLDER
    assert (home / "postgres").is_symlink()
    assert (home / "postgres").resolve() == server.data
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    assert server.data.owner() == embedded.SERVER_ACCOUNT
    assert ask(server, "SELECT current_setting('listen_addresses')") == ""
    assert ask(server, "SELECT current_setting('timezone')") == "Asia/Seoul"

    started = ask(server, "SELECT pg_postmaster_start_time()")
    again = subprocess.run(
        [sys.executable, "-c", START_AGAIN, str(home)], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert ask(server, "SELECT pg_postmaster_start_time()") == started, (
        "the second start found the first one's server"
    )

    assert server.stop() is True
    assert not server.running
    assert server.stop() is False
    server.start()
    assert ask(server, "SELECT count(*) FROM pg_database WHERE datname IN ('mohe', 'dagster')") == 2
    assert modes(*watched(home)).items() >= before.items()


def test_a_long_path_with_spaces_and_korean_letters_works_and_many_may_start_it_at_once(
    outer: Path,
) -> None:
    outer.chmod(0o755)
    home = outer / ("오래 걸리는 수집 " * 5).strip() / "a folder's name"
    server = EmbeddedServer(home=home)
    command = [sys.executable, "-c", START_AGAIN, str(home)]
    starters = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    problems = [starter.communicate()[1] for starter in starters]

    assert [starter.returncode for starter in starters] == [0, 0, 0], problems
    assert server.data == home / "postgres"
    assert len(str(server.data).encode()) > 107, "a socket's path could not be this long"
    assert ask(server, "SELECT current_database()", DAGSTER_DATABASE) == DAGSTER_DATABASE
    done = subprocess.run(
        [str(server.psql()), "-XAtqc", "SELECT 1", server.url()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1\n"
    assert server.stop() is True


@as_root
@pytest.mark.parametrize("closed", [True, False])
def test_a_home_made_under_a_closing_umask_is_found_where_it_was_put(
    outer: Path, monkeypatch: pytest.MonkeyPatch, *, closed: bool
) -> None:
    outer.chmod(0o755)
    (outer / "one").mkdir(mode=0o700 if closed else 0o755)
    monkeypatch.setattr(embedded, "STATE_FOLDER", outer / "state")
    settings = settings_module.load({"MOHE_HOME": str(outer / "one" / "two" / "home")})
    before = os.umask(0o077)
    try:
        urls = ensure_ready(settings)
    finally:
        os.umask(before)
    assert urls.embedded is not None
    assert urls.embedded.data.is_relative_to(outer / ("state" if closed else "one"))
    assert stat.S_IMODE((outer / "one").stat().st_mode) == (0o700 if closed else 0o755)
    with App.open(settings) as app:
        assert app.database.transaction(lambda c: rows(c, "SELECT 1 AS one")) == [{"one": 1}]
    urls.embedded.stop()


@pytest.mark.parametrize("there_is", ["a file", "nothing, in a place of no files"])
def test_a_home_that_cannot_be_a_folder_is_refused_by_its_variable(
    outer: Path, there_is: str
) -> None:
    home = outer / "home" if there_is == "a file" else Path("/proc/mohe")
    if there_is == "a file":
        home.write_text("", encoding="ascii")
    with pytest.raises(DatabaseUnavailable, match=r"^MOHE_HOME .*\.$"):
        EmbeddedServer(home=home).start()


def test_nothing_is_made_before_the_start(outer: Path) -> None:
    server = EmbeddedServer(home=outer / "home")
    assert server.url("mohe").startswith("postgresql://postgres@/mohe?host=/")
    assert not server.running
    assert not server.home.exists()
