"""Debian's nginx with deploy/proxy/nginx.conf before a real web server of Dagster's: who is let in,
and what gets through.
"""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import requests
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from mohe_assets_tests.support.ports import free_port
from mohe_assets_tests.support.processes import until

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "proxy" / "nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PERSON = ("person", "a password with ü")
GRAPHQL = {"query": "{ version }"}

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed: apt-get install nginx-light"
)


@contextmanager
def process(command: list[str], log: Path, port: int, **options: Any) -> Iterator[psutil.Process]:
    """Runs until the end of the context, once it listens."""
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, **options) as started,
    ):

        def listens() -> bool:
            assert started.poll() is None, log.read_text(encoding="utf-8")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            until(listens, f"{command[0]} listens")
            yield psutil.Process(started.pid)
        finally:
            started.terminate()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of the web server, as `mohe up` starts it."""
    folder, port = tmp_path_factory.mktemp("web"), free_port()
    command = [sys.executable, "-m", "mohe_assets.defs.runtime.web_server", "--empty-workspace"]
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("DAGSTER_", "MOHE_"))}
    with process(
        [*command, "-h", "127.0.0.1", "-p", str(port)],
        folder / "web.log",
        port,
        cwd=folder,
        env={**plain, "DAGSTER_HOME": str(folder)},
    ):
        yield port


@contextmanager
def nginx_before(behind: int, folder: Path) -> Iterator[str]:
    """The proxy's host and port; the shipped configuration with this machine's names in it."""
    front = free_port()
    command = ["openssl", "passwd", "-6", PERSON[1]]
    hashed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (folder / "htpasswd").write_text(f"{PERSON[0]}:{hashed}", encoding="utf-8")
    text = CONFIGURATION.read_text(encoding="utf-8")
    for packaged_file, here in (
        ("/etc/nginx/htpasswd", f"{folder}/htpasswd"),
        ("listen 8080", f"listen 127.0.0.1:{front}"),
        ("mohe-webserver:3000", f"127.0.0.1:{behind}"),
        ("/tmp/nginx", f"{folder}/nginx"),  # noqa: S108 - the container's
    ):
        assert packaged_file in text
        text = text.replace(packaged_file, here)
    if os.geteuid() == 0:
        # In the container it is no root; here its worker has to be us, to read the test's folder.
        text = f"user root;\n{text}"
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    options = ["-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx.log", "-g", "daemon off;"]
    with process([str(NGINX), *options], folder / "proxy.log", front):
        yield f"127.0.0.1:{front}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the proxy; its access log is proxy.log."""
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def proxy(behind: int, folder: Path) -> Iterator[str]:
    """The proxy's host and port."""
    with nginx_before(behind, folder) as proxy:
        yield proxy


@pytest.fixture
def ask(proxy: str) -> Iterator[Callable[..., requests.Response]]:
    """Sends a request to the proxy; nothing of the machine's own proxies stands in between."""
    with requests.Session() as session:
        session.trust_env = False

        def send(method: str, path: str, **options: Any) -> requests.Response:
            return session.request(method, f"http://{proxy}{path}", timeout=30, **options)

        yield send


Ask = Callable[..., requests.Response]
UTF8 = tuple(one.encode() for one in PERSON)


@pytest.mark.parametrize("auth", [None, ("person", "wrong"), ("nobody", PERSON[1])])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("POST", "/graphql"), ("GET", "/server_info"), ("GET", "/runs/x")],
)
def test_nobody_gets_in_without_the_password(
    ask: Ask, method: str, path: str, auth: tuple[str, str] | None
) -> None:
    encoded = tuple(one.encode() for one in auth) if auth else None
    answer = ask(method, path, auth=encoded, json=GRAPHQL if method == "POST" else None)
    assert answer.status_code == 401
    assert "Basic" in answer.headers["WWW-Authenticate"]
    assert "dagster" not in answer.text.lower()


def test_with_the_password_the_page_and_its_questions_get_through_and_nothing_is_kept(
    ask: Ask,
) -> None:
    page = ask("GET", "/", auth=UTF8)
    assert (page.status_code, page.headers["Cache-Control"].count("no-cache")) == (200, 1)
    assert "<html" in page.text
    answer = ask("POST", "/graphql", auth=UTF8, json=GRAPHQL)
    assert answer.json()["data"]["version"]
    assert "no-cache" in answer.headers["Cache-Control"]


WRITING = (
    "/graphql",
    "/report_asset_materialization/places",
    "/report_asset_observation/places",
    "/report_asset_check/places",
)


