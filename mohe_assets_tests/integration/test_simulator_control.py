"""The simulator's control endpoint: its faults, counters, clock and process behave as promised."""

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator, running

KEYS = {"X-Naver-Client-Id": "demo-client-id", "X-Naver-Client-Secret": "demo-client-secret"}
HUB_KEYS = {"X-NCP-APIGW-API-KEY-ID": "demo-hub-key-id", "X-NCP-APIGW-API-KEY": "demo-hub-key"}
QUERY = "울산광역시 남구 카페"
SIMULATE = "import typer; from mohe_assets.cli.simulate import simulate; typer.run(simulate)"


@pytest.fixture(scope="module")
def process() -> Iterator[Simulator]:
    with running(SimulatorConfig(calls_per_second=None, daily_quota=None)) as simulator:
        yield simulator


@pytest.fixture
def simulator(process: Simulator) -> Simulator:
    process.reset()
    process.configure(calls_per_second=None, daily_quota=None, latency_ms=0)
    return process


def search(simulator: Simulator, query: str = QUERY, **parameters: Any) -> requests.Response:
    asked = {"query": query, "display": 5, **parameters}
    return requests.get(
        f"{simulator.url}/v1/search/local.json", params=asked, headers=KEYS, timeout=10
    )


def hub(simulator: Simulator) -> requests.Response:
    return requests.get(
        f"{simulator.url}/search/v1/local", params={"query": QUERY}, headers=HUB_KEYS, timeout=10
    )


def fault(name: str, **rule: Any) -> dict[str, Any]:
    return {"api": "naver", "fault": name, **rule}


def counts(simulator: Simulator) -> dict[str, int]:
    naver = simulator.stats()["naver"]
    return {name: value for name, value in naver.items() if isinstance(value, int) and value}


def test_every_call_is_counted_by_what_became_of_it(simulator: Simulator) -> None:
    simulator.configure(calls_per_second=2)
    search(simulator)
    search(simulator, sort="comment")
    search(simulator)
    simulator.configure(calls_per_second=None, daily_quota=2)
    search(simulator)
    simulator.configure(daily_quota=None)
    requests.get(f"{simulator.url}/v1/search/local.json", params={"query": QUERY}, timeout=10)
    search(simulator, display=9)
    simulator.add_faults([fault("blank")])
    search(simulator)
    assert counts(simulator) == {
        "received": 7,
        "answered": 2,
        "refused_rate": 1,
        "refused_quota": 1,
        "refused_auth": 1,
        "bad_request": 1,
        "faulted": 1,
    }


def test_answers_are_counted_by_search(simulator: Simulator) -> None:
    for sort in ("random", "random", "comment"):
        search(simulator, sort=sort)
    assert simulator.stats()["naver"]["answers_per_search"] == {
        f"{QUERY}|random": 2,
        f"{QUERY}|comment": 1,
    }
    assert "answers_per_search" not in simulator.stats(brief=True)["naver"]


def test_the_moments_of_answers_are_kept(simulator: Simulator) -> None:
    before = time.time()
    for _ in range(3):
        search(simulator)
    stats = simulator.stats(moments=True)["naver"]
    assert len(stats["answered_at"]) == 3
    assert stats["first_answered"]["monotonic"] == stats["answered_at"][0]
    assert (
        before <= stats["first_answered"]["wall"] <= stats["last_answered"]["wall"] <= time.time()
    )


def test_reset_forgets_counters_and_faults(simulator: Simulator) -> None:
    simulator.add_faults([fault("blank")])
    search(simulator)
    simulator.reset()
    assert counts(simulator) == {}
    assert simulator.faults() == []


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("rate", 429, "012"),
        ("quota", 429, "010"),
        ("auth", 401, "024"),
        ("system_error", 500, "SE99"),
        ("bad_query", 400, "SE01"),
        ("not_found", 404, "SE05"),
    ],
)
def test_a_scripted_refusal_has_the_classic_shape(
    simulator: Simulator, name: str, status: int, code: str
) -> None:
    simulator.add_faults([fault(name)])
    answer = search(simulator)
    assert (answer.status_code, answer.json()["errorCode"]) == (status, code)


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("quota", 429, "400"),
        ("auth", 401, "200"),
        ("unavailable", 503, "500"),
        ("gateway_timeout", 504, "510"),
    ],
)
def test_a_scripted_refusal_of_the_hub_is_wrapped(
    simulator: Simulator, name: str, status: int, code: str
) -> None:
    simulator.add_faults([fault(name)])
    answer = hub(simulator)
    assert (answer.status_code, answer.json()["error"]["errorCode"]) == (status, code)


