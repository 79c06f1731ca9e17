"""The ASGI app: both APIs on their own paths, and a control endpoint for tests.

GET /_control/stats             counts per API (`naver`, `regions`): received, answered,
    refused_rate, refused_quota, refused_auth, bad_request, faulted, received_by_generation,
    first_answered and last_answered ({"monotonic", "wall"}), answers_per_search
    ({"query|sort": times}); quota_used; now. ?brief=1 omits the searches, ?moments=1 adds
    `answered_at`.
GET /_control/universe          {"11680": number of places, …} by leaf district;
  ?region=11680                 its true places: id, title, category, region, dong, lot, lat, lng
GET|POST|DELETE /_control/faults  list, add (a JSON list of rules), clear. A rule:
    {"api": "naver"|"regions", "fault": …} and optional conditions: "query_contains", "page",
    "from_call", "to_call" (numbers of the API's calls since the last reset, from 1), "times",
    "probability".
    Faults: status (with "status", "body" or "body_base64", "content_type"), altered (the correct
    answer with "put" or "put_base64" for the first "find", or at its end), blank (200, empty),
    html, garbage (cut-off JSON), wrong_shape, reset (connection reset), hang ("seconds", then a
    reset), slow ("seconds", then the answer), rate, quota, auth.
    naver: system_error, bad_query, not_found, unavailable, gateway_timeout, not_selected, error
    (with "code": SE02, 010, 210 …); 429 in other shapes: quota_words, quota_xml, quota_html,
    refused_html, refused_blank; the correct answer with control_characters, bad_byte,
    cut_character,
    trailing_nul, null_item, null_items, no_items (total 5), degrees, microdegrees, katech.
    regions: unauthorized, forbidden, not_found, bad_gateway, unexpected; with "code": gateway_json,
    gateway_xml, legacy_xml, response_json, response_xml, words (no code), korean_xml (no code,
    EUC-KR), result.
GET|POST /_control/clock        {"advance_seconds": 3600} or {"set": "2026-11-02T23:59:50+09:00"}
GET|POST /_control/config       any field of `SimulatorConfig`, such as `round` and `region_edits`
                                (see region_edits.py)
POST /_control/reset            clears counters, limits and faults; settings and the clock stay

Calls are counted and limited when they arrive. Checks: key, calls per second, quota, faults,
parameters.
"""

import asyncio
import random

from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.control import control_app
from mohe_assets.simulator.http import Receive, Reply, Scope, Send, cut, send_answer
from mohe_assets.simulator.naver_api import (
    CLASSIC,
    CLASSIC_PATH,
    HUB,
    HUB_PATH,
    NaverApi,
    unknown_path,
)
from mohe_assets.simulator.region_api import REGION_PATH, RegionApi
from mohe_assets.simulator.region_responses import plain
from mohe_assets.simulator.world import World


class SimulatorApp:
    """A raw ASGI callable without a router, because searches come thousands of times a second."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._world = World(config)
        self._naver = NaverApi(self._world)
        self._regions = RegionApi(self._world)
        self._control = control_app(self._world)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == CLASSIC_PATH:
            await self._deliver("naver", self._naver.receive(scope, CLASSIC), scope, receive, send)
        elif path == HUB_PATH:
            await self._deliver("naver", self._naver.receive(scope, HUB), scope, receive, send)
        elif path == REGION_PATH:
            await self._deliver("regions", self._regions.receive(scope), scope, receive, send)
        elif path.startswith("/_control/"):
            await self._control(scope, receive, send)
        else:
            await send_answer(unknown_path() if "search" in path else plain("not_found"), send)

    async def _deliver(
        self, api: str, reply: Reply, scope: Scope, receive: Receive, send: Send
    ) -> None:
        stats = self._world.stats[api]
        if reply.outcome != "answered":
            stats.ended(reply.outcome, reply.search)
        config = self._world.config
        latency_ms = config.latency_ms
        if config.latency_jitter_ms:
            latency_ms += random.uniform(0, config.latency_jitter_ms)  # noqa: S311 - a delay
        if delay := reply.delay + latency_ms / 1000:
            await asyncio.sleep(delay)
        # An answer counts when it is sent: a delayed answer is not answered yet.
        if reply.outcome == "answered":
            stats.ended(reply.outcome, reply.search)
        if reply.answer is None:
            await cut(scope, receive)
        else:
            await send_answer(reply.answer, send)
