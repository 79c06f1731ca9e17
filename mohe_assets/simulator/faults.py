"""Scripted faults and the calls they apply to. The rules are documented in `app`."""

import base64
import binascii
import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from mohe_assets.simulator.http import HTML, JSON, Answer, Reply, text_answer

GENERIC = (
    "status",
    "altered",
    "blank",
    "html",
    "garbage",
    "wrong_shape",
    "reset",
    "hang",
    "slow",
    "rate",
    "quota",
    "auth",
)
_HTML_PAGE = (
    "<!DOCTYPE html><html><head><title>점검 안내</title></head>"
    "<body>서비스 점검 중입니다.</body></html>"
)
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("api", "fault", "query_contains", "body", "content_type", "code"), str),
    **dict.fromkeys(("body_base64", "find", "put", "put_base64"), str),
    **dict.fromkeys(("page", "from_call", "to_call", "times", "status"), int),
    **dict.fromkeys(("probability", "seconds"), (int, float)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """A fault and its conditions, which all must hold. Call numbers count from 1, per API."""

    api: str
    fault: str
    query_contains: str = ""
    page: int | None = None
    from_call: int = 1
    to_call: int | None = None
    times: int | None = None
    probability: float = 1.0
    status: int = 500
    body: str = ""
    body_base64: str = ""
    content_type: str = "text/plain;charset=UTF-8"
    find: str = ""
    put: str = ""
    put_base64: str = ""
    seconds: float = 30.0
    code: str = ""

    @classmethod
    def from_json(cls, rule: Mapping[str, Any], known: Mapping[str, Iterable[str]]) -> Self:
        """Check a rule; `known` has the faults of each API. Raises ValueError if malformed."""
        fields = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(rule) - fields):
            raise ValueError(
                f"{', '.join(unknown)}: no such field of a fault rule; "
                f"there are {', '.join(sorted(fields))}"
            )
        if rule.get("api") not in known:
            raise ValueError(
                f"a fault rule's api must be one of {', '.join(known)}; it is {rule.get('api')!r}"
            )
        if rule.get("fault") not in (names := [*GENERIC, *known[rule["api"]]]):
            raise ValueError(
                f"a fault of {rule['api']} must be one of {', '.join(names)}; "
                f"it is {rule.get('fault')!r}"
            )
        if wrong := sorted(
            name for name, value in rule.items() if not isinstance(value, _TYPES[name])
        ):
            raise ValueError(
                f"{', '.join(wrong)}: not the kind of value this field of a fault rule takes"
            )
        if not 200 <= rule.get("status", 500) < 600:  # noqa: PLR2004 - final HTTP statuses
            raise ValueError(
                f"a fault rule's status must be from 200 to 599; it is {rule['status']}"
            )
        for name in ("body_base64", "put_base64"):
            try:
                base64.b64decode(rule.get(name, ""), validate=True)
            except binascii.Error:
                raise ValueError(f"a fault rule's {name} must be Base64") from None
        return cls(**rule)

    def applies(self, number: int, query: str, page: int | None, seed: int) -> bool:
        if number < self.from_call or (self.to_call is not None and number > self.to_call):
            return False
        if self.query_contains not in query or (self.page is not None and self.page != page):
            return False
        draw = zlib.crc32(f"{seed}:{self.fault}:{number}".encode()) / 2**32
        return draw < self.probability


class FaultBook:
    """The active rules and how often each has fired."""

    def __init__(self) -> None:
        self._rules: list[FaultRule] = []
        self._fired: list[int] = []

    def add(self, rules: Iterable[FaultRule]) -> None:
        for rule in rules:
            self._rules.append(rule)
            self._fired.append(0)

    def clear(self) -> None:
        self._rules.clear()
        self._fired.clear()

    def listed(self) -> list[dict[str, Any]]:
        pairs = zip(self._rules, self._fired, strict=True)
        return [dataclasses.asdict(rule) | {"fired": fired} for rule, fired in pairs]

    def meeting(
        self, api: str, number: int, query: str, page: int | None, seed: int
    ) -> FaultRule | None:
        """Return the first rule that applies to a call, and count it as fired."""
        for at, rule in enumerate(self._rules):
            used_up = rule.times is not None and self._fired[at] >= rule.times
            if rule.api == api and not used_up and rule.applies(number, query, page, seed):
                self._fired[at] += 1
                return rule
        return None


def faulty_reply(rule: FaultRule, named: Mapping[str, Answer], proper: Answer) -> Reply:
    """Return the reply of a faulty call.

    `named` has the API's own bodies, `proper` is the correct answer.
    """
    if rule.fault in named:
        return Reply(named[rule.fault], "faulted")
    if rule.fault in ("reset", "hang"):
        return Reply(None, "faulted", delay=rule.seconds if rule.fault == "hang" else 0.0)
    match rule.fault:
        case "status":
            body = base64.b64decode(rule.body_base64) or rule.body.encode()
            answer = Answer(rule.status, rule.content_type.encode("latin-1"), body)
        case "altered":
            put = base64.b64decode(rule.put_base64) or rule.put.encode()
            answer = altered(proper, rule.find, put)
        case "blank":
            answer = Answer(200, proper.content_type, b"")
        case "html":
            answer = text_answer(200, _HTML_PAGE, HTML)
        case "garbage":
            half = proper.body[: max(1, len(proper.body) // 2)]
            answer = Answer(200, proper.content_type, half)
        case _:
            answer = Answer(200, JSON, b'{"message":"ok","data":[]}')
    return Reply(answer, "faulted")


def altered(proper: Answer, find: str, put: bytes) -> Answer:
    """Return the answer with `put` for the first `find`, or at its end if `find` is empty."""
    before, found, after = proper.body.partition(find.encode()) if find else (proper.body, b"", b"")
    return proper._replace(body=before + put + after if found or not find else proper.body)