def test_any_status_and_body_can_be_scripted(simulator: Simulator) -> None:
    simulator.add_faults(
        [fault("status", status=502, body="<h1>Bad Gateway</h1>", content_type="text/html")]
    )
    answer = search(simulator)
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (
        502,
        "<h1>Bad Gateway</h1>",
        "text/html",
    )


def test_bodies_can_be_blank_html_cut_off_or_of_another_shape(simulator: Simulator) -> None:
    simulator.add_faults(
        [fault(name, times=1) for name in ("blank", "html", "garbage", "wrong_shape")]
    )
    blank, page, cut_off, other = (search(simulator) for _ in range(4))
    assert {answer.status_code for answer in (blank, page, cut_off, other)} == {200}
    assert blank.content == b""
    assert page.text.startswith("<!DOCTYPE html>")
    assert cut_off.text.startswith('{"lastBuildDate"')
    with pytest.raises(requests.JSONDecodeError):
        cut_off.json()
    assert "items" not in other.json()


def test_a_reset_is_a_tcp_reset(simulator: Simulator) -> None:
    simulator.add_faults([fault("reset", times=1)])
    address = urlsplit(simulator.url)
    with socket.create_connection(
        (str(address.hostname), int(address.port or 0)), timeout=5
    ) as connection:
        headers = "".join(f"{name}: {value}\r\n" for name, value in KEYS.items())
        connection.sendall(
            f"GET /v1/search/local.json?query=x HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()
        )
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert search(simulator).status_code == 200


def test_a_hanging_call_never_gets_an_answer_and_holds_up_nobody(simulator: Simulator) -> None:
    simulator.add_faults([fault("hang", seconds=30, times=1)])
    asked = {"query": QUERY}
    with pytest.raises(requests.ReadTimeout):
        requests.get(
            f"{simulator.url}/v1/search/local.json", params=asked, headers=KEYS, timeout=0.3
        )
    started = time.monotonic()
    assert search(simulator).status_code == 200
    assert time.monotonic() - started < 1
    assert counts(simulator) == {"received": 2, "answered": 1, "faulted": 1}


def test_a_hang_that_is_over_ends_without_an_answer(simulator: Simulator) -> None:
    simulator.add_faults([fault("hang", seconds=0.05)])
    with pytest.raises(requests.ConnectionError):
        search(simulator)


def test_a_slow_call_is_answered_in_the_end(simulator: Simulator) -> None:
    simulator.add_faults([fault("slow", seconds=0.3)])
    started = time.monotonic()
    assert len(search(simulator).json()["items"]) == 5
    assert time.monotonic() - started >= 0.3


def test_latency_delays_each_call_and_not_the_others(simulator: Simulator) -> None:
    simulator.configure(latency_ms=200)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: search(simulator).status_code, range(20)))
    assert set(answers) == {200}
    assert 0.2 <= time.monotonic() - started < 1.5


def test_a_rule_meets_only_the_calls_it_describes(simulator: Simulator) -> None:
    simulator.add_faults(
        [
            fault("blank", from_call=2, to_call=3),
            fault("html", query_contains="서점", times=1),
            {"api": "regions", "fault": "blank"},
        ]
    )
    texts = [search(simulator).text[:1] for _ in range(4)]
    assert texts == ["{", "", "", "{"]
    assert [search(simulator, "울산광역시 남구 서점").text[:1] for _ in range(2)] == ["<", "{"]
    assert [rule["fired"] for rule in simulator.faults()] == [2, 1, 0]


def test_a_share_of_calls_fails_the_same_way_every_time(simulator: Simulator) -> None:
    outcomes = []
    for _ in range(2):
        simulator.reset()
        simulator.add_faults([fault("status", probability=0.3)])
        outcomes.append([search(simulator).status_code for _ in range(60)])
    assert outcomes[0] == outcomes[1]
    assert 8 <= outcomes[0].count(500) <= 30


