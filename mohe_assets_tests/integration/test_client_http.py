"""The retries, deadlines and bookkeeping of the clients, over real sockets."""

import asyncio
import gzip
import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mohe_assets.clients.connections import MAX_BODY_BYTES
from mohe_assets.clients.exchange import Timeouts
from mohe_assets.clients.http import LocalRateLimiter, RetryPolicy
from mohe_assets.errors import (
    AnswerChanged,
    ApiBlocked,
    ApiError,
    BadQuery,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    SettingsError,
    StopRequested,
    TransientApiError,
)
from mohe_assets.sources.naver_local.client import CLASSIC, HUB, NaverLocalClient, SearchResponse
from mohe_assets.sources.naver_local.plan import Sort
from mohe_assets_tests.support.scripted_server import (
    RecordingGate,
    ScriptedServer,
    Step,
    chunked,
    drip,
    hang,
    head,
    raw,
    reply,
    reset,
)
from mohe_assets_tests.support.searches import no_wait, searched

QUICK = Timeouts(connect=1.0, read=0.25, total=0.5)
FOUND = json.dumps({"total": 1, "items": [{"title": "가게"}]}, ensure_ascii=False).encode()
RATE = b'{"errorMessage":"Rate limit exceeded.","errorCode":"012"}'
QUOTA = b'{"errorMessage":"Query limit exceeded.","errorCode":"010"}'


@dataclass
class Bench:
    """A client on a scripted server, with its gate, the waits it made, and the loop it lives in."""

    server: ScriptedServer
    client: NaverLocalClient
    rate_limiter: RecordingGate
    waits: list[float]
    runner: asyncio.Runner

    def search(self) -> SearchResponse:
        return self.runner.run(self.searching())

    def searching(self) -> Coroutine[Any, Any, SearchResponse]:
        return self.client.search("서울특별시 강남구 카페", sort=Sort.ACCURACY)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    opened: list[Bench] = []
    runner = asyncio.Runner()

    def build(*script: Step, **options: Any) -> Bench:
        server, rate_limiter, waits = ScriptedServer(*script), RecordingGate(), list[float]()

        async def note(wait: float) -> None:
            waits.append(wait)

        arguments: dict[str, Any] = {
            "api_version": CLASSIC,
            "client_id": "an-identifier",
            "client_secret": "a-secret",
            "rate_limiter": rate_limiter,
            "retry": RetryPolicy(sleep=note),
            "timeouts": QUICK,
        }
        client = NaverLocalClient(base_url=server.url, **arguments | options)
        opened.append(
            Bench(
                server=server, client=client, rate_limiter=rate_limiter, waits=waits, runner=runner
            )
        )
        return opened[-1]

    with runner:
        yield build
        for one in opened:
            runner.run(one.client.close())
            one.server.__exit__()


