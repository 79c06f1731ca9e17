"""The clients put no key into messages, tracebacks with all local variables, or logs."""

import json
import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from urllib.parse import quote, unquote

import pytest

from mohe_assets.clients.exchange import Timeouts
from mohe_assets.clients.http import LocalRateLimiter, RetryPolicy
from mohe_assets.clients.region_api import RegionApiClient
from mohe_assets.errors import ApiBlocked, ApiError, SettingsError, TransientApiError
from mohe_assets.sources.naver_local.client import CLASSIC, HUB, NaverLocalClient
from mohe_assets_tests.support.scripted_server import (
    RecordingGate,
    ScriptedServer,
    Step,
    drip,
    hang,
    head,
    raw,
    reply,
    reset,
)
from mohe_assets_tests.support.searches import no_wait, searched

DECODED = "Recognisable+Service/Key=Of=Ours=="
ENCODED = quote(DECODED, safe="")
SECRETS = ("RecognisableClientId", "RecognisableSecret")
QUICK = Timeouts(connect=0.5, read=0.1, total=0.2)


def echo(status: int, wrap: Callable[[str], str]) -> Step:
    """An error that repeats the request, headers and all, as some proxies do."""

    def step(connection: socket.socket, server: ScriptedServer) -> bool:
        return reply(wrap(server.requests[-1]).encode(), status)(connection, server)

    return step


def wrapped(text: str) -> str:
    return json.dumps({"error": {"errorCode": "777", "message": text}})


def blamed(text: str) -> str:
    line = text.splitlines()[0]
    header = {"errMsg": line, "returnAuthMsg": unquote(line), "returnReasonCode": "30"}
    return json.dumps({"OpenAPI_ServiceResponse": {"cmmMsgHeader": header}})


FAILURES: dict[str, Step] = {
    "reset": reset,
    "closed": raw(),
    "hangs": hang,
    "drips": drip(head(200, "Content-Length: 9999"), b" "),
    "broken chunks": raw(head(200, "Transfer-Encoding: chunked"), b"zz\r\n"),
    "no gzip": reply(b"{}", 200, "Content-Encoding: gzip"),
    "endless": raw(head(200), *[b" " * 1_000_000] * 7),
    "malformed headers": raw(b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n"),
    "redirect": reply(b"", 301, "Location: http://127.0.0.1:1/"),
    "blank": reply(b""),
    "server error": reply(b"", 500),
    "wrong key": reply(b"Unauthorized", 401),
    "changed": reply(b"{}"),
    "echo as text": echo(500, lambda text: "Unexpected error " + text),
    "echo as a Naver error": echo(400, wrapped),
    "echo as a portal error": echo(403, blamed),
}


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="aiohttp"):
        yield caplog


def told(error: ApiError) -> str:
    """All that a printed traceback can show, local variables of every frame included."""
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format(
        chain=True
    )
    shown = [*lines, repr(error), repr(error.args), repr(vars(error))]
    # The test's own frame holds the key because the test wrote it there.
    return "".join(line for line in shown if "test_client_keys.py" not in line)


def assert_hidden(text: str, secrets: tuple[str, ...]) -> None:
    for secret in secrets:
        assert secret.lower() not in text.lower()


