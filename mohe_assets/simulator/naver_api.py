"""The place search, classic and HUB: same places; different headers, content types and errors."""

import json
from typing import TYPE_CHECKING, NamedTuple

from mohe_assets.simulator.faults import FaultRule, faulty_reply
from mohe_assets.simulator.http import JSON, PLAIN, Answer, Reply, Scope, parameters
from mohe_assets.simulator.naver_faults import DISTORTIONS, QUOTA_SHAPES

if TYPE_CHECKING:
    from mohe_assets.simulator.world import World

CLASSIC_PATH = "/v1/search/local.json"
HUB_PATH = "/search/v1/local"
_LARGEST_DISPLAY = 5

_SENTENCES = {
    "SE01": (400, "Incorrect query request (잘못된 쿼리요청입니다.)"),
    "SE02": (400, "Invalid display value (부적절한 display 값입니다.)"),
    "SE03": (400, "Invalid start value (부적절한 start 값입니다.)"),
    "SE04": (400, "Invalid sort value (부적절한 sort 값입니다.)"),
    "SE05": (404, "Invalid search api (존재하지 않는 검색 api 입니다.)"),
    "SE06": (400, "Malformed encoding (잘못된 형식의 인코딩입니다.)"),
    "SE99": (500, "System Error (시스템 에러)"),
    "010": (429, "Query limit exceeded. (쿼리 한도를 초과했습니다.)"),
    "012": (429, "Rate limit exceeded. (속도 제한을 초과했습니다.)"),
    "024": (401, "Not Exist Client ID : Authentication failed. (인증에 실패했습니다.)"),
}
_HUB_SENTENCES = {
    "100": (400, "Bad Request Exception", "The request is not valid."),
    "200": (401, "Authentication Failed", "Invalid authentication information."),
    "210": (401, "Permission Denied", "A subscription to the API is required."),
    "300": (404, "Not Found Exception", "URL not found."),
    "400": (429, "Quota Exceeded", "Quota exceeded."),
    "410": (429, "Throttle Limited", "Throttle limit exceeded."),
    "430": (413, "Request Entity Too Large", "The request is larger than 10 MB."),
    "500": (503, "Endpoint Error", "Endpoint cannot be reached."),
    "510": (504, "Endpoint Timeout", "Endpoint did not answer in time."),
    "900": (500, "Unexpected Error", "Unexpected error."),
}


def _json(status: int, content_type: bytes, body: object) -> Answer:
    return Answer(
        status, content_type, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    )


def _flat(code: str, content_type: bytes = JSON) -> Answer:
    status, sentence = _SENTENCES[code]
    return _json(status, content_type, {"errorMessage": sentence, "errorCode": code})


def _wrapped(status: int, code: str | int, message: str, details: str) -> Answer:
    return _json(
        status, PLAIN, {"error": {"errorCode": code, "message": message, "details": details}}
    )


def _hub_error(code: str) -> Answer:
    status, message, details = _HUB_SENTENCES[code]
    return _wrapped(status, code, message, details)


_CLASSIC_NAMED = {
    **QUOTA_SHAPES,
    "not_selected": _json(
        401,
        JSON,
        {
            "errorMessage": "Scope Status Invalid : Authentication failed. (인증 실패)",
            "errorCode": "024",
        },
    ),
    "rate": _flat("012"),
    "quota": _flat("010"),
    "auth": _flat("024"),
    "system_error": _flat("SE99"),
    "bad_query": _flat("SE01"),
    "not_found": _flat("SE05"),
    "unavailable": Answer(503, JSON, b""),
    "gateway_timeout": Answer(504, JSON, b""),
}
_HUB_NAMED = {
    **QUOTA_SHAPES,
    "not_selected": _hub_error("210"),
    "rate": _json(429, PLAIN, {"errorCode": "420", "message": "Rate Limited"}),
    "quota": _hub_error("400"),
    "auth": _hub_error("200"),
    "system_error": _flat("SE99", PLAIN),
    "bad_query": _flat("SE01", PLAIN),
    "not_found": _flat("SE05", PLAIN),
    "unavailable": _hub_error("500"),
    "gateway_timeout": _hub_error("510"),
}
# A known key id with a wrong key: this refusal has a number as its code.
_HUB_WRONG_KEY = _wrapped(401, 401, "Unauthorized", "API key is not valid.")
NAVER_FAULTS = (*sorted(_CLASSIC_NAMED.keys() - {"rate", "quota", "auth"}), *DISTORTIONS, "error")


class Generation(NamedTuple):
    name: str
    id_header: bytes
    key_header: bytes
    content_type: bytes
    named: dict[str, Answer]


CLASSIC = Generation(
    "classic", b"x-naver-client-id", b"x-naver-client-secret", JSON, _CLASSIC_NAMED
)
HUB = Generation("hub", b"x-ncp-apigw-api-key-id", b"x-ncp-apigw-api-key", PLAIN, _HUB_NAMED)