TROUBLES = {
    "reset": reset,
    "closed without an answer": raw(),
    "hangs": hang,
    "drips its status line": drip(b"HTTP/1.1 2", b"0"),
    "drips its headers": drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "drips its body": drip(head(200, "Content-Length: 100000"), b" "),
    "drips its chunks": drip(head(200, "Transfer-Encoding: chunked"), b"1\r\n \r\n"),
    "hangs in its body": drip(head(200, "Content-Length: 100000") + b"{", b""),
    "cut short": raw(head(200, f"Content-Length: {len(FOUND) + 1}"), FOUND),
    "cut short in chunks": raw(head(200, "Transfer-Encoding: chunked"), chunked(FOUND)),
    "broken chunks": raw(head(200, "Transfer-Encoding: chunked"), b"zz\r\n"),
    "cut short without a length": raw(head(200), FOUND[:-3]),
    "no gzip": reply(FOUND, 200, "Content-Encoding: gzip"),
    "gzip cut short": reply(gzip.compress(FOUND)[:-9], 200, "Content-Encoding: gzip"),
    "no HTTP": raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "blank": reply(b""),
    "HTML": reply(b"<!DOCTYPE html><html></html>", 200, "Content-Type: application/json"),
    "HTML 403": reply(b"<html>Request blocked</html>", 403),
    "redirect": reply(b"", 302, "Location: /elsewhere"),
    "SE99": reply(b'{"errorMessage":"System error","errorCode":"SE99"}', 500),
    "HUB 510": reply(b'{"error":{"errorCode":"510","message":"Endpoint Timeout"}}', 504),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_transient_failure_costs_a_call_and_is_tried_again(
    trouble: str, bench: Callable[..., Bench]
) -> None:
    one = bench(TROUBLES[trouble], reply(FOUND))
    started = time.monotonic()
    answer = one.search()
    assert time.monotonic() - started < 1.5
    assert (answer.items, answer.calls, len(one.server.requests)) == (({"title": "가게"},), 2, 2)
    assert one.rate_limiter.events == ["reserve", "failed", "reserve", "answered"]
    assert isinstance(one.rate_limiter.errors[0], TransientApiError)


def test_an_endless_body_is_given_up(bench: Callable[..., Bench]) -> None:
    endless = raw(head(200), *[b" " * 100_000] * (MAX_BODY_BYTES // 100_000 + 20))
    one = bench(endless, timeouts=Timeouts(total=10), retry=RetryPolicy(attempts=1))
    with pytest.raises(TransientApiError, match="exceeds"):
        one.search()


def test_a_small_body_that_unpacks_to_an_endless_one_is_given_up(
    bench: Callable[..., Bench],
) -> None:
    bomb = gzip.compress(b" " * 50_000_000, compresslevel=9)
    one = bench(
        reply(bomb, 200, "Content-Encoding: gzip"),
        timeouts=Timeouts(),
        retry=RetryPolicy(attempts=1),
    )
    tracemalloc.start()
    with pytest.raises(TransientApiError, match="exceeds"):
        one.search()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MAX_BODY_BYTES, "it was unpacked no further than the bound"


def test_failures_are_bounded_and_the_error_tells_what_they_cost(
    bench: Callable[..., Bench],
) -> None:
    one = bench(reply(b"", 503))
    with pytest.raises(TransientApiError) as caught:
        one.search()
    assert (caught.value.calls, len(one.server.requests)) == (4, 4)
    assert one.rate_limiter.events == ["reserve", "failed"] * 4
    assert [error.calls for error in one.rate_limiter.errors] == [1, 2, 3, 4]
    assert one.waits == sorted(one.waits)
    assert 0.5 <= one.waits[0] <= 1.0


def test_nobody_listening_is_a_transient_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    policy = RetryPolicy(attempts=2, sleep=no_wait)
    client = NaverLocalClient(
        base_url=url,
        api_version=HUB,
        client_id="x",
        client_secret="y",
        rate_limiter=LocalRateLimiter(),
        retry=policy,
    )
    with pytest.raises(TransientApiError) as caught:
        searched(client, sort=Sort.REVIEWS)
    assert caught.value.calls == 2


def test_rate_refusals_are_waited_out_and_are_no_failures(bench: Callable[..., Bench]) -> None:
    one = bench(*[reply(RATE, 429)] * 6, reset, reset, *[reply(RATE, 429)] * 6, reply(FOUND))
    assert one.search().calls == 15
    assert one.rate_limiter.events.count("refused") == 12
    assert one.rate_limiter.events.count("failed") == 2
    assert min(one.waits[:6]) >= 1.0


def test_rate_refusals_have_a_bound_of_their_own(bench: Callable[..., Bench]) -> None:
    one = bench(reply(RATE, 429))
    with pytest.raises(RateLimited) as caught:
        one.search()
    assert (caught.value.calls, len(one.server.requests)) == (20, 20)
    assert 8.0 <= max(one.waits) <= 8.5


@pytest.mark.parametrize(
    ("asked", "least", "most"), [("7", 7, 7), ("86400", 30, 30), ("-5", 1, 2), ("soon", 1, 2)]
)
def test_a_wait_that_the_server_asks_for_is_kept_within_reason(
    asked: str, least: float, most: float, bench: Callable[..., Bench]
) -> None:
    one = bench(reply(RATE, 429, f"Retry-After: {asked}"), reply(FOUND))
    one.search()
    assert least <= one.waits[0] <= most


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (reply(QUOTA, 429), QuotaExhausted),
        (reply(b'{"errorCode":"024","errorMessage":"no"}', 401), ApiBlocked),
    ],
)
def test_what_concerns_everybody_is_told_to_the_gate_and_not_tried_again(
    step: Step, kind: type[ApiError], bench: Callable[..., Bench]
) -> None:
    one = bench(step)
    with pytest.raises(kind) as caught:
        one.search()
    assert caught.value.calls == 1
    assert one.rate_limiter.events == ["reserve", "refused"]
    assert one.rate_limiter.errors == [caught.value]


def test_a_refusal_of_the_request_as_such_is_for_all_who_share_the_api(
    bench: Callable[..., Bench],
) -> None:
    one = bench(reply(b'{"errorCode":"SE05","errorMessage":"Invalid search api"}', 404))
    with pytest.raises(RequestRefused) as caught:
        one.search()
    assert (caught.value.calls, one.rate_limiter.events) == (1, ["reserve", "refused"])


def test_an_answer_of_another_shape_is_no_proper_answer(bench: Callable[..., Bench]) -> None:
    one = bench(reply(b'{"message":"ok","data":[]}'))
    with pytest.raises(AnswerChanged) as caught:
        one.search()
    assert (caught.value.calls, one.rate_limiter.events) == (1, ["reserve", "failed"])


def test_bytes_that_every_retry_returned_are_replaced(bench: Callable[..., Bench]) -> None:
    one = bench(reply(FOUND.replace("가".encode(), b"\xed\xa0\x80")))
    answer = one.search()
    assert answer.calls == 4
    (item,) = answer.items
    assert isinstance(item, dict)
    assert item["title"] == "\N{REPLACEMENT CHARACTER}" * 3 + "게"
    assert one.rate_limiter.events == ["reserve", "failed"] * 4 + ["answered"]


def test_the_last_answer_is_not_read_again_when_the_last_call_had_none(
    bench: Callable[..., Bench],
) -> None:
    one = bench(reply(b"\xff{"), reply(b"{"), reply(b"{"), reset)
    with pytest.raises(TransientApiError) as caught:
        one.search()
    assert (caught.value.calls, caught.value.signature) == (4, "reset")


SIGNATURES = {
    "hangs": "timeout",
    "drips its body": "timeout",
    "reset": "reset",
    "closed without an answer": "reset",
    "cut short": "reset",
    "no gzip": "unpack",
    "HTML": "html",
    "blank": "blank",
    "HTML 403": "http-403",
    "redirect": "http-302",
    "HUB 510": "http-504",
}


@pytest.mark.parametrize("trouble", SIGNATURES)
def test_a_failure_has_the_signature_of_its_cause(
    trouble: str, bench: Callable[..., Bench]
) -> None:
    one = bench(TROUBLES[trouble], retry=RetryPolicy(attempts=1))
    with pytest.raises(TransientApiError) as caught:
        one.search()
    assert caught.value.signature == SIGNATURES[trouble]


def test_a_bad_query_is_an_answer(bench: Callable[..., Bench]) -> None:
    one = bench(reply(b'{"errorCode":"SE01","errorMessage":"Incorrect query request"}', 400))
    with pytest.raises(BadQuery):
        one.search()
    assert one.rate_limiter.events == ["reserve", "answered"]


def test_a_shut_gate_means_that_nothing_is_sent(bench: Callable[..., Bench]) -> None:
    one = bench(reply(FOUND))
    one.rate_limiter.shut = QuotaExhausted("no calls are left", api="naver-classic")
    with pytest.raises(QuotaExhausted) as caught:
        one.search()
    assert (caught.value.calls, one.server.requests) == (0, [])


def test_a_wait_can_be_interrupted(bench: Callable[..., Bench]) -> None:
    async def interrupted(_: float) -> None:
        raise StopRequested("the process is ending")

    one = bench(reply(b"", 500), retry=RetryPolicy(sleep=interrupted))
    with pytest.raises(StopRequested):
        one.search()
    assert len(one.server.requests) == 1


@pytest.mark.parametrize(
    "step",
    [
        reply(FOUND, 200, "Content-Type: text/plain;charset=UTF-8"),
        reply(FOUND, 200, "Content-Type: application/json; charset=euc-kr"),
        reply(b"\xef\xbb\xbf" + FOUND, 200),
        reply(gzip.compress(FOUND), 200, "content-encoding: GZIP"),
        reply(
            gzip.compress(FOUND[:9]) + gzip.compress(FOUND[9:]) + b"\0\0",
            200,
            "Content-Encoding: x-gzip",
        ),
        reply(zlib.compress(FOUND), 200, "Content-Encoding: deflate"),
        reply(FOUND, 200, "Content-Encoding: identity"),
        raw(
            head(200, "Transfer-Encoding: chunked"),
            chunked(*[FOUND[i : i + 1] for i in range(len(FOUND))], b""),
        ),
        raw(head(200), FOUND),
        reply(json.dumps(json.loads(FOUND)).encode(), 200),
    ],
)
def test_the_body_counts_and_not_how_it_is_wrapped(step: Step, bench: Callable[..., Bench]) -> None:
    assert bench(step).search().items == ({"title": "가게"},)


def test_both_generations_are_asked_in_their_own_way(bench: Callable[..., Bench]) -> None:
    classic, hub = bench(reply(FOUND)), bench(reply(FOUND), api_version=HUB)
    classic.search()
    hub.runner.run(hub.client.search("카페 & 식당", sort=Sort.REVIEWS))
    assert classic.server.requests[0].startswith(
        "GET /v1/search/local.json?query=%EC%84%9C%EC%9A%B8"
    )
    assert "&display=5&start=1&sort=random " in classic.server.requests[0]
    assert (
        "X-Naver-Client-Id: an-identifier\r\nX-Naver-Client-Secret: a-secret\r\n"
        in classic.server.requests[0]
    )
    assert "User-Agent: mohe-assets/" in classic.server.requests[0]
    assert hub.server.requests[0].startswith("GET /search/v1/local?query=%EC%B9%B4%ED%8E%98+%26+")
    assert "&display=5&start=1&sort=comment&format=json " in hub.server.requests[0]
    assert (
        "X-NCP-APIGW-API-KEY-ID: an-identifier\r\nX-NCP-APIGW-API-KEY: a-secret\r\n"
        in hub.server.requests[0]
    )


def test_one_connection_is_kept_for_many_searches(bench: Callable[..., Bench]) -> None:
    one = bench(reply(FOUND), reply(RATE, 429), reply(FOUND))
    assert [one.search().calls for _ in range(3)] == [1, 2, 1]
    assert one.server.connections == 1


def closing_later(connection: socket.socket, server: ScriptedServer) -> bool:
    """Closes the connection while the loop is not looking, so that the loop cannot know when it
    resumes.
    """
    answered = reply(FOUND)(connection, server)
    time.sleep(0.05)
    return not answered


@pytest.mark.parametrize("step", [reply(FOUND, then_close=True), closing_later])
def test_an_idle_connection_that_the_server_closed_costs_nothing(
    step: Step, bench: Callable[..., Bench]
) -> None:
    one = bench(step)
    for _ in range(3):
        assert one.search().calls == 1
        time.sleep(0.1)
    assert one.server.connections == 3


def test_a_reset_on_a_reused_connection_costs_a_call(bench: Callable[..., Bench]) -> None:
    one = bench(reply(FOUND), reset, reply(FOUND))
    assert [one.search().calls for _ in range(2)] == [1, 2]
    assert one.rate_limiter.events == [
        "reserve",
        "answered",
        "reserve",
        "failed",
        "reserve",
        "answered",
    ]


def test_many_searches_in_flight_share_one_client(bench: Callable[..., Bench]) -> None:
    one = bench(reply(FOUND), timeouts=Timeouts())

    async def one_after_the_other() -> list[int]:
        return [(await one.searching()).calls for _ in range(25)]

    async def side_by_side() -> list[list[int]]:
        return await asyncio.gather(*(one_after_the_other() for _ in range(8)))

    assert one.runner.run(side_by_side()) == [[1] * 25] * 8
    assert len(one.server.requests) == 200
    assert one.server.connections <= 8


CANCELLED = {
    "before the answer": b"",
    "in its head": b"HTTP/1.1 200 OK\r\nContent-",
    "in its body": head(200, "Content-Length: 100") + b"{",
}


@pytest.mark.parametrize("when", CANCELLED)
def test_a_search_that_is_cancelled_closes_its_connection_and_is_no_failure(
    when: str, bench: Callable[..., Bench]
) -> None:
    asked, ended = threading.Event(), threading.Event()

    def answered_in_part(connection: socket.socket, _: ScriptedServer) -> bool:
        asked.set()
        connection.sendall(CANCELLED[when])
        if not connection.recv(1):
            ended.set()
        return False

    one = bench(answered_in_part, reply(FOUND), timeouts=Timeouts())

    async def cancel() -> None:
        search = asyncio.create_task(one.searching())
        assert await asyncio.to_thread(asked.wait, 5)
        await asyncio.sleep(0.05)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        assert await asyncio.to_thread(ended.wait, 5)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    one.runner.run(cancel())
    assert (one.rate_limiter.events, one.waits) == (["reserve"], [])
    assert one.search().calls == 1


def test_a_cancelled_second_try_or_wait_for_one_is_no_failure_either(
    bench: Callable[..., Bench],
) -> None:
    waiting = bench(reply(b"", 500), retry=RetryPolicy(first_wait=60.0, max_wait=60.0))
    trying = bench(reply(b"", 500), hang, timeouts=Timeouts())

    async def cancel(one: Bench) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.searching(), 0.3)

    waiting.runner.run(cancel(waiting))
    trying.runner.run(cancel(trying))
    assert waiting.rate_limiter.events == ["reserve", "failed"]
    assert trying.rate_limiter.events == ["reserve", "failed", "reserve"]


