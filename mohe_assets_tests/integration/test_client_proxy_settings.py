"""The clients take proxies and certificates from the environment, and nothing else."""

import asyncio
import socket
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from mohe_assets.clients.http import LocalRateLimiter, RetryPolicy
from mohe_assets.errors import TransientApiError
from mohe_assets.sources.naver_local.client import CLASSIC, NaverLocalClient
from mohe_assets.sources.naver_local.plan import Sort
from mohe_assets_tests.support.scripted_server import ScriptedServer, Step, reply
from mohe_assets_tests.support.searches import searched

FOUND = b'{"total":0,"items":[]}'
HOST = (
    "api.invalid"  # a name that never resolves: who is answered under it was answered by the proxy
)
VARIABLES = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "requests_ca_bundle",
    "curl_ca_bundle",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def proxy() -> Iterator[ScriptedServer]:
    with ScriptedServer(reply(FOUND)) as server:
        yield server


def client(base_url: str) -> NaverLocalClient:
    policy = RetryPolicy(attempts=1)
    return NaverLocalClient(
        base_url=base_url,
        api_version=CLASSIC,
        client_id="an-identifier",
        client_secret="a-secret",
        rate_limiter=LocalRateLimiter(),
        retry=policy,
    )


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used(
    variable: str, proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy.url)
    assert searched(client(f"http://{HOST}"), "카페 & 식당").calls == 1
    query = "query=%EC%B9%B4%ED%8E%98+%26+%EC%8B%9D%EB%8B%B9&display=5&start=1&sort=random"
    assert proxy.requests[0].startswith(
        f"GET http://{HOST}/v1/search/local.json?{query} HTTP/1.1\r\n"
    )
    assert "X-Naver-Client-Secret: a-secret" in proxy.requests[0]
    assert "uthorization" not in proxy.requests[0]


def test_a_proxy_may_be_named_without_a_scheme_and_with_a_password(
    proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "a%40b:p%3Aw@"))
    searched(client(f"http://{HOST}"))
    assert f"Proxy-Authorization: Basic {b64encode(b'a@b:p:w').decode()}\r\n" in proxy.requests[0]


def test_a_proxy_has_no_part_in_hosts_that_are_excepted_and_in_this_machine(
    proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "other.example,.invalid")
    with pytest.raises(TransientApiError, match="the connection failed"):
        searched(client(f"http://{HOST}"))
    with ScriptedServer(reply(FOUND)) as server:
        searched(client(server.url))
        assert len(server.requests) == 1
    assert proxy.requests == []


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_proxy_that_does_not_work_is_said_to_be_one(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"http://a-person:a-password@127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("ALL_PROXY", gone)
    with pytest.raises(TransientApiError, match="the proxy refused") as caught:
        searched(client(f"{scheme}://{HOST}"))
    assert "a-password" not in str(caught.value)


def test_a_proxy_that_refuses_a_tunnel_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(reply(b"who are you?", 407)) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        with pytest.raises(TransientApiError, match="the proxy refused"):
            searched(client(f"https://{HOST}"))
    assert server.requests[0].startswith(f"CONNECT {HOST}:443 ")
    assert "a-secret" not in server.requests[0]


@pytest.mark.parametrize(
    "named",
    [
        "socks5://a:a-password@127.0.0.1:1",
        "http://a:a-password@[::1",
        "http://a:a-password@h:99999",
    ],
)
def test_a_proxy_that_cannot_be_used_is_a_failure(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", named)
    with pytest.raises(TransientApiError, match="not one for HTTP") as caught:
        searched(client(f"http://{HOST}"))
    assert caught.value.__context__ is None


def test_a_netrc_adds_nothing(
    proxy: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text(
        f"machine {HOST} login somebody password something\ndefault login x password y\n"
    )
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    searched(client(f"http://{HOST}"))
    assert "uthorization" not in proxy.requests[0]


def openssl(folder: Path, *arguments: str) -> str:
    command = ["openssl", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a self-signed certificate and key of a server named HOST."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "settings").write_text(
        "[req]\ndistinguished_name=name\nx509_extensions=more\nprompt=no\n"
        f"[name]\nCN={HOST}\n[more]\nsubjectAltName=DNS:{HOST}\nbasicConstraints=critical,CA:TRUE\n"
    )
    new = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -config settings -keyout both.pem -out "
        "certificate.pem"
    )
    openssl(folder, *new.split())
    with (folder / "both.pem").open("a") as both:
        both.write((folder / "certificate.pem").read_text())
    hashed = openssl(folder, "x509", "-hash", "-noout", "-in", "certificate.pem")
    (folder / "hashed").mkdir()
    (folder / "hashed" / f"{hashed.strip()}.0").write_text((folder / "certificate.pem").read_text())
    return folder


def tunnel(folder: Path) -> Step:
    """A proxy that opens a tunnel, and is the server at its end, too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "both.pem")

    def step(connection: socket.socket, server: ScriptedServer) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with context.wrap_socket(connection, server_side=True) as secure:
            while request := server._request(secure):
                server.requests.append(request)
                reply(FOUND)(secure, server)
        return False

    return step


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("REQUESTS_CA_BUNDLE", "certificate.pem"),
        ("REQUESTS_CA_BUNDLE", "hashed"),
        ("CURL_CA_BUNDLE", "certificate.pem"),
        ("SSL_CERT_FILE", "certificate.pem"),
        ("SSL_CERT_DIR", "hashed"),
    ],
)
def test_a_certificate_that_the_environment_names_is_trusted(
    variable: str, named: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        variable if named != "hashed" else variable.replace("SSL_CERT_FILE", "SSL_CERT_DIR"),
        str(certificate / named),
    )
    with ScriptedServer(tunnel(certificate)) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        assert searched(client(f"https://{HOST}")).calls == 1
    assert server.requests[1].startswith("GET /v1/search/local.json?query=")


def test_a_secure_connection_is_kept_for_many_searches(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "certificate.pem"))

    async def search_three_times() -> list[int]:
        async with client(f"https://{HOST}") as one:
            return [(await one.search("카페", sort=Sort.ACCURACY)).calls for _ in range(3)]

    with ScriptedServer(tunnel(certificate)) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        assert asyncio.run(search_three_times()) == [1, 1, 1]
    assert server.connections == 1


def test_other_certificates_are_not_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(tunnel(certificate)) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        with pytest.raises(TransientApiError, match="no secure connection"):
            searched(client(f"https://{HOST}"))
    assert len(server.requests) == 1


def test_a_bundle_that_is_missing_is_a_failure_and_not_a_connection_without_one(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "missing.pem"))
    with ScriptedServer(tunnel(certificate)) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        with pytest.raises(TransientApiError):
            searched(client(f"https://{HOST}"))
    assert server.requests == []


def test_a_command_that_makes_no_call_does_not_load_what_makes_them() -> None:
    look = "import sys, mohe_assets.cli.status; print({'aiohttp', 'requests'} & sys.modules.keys())"
    assert (
        subprocess.run(
            [sys.executable, "-c", look], check=True, capture_output=True, text=True
        ).stdout
        == "set()\n"
    )