def test_cleared_faults_are_gone(simulator: Simulator) -> None:
    simulator.add_faults([fault("blank")])
    simulator.clear_faults()
    assert search(simulator).json()["total"] == 5


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"api": "naver", "fault": "earthquake"}, "must be one of"),
        ({"api": "kakao", "fault": "blank"}, "must be one of"),
        ({"api": "naver", "fault": "blank", "when": 3}, "no such field"),
        ({"api": "naver", "fault": "blank", "times": "3"}, "times: not the kind"),
        ({"api": "naver", "fault": "status", "status": 99}, "from 200 to 599"),
    ],
)
def test_a_malformed_rule_is_refused_with_a_sentence(
    simulator: Simulator, rule: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        simulator.add_faults([rule])
    assert simulator.faults() == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"call_per_second": 3}, "no such simulator setting"),
        ({"calls_per_second": -1}, "calls_per_second must be"),
        ({"stray_share": 2}, "between 0 and 1"),
        ({"client_id": ""}, "must be a text"),
    ],
)
def test_a_malformed_setting_is_refused_with_a_sentence(
    simulator: Simulator, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        simulator.configure(**changes)


def test_credentials_can_change_while_it_runs(simulator: Simulator) -> None:
    simulator.configure(client_secret="another")
    assert search(simulator).status_code == 401
    simulator.configure(client_secret="demo-client-secret")
    assert search(simulator).status_code == 200


def test_the_clock_goes_forward_and_can_be_set(simulator: Simulator) -> None:
    assert simulator.set_clock("2027-06-30T23:59:50+09:00").startswith("2027-06-30T23:59:5")
    assert simulator.advance_clock(seconds=3600).startswith("2027-07-01T00:59:5")
    assert search(simulator).json()["lastBuildDate"].startswith("Thu, 01 Jul 2027")


def test_it_can_be_started_again_on_the_same_port() -> None:
    with running() as first:
        port = int(urlsplit(first.url).port or 0)
    with pytest.raises(requests.ConnectionError):
        first.stats()
    with running(port=port) as second:
        assert second.url == first.url
        assert counts(second) == {}


def test_it_ends_with_its_context_even_when_that_fails() -> None:
    def fail_inside() -> None:
        with running() as simulator:
            urls.append(simulator.url)
            raise LookupError

    urls: list[str] = []
    with pytest.raises(LookupError):
        fail_inside()
    with pytest.raises(requests.ConnectionError):
        requests.get(urls[0], timeout=5)


def test_it_ends_when_the_process_that_started_it_is_killed() -> None:
    code = (
        "import time\nfrom mohe_assets.simulator.server import running\n"
        "with running() as simulator:\n    print(simulator.url, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        parent.kill()
    wait_until_refused(url)


def wait_until_refused(url: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            requests.get(f"{url}/_control/clock", timeout=5)
        except requests.ConnectionError:
            return
        time.sleep(0.05)
    pytest.fail("it still answers")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_what_to_export_and_ends_cleanly(number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-c",
        SIMULATE,
        "--port",
        "0",
        "--calls-per-second",
        "0",
        "--latency-ms",
        "1.5",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removeprefix("simulator listening on ")
        lines = [process.stdout.readline().strip() for _ in range(6)]
        assert requests.get(f"{url}/_control/config", timeout=5).json()["latency_ms"] == 1.5
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=10)
    assert f"export MOHE_NAVER_API_URL='{url}'" in lines
    assert "export GOVT_API_KEY='demo-govt-key+/=='" in lines
    assert (process.returncode, errors) == (0, "")


def test_the_command_refuses_a_bad_value_with_a_sentence() -> None:
    command = [sys.executable, "-c", SIMULATE, "--latency-ms", "-3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert "--latency-ms" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_says_when_its_port_is_taken(simulator: Simulator) -> None:
    port = str(urlsplit(simulator.url).port)
    command = [sys.executable, "-c", SIMULATE, "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"The simulator cannot listen on 127.0.0.1 port {port}: Address already in use.\n"
    )
