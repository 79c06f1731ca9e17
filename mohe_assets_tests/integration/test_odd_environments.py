"""`mohe` where a shell is unlike that of its authors: each case runs a short flow of commands."""

import json
import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mohe_assets.cli import up
from mohe_assets.cli.demo_environment import demo_settings
from mohe_assets.errors import SettingsError
from mohe_assets.postgres.embedded import SOCKET, EmbeddedServer

BIN = Path(sys.executable).parent
# As cron has it: nothing but this.
BARE = {"PATH": "/usr/bin:/bin"}
DEAD_PROXY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that another account can enter, so that root's server works in it."""
    found = Path(tempfile.mkdtemp(prefix="mohe-odd-"))
    found.chmod(0o755)
    yield found
    for home in [path.parent for path in found.rglob("postgres.lock")]:
        server = EmbeddedServer(home=home)
        server.stop()
        if server.socket_folder != server.data:
            shutil.rmtree(server.socket_folder, ignore_errors=True)
        shutil.rmtree(server.data, ignore_errors=True)
    shutil.rmtree(found)


def run(
    folder: Path,
    *command: str,
    environment: dict[str, str],
    prepare: Callable[[], object] | None = None,
) -> str:
    """What a command prints, which has to end well and without a traceback."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=prepare,
        check=False,
    )
    told = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, told
    assert "Traceback" not in told
    return done.stdout.decode()


def flow(
    folder: Path, environment: dict[str, str], prepare: Callable[[], object] | None = None
) -> EmbeddedServer:
    """Start the server, look, and let a shell take the lines of `mohe env` for a `dagster`."""

    def mohe(*arguments: str) -> str:
        return run(folder, str(BIN / "mohe"), *arguments, environment=environment, prepare=prepare)

    assert "runs in" in mohe("db", "start")
    progress = json.loads(mohe("status", "--json"))["progress"]
    assert progress["total"] == 0
    script = 'eval "$1" && dagster instance info && echo "$MOHE_HOME"'
    told = run(
        folder, "/bin/sh", "-c", script, "sh", mohe("env"), environment=environment, prepare=prepare
    )
    assert "PostgresRunStorage" in told
    home = Path(told.splitlines()[-1])
    assert home.is_relative_to(folder)
    return EmbeddedServer(home=home)


@pytest.fixture(scope="module")
def usual(folder: Path) -> Path:
    """A folder with a home that works."""
    run(folder, str(BIN / "mohe"), "db", "start", environment=BARE)
    return folder


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HOME": "/nonexistent", "TERM": "dumb", "LANG": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
        {"HTTP_PROXY": DEAD_PROXY, "HTTPS_PROXY": DEAD_PROXY, "ALL_PROXY": DEAD_PROXY},
    ],
    ids=["cron", "no home, dumb terminal", "POSIX", "proxies"],
)
def test_it_works_with_an_environment_of(usual: Path, environment: dict[str, str]) -> None:
    flow(usual, BARE | environment)


def test_it_works_in_a_path_with_spaces_and_hangul(folder: Path) -> None:
    there = folder / "내 문서 & 'more'"
    there.mkdir()
    assert flow(there, BARE | {"LANG": "C"}).home == there / ".mohe"


def test_it_works_where_the_sockets_path_would_be_too_long(folder: Path) -> None:
    there = folder / ("긴" * 40)
    there.mkdir()
    server = flow(there, BARE)
    assert len(os.fsencode(server.home / "postgres" / SOCKET)) > 107
    assert server.socket_folder != server.data


def test_it_works_with_a_umask_of_077(folder: Path) -> None:
    there = folder / "closed"
    there.mkdir()
    server = flow(there, BARE, prepare=lambda: os.umask(0o077))
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (server.home / "dagster", server.data)
    }
    assert modes == {"dagster": 0o700, server.data.name: 0o700}


def test_another_dagster_on_the_path_is_not_the_one_that_runs(usual: Path) -> None:
    other = usual / "other" / "dagster"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho other\n", encoding="utf-8")
    other.chmod(0o755)
    path = f"{other.parent}:/usr/bin:/bin"
    printed = run(usual, str(BIN / "mohe"), "env", environment={"PATH": path})
    for lines in (printed, f"{printed}\n{printed}"):
        told = run(
            usual, "/bin/sh", "-c", f'eval {shlex.quote(lines)}; command -v dagster; echo "$PATH"',
            environment={"PATH": path},
        )  # fmt: skip
        assert told.splitlines() == [str(BIN / "dagster"), f"{BIN}:{path}"]
    # And where ours is there, but not in front.
    again = run(usual, str(BIN / "mohe"), "env", environment={"PATH": f"{path}:{BIN}"})
    assert f"export PATH={BIN}:{path}\n" in again


def test_no_proxy_leads_to_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, DEAD_PROXY)
    with demo_settings(calls_per_second=1, latency_ms=0) as variables:
        code = "import requests, sys; print(requests.get(sys.argv[1] + '/nothing').status_code)"
        told = subprocess.run(
            [sys.executable, "-c", code, variables["MOHE_NAVER_API_URL"]],
            env=variables, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert told.stdout == "404\n"


def test_the_page_can_be_served_where_localhost_is_an_ipv6_address() -> None:
    with socket.socket(socket.AF_INET6) as taken:
        try:
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"^::1 port {port} cannot be used"):
            up._refuse_used_port("::1", port)
    up._refuse_used_port("::1", port)
    assert up._page("::1", 3000) == "http://[::1]:3000"
    with pytest.raises(SettingsError, match=r"^--host is 'no\.such\.host\.invalid', which is no"):
        up._refuse_used_port("no.such.host.invalid", 3000)