@pytest.mark.parametrize("path", WRITING)
def test_another_site_cannot_use_the_password_that_a_browser_remembers(
    ask: Ask, proxy: str, path: str
) -> None:
    own = {"Origin": f"http://{proxy}", "Sec-Fetch-Site": "same-origin"}
    if path == "/graphql":
        assert ask("POST", f"{path}?op=x", auth=UTF8, json=GRAPHQL, headers=own).status_code == 200
    for foreign in (
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": f"http://{proxy}.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert ask("POST", path, auth=UTF8, json=GRAPHQL, headers=foreign).status_code == 403
        assert ask("OPTIONS", path, auth=UTF8, headers=foreign).status_code == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"):
        headers = {"Content-Type": kind}
        assert ask("POST", path, auth=UTF8, data="{}", headers=headers).status_code == 415
    assert ask("POST", path, auth=UTF8).status_code == 415, "without a body, too"


def test_nothing_is_executed_by_a_link(ask: Ask) -> None:
    answer = ask("GET", "/graphql?query={version}", auth=UTF8)
    assert (answer.status_code, "Nothing is executed by GET" in answer.text) == (405, True)
    for foreign in ({"Origin": "http://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert ask("GET", "/graphql", auth=UTF8, headers=foreign).status_code == 403
    page = ask("GET", "/graphql", auth=UTF8, headers={"Accept": "text/html"})
    assert (page.status_code, "GraphiQL" in page.text) == (200, True)
    assert (
        ask("GET", "/runs/x", auth=UTF8, headers={"Sec-Fetch-Site": "cross-site"}).status_code
        == 200
    )


def test_the_access_log_has_the_persons_name(ask: Ask, folder: Path) -> None:
    ask("POST", "/graphql?op=NameNeedle", auth=UTF8, json=GRAPHQL)
    ask("POST", "/graphql", auth=("stranger", "x"), json=GRAPHQL)

    def lines() -> list[str]:
        return (folder / "proxy.log").read_text(encoding="utf-8").splitlines()

    until(
        lambda: any('127.0.0.1 "stranger" "POST /graphql" 401' in line for line in lines()), "401"
    )
    assert any(f'127.0.0.1 "{PERSON[0]}" "POST /graphql" 200' in line for line in lines())


def test_passwords_cannot_be_guessed_at_any_rate(behind: int, tmp_path: Path) -> None:
    with nginx_before(behind, tmp_path) as proxy, requests.Session() as session:
        session.trust_env = False

        def guess(number: int) -> int:
            auth = (PERSON[0], f"guess {number}")
            return session.get(f"http://{proxy}/", auth=auth, timeout=30).status_code

        begun = time.monotonic()
        statuses = [guess(number) for number in range(400)]
        allowed = 200 + 1 + 10 * (time.monotonic() - begun)
        assert set(statuses) == {401, 429}
        assert statuses.count(401) <= allowed + 1
        assert session.get(f"http://{proxy}/", timeout=30).status_code == 401, "no attempt"


def test_a_subscription_goes_through_its_websocket_with_the_password_only(proxy: str) -> None:
    missing_run = 'subscription { pipelineRunLogs(runId: "none") { __typename } }'

    async def subscribe(**headers: str) -> dict[str, Any]:
        protocol = [Subprotocol("graphql-ws")]
        async with connect(
            f"ws://{proxy}/graphql", subprotocols=protocol, additional_headers=headers, proxy=None
        ) as web_socket:
            await web_socket.send(json.dumps({"type": "connection_init", "payload": {}}))
            await web_socket.send(
                json.dumps({"id": "1", "type": "start", "payload": {"query": missing_run}})
            )
            async with asyncio.timeout(30):
                async for message in web_socket:
                    answer = json.loads(message)
                    if answer["type"] == "data":
                        return cast("dict[str, Any]", answer["payload"]["data"])
        raise AssertionError("the subscription ended without an answer")

    credentials = base64.b64encode(b":".join(UTF8)).decode()
    found = asyncio.run(subscribe(Authorization=f"Basic {credentials}"))
    assert found == {"pipelineRunLogs": {"__typename": "PipelineRunLogsSubscriptionFailure"}}
    own = {"Authorization": f"Basic {credentials}", "Origin": f"http://{proxy}"}
    assert asyncio.run(subscribe(**own)) == found
    for headers, status in (({}, 401), ({**own, "Origin": "http://elsewhere.example"}, 403)):
        with pytest.raises(InvalidStatus) as refused:
            asyncio.run(subscribe(**headers))
        assert refused.value.response.status_code == status


def test_the_platforms_services_and_the_proxys_fit_together() -> None:
    """Of the overriding file: the service it stands before is the one that the main file has, and
    no port is opened to all.
    """
    folder = CONFIGURATION.parent
    main = yaml.safe_load((folder.parents[1] / "docker-compose.yml").read_text(encoding="utf-8"))
    proxy = yaml.safe_load((folder / "docker-compose.yml").read_text(encoding="utf-8"))["services"][
        "proxy"
    ]
    assert "3000" in main["services"]["webserver"]["command"]
    assert proxy["depends_on"] == ["webserver"]
    assert proxy["ports"] == ["${MOHE_PROXY_ADDRESS:-127.0.0.1}:${MOHE_PROXY_PORT:-8080}:8080"]
    mounted = {one.split(":")[0] for one in proxy["volumes"]}
    assert mounted == {"./deploy/proxy/nginx.conf", "./deploy/proxy/htpasswd"}