def _faulty(rule: FaultRule, reply: Reply, generation: Generation) -> Reply:
    """Apply a fault to a reply. Fault "error" with an unknown code is SE99."""
    if rule.fault == "slow":
        return reply._replace(delay=rule.seconds)
    proper = reply.answer or generation.named["system_error"]
    if rule.fault in DISTORTIONS:
        return Reply(DISTORTIONS[rule.fault](proper), "faulted")
    if rule.fault == "error" and generation is HUB and rule.code in _HUB_SENTENCES:
        return Reply(_hub_error(rule.code), "faulted")
    if rule.fault == "error":
        code = rule.code if rule.code in _SENTENCES else "SE99"
        return Reply(_flat(code, generation.content_type), "faulted")
    return faulty_reply(rule, generation.named, proper)


def unknown_path() -> Answer:
    return _flat("SE05")


class NaverApi:
    """Receives searches; they are counted when they arrive."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def receive(self, scope: Scope, generation: Generation) -> Reply:
        number = self._world.stats["naver"].arrived(generation.name)
        if refusal := self._refusal(scope, generation):
            return refusal
        try:
            params = parameters(scope)
        except UnicodeDecodeError:
            return Reply(_flat("SE06", generation.content_type), "bad_request")
        query = params.get("query", "")
        rule = self._world.faults.meeting("naver", number, query, None, self._world.config.seed)
        reply = self._search(params, query, generation)
        return reply if rule is None else _faulty(rule, reply, generation)

    def _refusal(self, scope: Scope, generation: Generation) -> Reply | None:
        world, config = self._world, self._world.config
        key_id, reply = self._authenticate(scope, generation)
        if reply is not None:
            return reply
        if not world.rate["naver"].admits(config.calls_per_second):
            if config.refused_calls_count:
                self._within_quota(key_id, generation)
            return Reply(generation.named["rate"], "refused_rate")
        if not self._within_quota(key_id, generation):
            return Reply(generation.named["quota"], "refused_quota")
        return None

    def _authenticate(self, scope: Scope, generation: Generation) -> tuple[str, Reply | None]:
        """Return the id of the keys, and a refusal unless they may search."""
        config, is_hub = self._world.config, generation is HUB
        if config.classic_ended and not is_hub:
            return "", Reply(generation.named["not_found"], "faulted")
        key_id = key = ""
        for name, value in scope["headers"]:
            if name == generation.id_header:
                key_id = value.decode("latin-1")
            elif name == generation.key_header:
                key = value.decode("latin-1")
        expected = (
            (config.hub_key_id, config.hub_key)
            if is_hub
            else (config.client_id, config.client_secret)
        )
        if (key_id, key) != expected:
            wrong_key = is_hub and key_id == expected[0] and key
            answer = _HUB_WRONG_KEY if wrong_key else generation.named["auth"]
            return key_id, Reply(answer, "refused_auth")
        if not config.search_not_selected:
            return key_id, None
        # For an application without the API, the HUB reports a used-up quota.
        name, outcome = ("quota", "refused_quota") if is_hub else ("not_selected", "refused_auth")
        return key_id, Reply(generation.named[name], outcome)

    def _within_quota(self, key_id: str, generation: Generation) -> bool:
        world, config = self._world, self._world.config
        day = world.clock.day(delay_seconds=config.quota_reset_delay_seconds)
        count_refused = config.refused_calls_count
        within_day = world.quota.admits(
            key_id, day, config.daily_quota, count_refused=count_refused
        )
        if generation is not HUB or not within_day:
            return within_day
        return world.quota.admits(
            key_id, day[:7], config.monthly_quota, count_refused=count_refused
        )

    def _search(self, params: dict[str, str], query: str, generation: Generation) -> Reply:
        sort, start = params.get("sort", "random"), params.get("start", "1")
        display_text = params.get("display", "1")
        display = int(display_text) if display_text.isdecimal() else 0
        if display > _LARGEST_DISPLAY:  # the HUB clamps it
            display = _LARGEST_DISPLAY if generation is HUB else 0
        # The HUB accepts any start and returns the first five items.
        is_first = start.isdecimal() and start != "0" and (generation is HUB or start == "1")
        checks = {
            "SE01": query.strip(),
            "SE02": display >= 1,
            "SE03": is_first,
            "SE04": sort in {"random", "comment"},
        }
        if code := next((code for code, is_good in checks.items() if not is_good), None):
            return Reply(_flat(code, generation.content_type), "bad_request")
        items = self._world.answers.items(query, sort)[:display]
        date, shown = self._world.clock.build_date(), len(items)
        body = (
            f'{{"lastBuildDate":"{date}","total":{shown},"start":1,"display":{shown},'
            f'"items":[{",".join(items)}]}}'
        )
        return Reply(
            Answer(200, generation.content_type, body.encode()),
            "answered",
            search=f"{query}|{sort}",
        )