def test_a_cancelled_wait_for_the_gate_sends_nothing(bench: Callable[..., Bench]) -> None:
    one = bench(reply(FOUND), rate_limiter=LocalRateLimiter(calls_per_second=0.01))

    async def cancel() -> None:
        await one.searching()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.searching(), 0.05)

    one.runner.run(cancel())
    assert len(one.server.requests) == 1


def test_an_open_gate_spaces_calls_evenly() -> None:
    waits: list[float] = []

    async def note(wait: float) -> None:
        waits.append(wait)

    async def reserve() -> None:
        rate_limiter = LocalRateLimiter(calls_per_second=10, sleep=note)
        for _ in range(4):
            await rate_limiter.reserve()

    asyncio.run(reserve())
    assert waits == pytest.approx([0.1, 0.2, 0.3], abs=0.05)


@pytest.mark.parametrize(
    "url", ["naver.com", "ftp://naver.com", "https://", "https://naver.com/v1", "https://a@b.c"]
)
def test_a_base_url_with_more_than_a_host_is_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="base URL"):
        NaverLocalClient(
            base_url=url,
            api_version=HUB,
            client_id="x",
            client_secret="y",
            rate_limiter=LocalRateLimiter(),
        )


@pytest.mark.parametrize("secret", ["비밀", "a\nb", "a\u200bb"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        NaverLocalClient(
            base_url="https://h",
            api_version=CLASSIC,
            client_id="x",
            client_secret=secret,
            rate_limiter=LocalRateLimiter(),
        )
    assert "NAVER_CLIENT_SECRET" in str(caught.value)
    assert secret not in str(caught.value)