@pytest.mark.parametrize("configured", [DECODED, ENCODED, ENCODED.lower(), f"  {DECODED}\n"])
@pytest.mark.parametrize("failure", FAILURES)
def test_the_service_key_is_sent_but_never_told(
    failure: str, configured: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    rate_limiter, policy = RecordingGate(), RetryPolicy(attempts=2, sleep=no_wait)
    with ScriptedServer(FAILURES[failure]) as server:
        client = RegionApiClient(
            base_url=server.url,
            service_key=configured,
            rate_limiter=rate_limiter,
            retry=policy,
            timeouts=QUICK,
        )
        with pytest.raises(ApiError) as caught:
            client.download()
    if configured != ENCODED.lower():
        assert f"ServiceKey={ENCODED} " in server.requests[0]
    output = (
        told(caught.value)
        + repr(client)
        + "".join(map(told, rate_limiter.errors))
        + everything_logged.text
    )
    assert_hidden(output, (DECODED, ENCODED, quote(DECODED), "Recognisable"))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("api_version", [CLASSIC, HUB])
@pytest.mark.parametrize("failure", FAILURES)
def test_the_search_keys_are_sent_but_never_told(
    failure: str, api_version: object, everything_logged: pytest.LogCaptureFixture
) -> None:
    policy = RetryPolicy(attempts=2, sleep=no_wait)
    with ScriptedServer(FAILURES[failure]) as server:
        client = NaverLocalClient(
            base_url=server.url,
            api_version=HUB if api_version is HUB else CLASSIC,
            client_id=SECRETS[0],
            client_secret=SECRETS[1],
            rate_limiter=LocalRateLimiter(),
            retry=policy,
            timeouts=QUICK,
        )
        with pytest.raises(ApiError) as caught:
            searched(client)
    assert all(secret in server.requests[0] for secret in SECRETS)
    assert_hidden(told(caught.value) + repr(client) + everything_logged.text, SECRETS)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_nobody_listening_tells_no_key_either(everything_logged: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    policy = RetryPolicy(attempts=2, sleep=no_wait)
    client = RegionApiClient(
        base_url=url, service_key=ENCODED, rate_limiter=LocalRateLimiter(), retry=policy
    )
    with pytest.raises(TransientApiError) as caught:
        client.download()
    assert_hidden(told(caught.value) + everything_logged.text, (DECODED, ENCODED, "Recognisable"))


def test_the_url_is_still_in_the_debug_log_without_its_key(
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    with ScriptedServer(reply(b"Unauthorized", 401)) as server, pytest.raises(ApiBlocked):
        RegionApiClient(
            base_url=server.url, service_key=DECODED, rate_limiter=LocalRateLimiter()
        ).download()
    assert "pageNo=1&numOfRows=1000&ServiceKey=***" in everything_logged.text


def test_a_retry_is_one_line_that_says_why(everything_logged: pytest.LogCaptureFixture) -> None:
    everything_logged.set_level(logging.INFO)
    policy = RetryPolicy(attempts=2, sleep=no_wait)
    with ScriptedServer(reply(b"", 500)) as server, pytest.raises(TransientApiError):
        RegionApiClient(
            base_url=server.url, service_key=DECODED, rate_limiter=LocalRateLimiter(), retry=policy
        ).download()
    lines = [
        record.getMessage()
        for record in everything_logged.records
        if record.name.startswith("mohe_assets")
    ]
    assert len(lines) == 1
    assert lines[0].startswith("region-api: HTTP 500 with a blank body; next try in ")


TWICE = quote(ENCODED, safe="")


@pytest.mark.parametrize(
    ("configured", "words"),
    [
        (f'"{DECODED}"', "quotes"),
        (f"'{ENCODED}'", "quotes"),
        (f" “{DECODED}” ", "quotes"),
        (TWICE, "more than once"),
        (f'"{TWICE}"', "more than once"),
    ],
)
def test_a_service_key_with_quotes_or_encoded_twice_is_used_with_a_sentence_that_names_it(
    configured: str, words: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    with ScriptedServer(echo(403, blamed)) as server, pytest.raises(ApiBlocked) as caught:
        RegionApiClient(
            base_url=server.url, service_key=configured, rate_limiter=LocalRateLimiter()
        ).download()
    assert f"ServiceKey={ENCODED} " in server.requests[0]
    (warning,) = (
        record.getMessage()
        for record in everything_logged.records
        if record.levelno == logging.WARNING and words in record.getMessage()
    )
    assert warning.startswith("GOVT_API_KEY ")
    output = told(caught.value) + everything_logged.text
    assert_hidden(output, (DECODED, ENCODED, TWICE, "Recognisable"))


@pytest.mark.parametrize("configured", ["''", "a key", "키", "100%", "%ZZ", "a%20b", "a%FF"])
def test_a_service_key_that_cannot_be_one_is_refused_without_being_shown(configured: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RegionApiClient(
            base_url="http://h", service_key=configured, rate_limiter=LocalRateLimiter()
        )
    assert "GOVT_API_KEY" in str(caught.value)
    assert configured not in str(caught.value)


def test_quotes_around_the_search_keys_are_not_sent(
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    with ScriptedServer(reply(b'{"total":0,"items":[]}')) as server:
        client = NaverLocalClient(
            base_url=server.url,
            api_version=HUB,
            client_id=f"'{SECRETS[0]}'",
            client_secret=f'"{SECRETS[1]}"',
            rate_limiter=LocalRateLimiter(),
        )
        searched(client)
    assert f"X-NCP-APIGW-API-KEY-ID: {SECRETS[0]}\r\n" in server.requests[0]
    assert f"X-NCP-APIGW-API-KEY: {SECRETS[1]}\r\n" in server.requests[0]
    assert "NCP_APIGW_API_KEY_ID has quotes around it" in everything_logged.text
    assert_hidden(everything_logged.text, SECRETS)
