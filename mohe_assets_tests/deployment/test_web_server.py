"""The web server over real sockets: requests that other sites make a browser send are refused.

They are written by hand, because no library sends such headers.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dagster_graphql import DagsterGraphQLClient

from mohe_assets import settings
from mohe_assets.defs.runtime.web_server import reachable_as
from mohe_assets.errors import SettingsError
from mohe_assets_tests.support.processes import until

QUERY = json.dumps({"query": "{ version }"})
MUTATION = "mutation%7BsetNuxSeen%7D"
JSON = {"Content-Type": "application/json"}
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "graphql-ws",
}
WRITING = (
    "/graphql",
    "/report_asset_materialization/places",
    "/report_asset_observation/places",
    "/report_asset_check/places",
)
Headers = dict[str, str]


class Server:
    """The web server on its port."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def send(
        self, method: str, path: str, headers: Headers, body: str = "", host: str | None = None
    ) -> tuple[int, str]:
        """Return the status and everything that follows it."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or self.host}"]
        if body:
            lines.append(f"Content-Length: {len(body.encode())}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if "Connection" not in headers:
            lines.append("Connection: close")
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall("\r\n".join([*lines, "", body]).encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
                if answer.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in answer:
                    break
        return int(answer.split()[1]), answer.decode(errors="replace")

    def post(self, headers: Headers, path: str = "/graphql", host: str | None = None) -> int:
        return self.send("POST", path, {**JSON, **headers}, QUERY, host)[0]


@contextmanager
def serving(folder: Path, *arguments: str, **variables: str) -> Iterator[Server]:
    """Run the entry that `mohe up`, containers and the chart start, without a code server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = Server(int(probe.getsockname()[1]))
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("DAGSTER_", "MOHE_"))}
    command = [sys.executable, "-m", "mohe_assets.defs.runtime.web_server", "--empty-workspace"]
    log = folder / f"{server.port}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, "-p", str(server.port), *arguments],
            env={**plain, "DAGSTER_HOME": str(folder), **variables},
            cwd=folder,
            stdout=output,
            stderr=output,
        ) as started,
    ):

        def listens() -> bool:
            assert started.poll() is None, log.read_text(encoding="utf-8")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", server.port)) == 0

        try:
            until(listens, "the web server listens")
            yield server
        finally:
            started.terminate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As in a container behind a proxy, with a path prefix."""
    folder = tmp_path_factory.mktemp("open")
    with serving(folder, "-h", "0.0.0.0", "-l", "/page") as server:  # noqa: S104 - as containers
        yield server


def test_clients_without_origin_are_served(server: Server) -> None:
    assert server.post({}) == 200
    assert server.post({"Content-Type": "application/json; charset=utf-8"}) == 200
    assert server.post({"Sec-Fetch-Site": "none"}) == 200
    client = DagsterGraphQLClient("127.0.0.1", port_number=server.port)
    assert client._execute("{ version }")["version"]


def test_the_pages_own_requests_are_served(server: Server) -> None:
    for name in ("127.0.0.1", "localhost", "LOCALHOST"):
        host = f"{name}:{server.port}"
        own = {"Origin": f"http://{host.lower()}", "Sec-Fetch-Site": "same-origin"}
        assert server.post(own, path="/graphql?op=VersionQuery", host=host) == 200
    status, page = server.send("GET", "/runs/x", {"Sec-Fetch-Site": "cross-site"})
    assert (status, "<html" in page) == (200, True), "a link from another page"
    assert "frame-ancestors 'self'" in page, "and not in a frame of it"
    status, page = server.send("GET", "/graphql", {"Accept": "text/html"})
    assert (status, "GraphiQL" in page) == (200, True)


@pytest.mark.parametrize("path", WRITING)
@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "file://"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_what_a_page_of_another_site_sends_is_refused(
    server: Server, path: str, foreign: Headers
) -> None:
    status, answer = server.send("POST", path, {**JSON, **foreign}, QUERY)
    assert status == 403
    assert "The request comes from a page of " in answer
    assert server.send("OPTIONS", path, foreign)[0] == 403, "the browser asks before it sends JSON"


@pytest.mark.parametrize("accept", ["*/*", "image/*", "text/html"])
def test_nothing_is_executed_by_get(server: Server, accept: str) -> None:
    for query in (f"query={MUTATION}", "query=%7Bversion%7D", "variables=%7B%7D", "x"):
        status, answer = server.send("GET", f"/graphql?{query}", {"Accept": accept})
        assert (status, "Nothing is executed by GET" in answer) == (405, True), query
    assert server.send("HEAD", f"/graphql?query={MUTATION}", {})[0] == 405


@pytest.mark.parametrize("path", WRITING)
@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain; application/json",
        "application/graphql",
        "application/jsonp",
        None,
    ],
)
def test_only_json_is_accepted(server: Server, path: str, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    status, answer = server.send("POST", f"{path}?query={MUTATION}", headers, QUERY)
    assert status == 415
    assert "application/json" in answer


def test_on_loopback_another_name_of_the_machine_is_refused(server: Server) -> None:
    foreign = "elsewhere.example"
    for host in (foreign, f"{foreign}:{server.port}", "127.0.0.1.example", "a@b"):
        for path in ("/", "/runs", "/graphql", "/logs/x.out", "/download_debug/x"):
            status, answer = server.send("GET", path, {}, host=host)
            assert (status, "MOHE_WEB_HOSTS" in answer) == (403, True)
        assert server.post({"Origin": f"http://{host}"}, host=host) == 403
        assert server.send("GET", "/graphql", UPGRADE, host=host)[0] == 403


def test_a_websocket_opens_for_the_own_page_and_for_clients_without_origin(server: Server) -> None:
    own = {"Origin": f"http://{server.host}", "Sec-Fetch-Site": "same-origin"}
    assert server.send("GET", "/graphql", {**UPGRADE, **own})[0] == 101
    assert server.send("GET", "/graphql", UPGRADE)[0] == 101


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_websocket_of_another_site_is_refused(server: Server, foreign: Headers) -> None:
    status, answer = server.send("GET", "/graphql", {**UPGRADE, **foreign})
    assert (status, "comes from a page of" in answer) == (403, True)


def test_behind_a_proxy_the_browsers_host_and_origin_are_compared(open_server: Server) -> None:
    for host, origin in (
        ("places.example", "https://places.example"),
        ("places.example:8443", "https://places.example:8443"),
        ("places.example:443", "https://places.example"),
        ("places.example:80", "http://places.example"),
    ):
        own = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        assert open_server.post(own, path="/page/graphql", host=host) == 200
        assert open_server.send("GET", "/page/graphql", {**UPGRADE, **own}, host=host)[0] == 101
    other = {"Origin": "https://elsewhere.example"}
    assert open_server.post(other, path="/page/graphql", host="places.example") == 403
    assert open_server.send("GET", "/page/graphql", {**UPGRADE, **other})[0] == 403
    assert open_server.send("GET", f"/page/graphql?query={MUTATION}", {})[0] == 405


def test_configured_hosts_are_those_of_a_proxy(tmp_path: Path) -> None:
    hosts = "places.example, Other.example:8443"
    own = {"Origin": "https://places.example", "Sec-Fetch-Site": "same-origin"}
    with serving(tmp_path, MOHE_WEB_HOSTS=hosts) as server:
        assert server.post(own, host="places.example") == 200
        assert server.post(own) == 200, "the proxy hands on a Host of its own"
        assert server.post({"Origin": "https://other.example:8443"}) == 200
        assert server.post({"Origin": "https://other.example"}) == 403
        assert server.post({}, host="elsewhere.example") == 403


def test_where_others_reach_it_names_are_checked_once_some_are_configured() -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - as in containers
    assert reachable_as(everywhere, ())("elsewhere.example")
    configured = reachable_as(everywhere, ("a.example",))
    for host in ("a.example:80", "10.0.0.5:3000", "[fe80::1]:3000", "localhost:3000"):
        assert configured(host)
    assert not configured("elsewhere.example")
    loopback = reachable_as("127.0.0.1", ())
    assert [loopback(one) for one in ("[::1]:3000", "localhost", "10.0.0.5")] == [True, True, False]
    assert reachable_as("::1", ("*",))("elsewhere.example")


def test_a_host_that_is_none_is_refused_with_a_sentence() -> None:
    with pytest.raises(
        SettingsError, match=r"^MOHE_WEB_HOSTS is 'http://a.example'; it has to be "
    ):
        settings.load({"MOHE_WEB_HOSTS": "http://a.example"})
