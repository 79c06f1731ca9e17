"""Wrong answers of the place search: bytes, items, totals, coordinates, refusals of odd shapes."""

import json
from collections.abc import Callable
from typing import Any

from mohe_assets.simulator.faults import altered
from mohe_assets.simulator.http import HTML, JSON, XML, Answer, text_answer

_TITLE = '"title":"'
_QUOTA_XML = (
    '<?xml version="1.0" encoding="UTF-8"?><result><errorMessage>Query limit exceeded. '
    "(쿼리 한도를 초과했습니다.)</errorMessage><errorCode>010</errorCode></result>"
)
_QUOTA_HTML = "<html><head><title>429</title></head><body>API quota exceeded</body></html>"

QUOTA_SHAPES = {
    "quota_words": text_answer(429, '{"errMsg":"API quota exceeded"}', JSON),
    "quota_xml": text_answer(429, _QUOTA_XML, XML),
    "quota_html": text_answer(429, _QUOTA_HTML, HTML),
    "refused_html": text_answer(429, "<html><body>Too Many Requests</body></html>", HTML),
    "refused_blank": text_answer(429, ""),
}


def _in_title(put: bytes) -> Callable[[Answer], Answer]:
    return lambda proper: altered(proper, _TITLE, _TITLE.encode() + put)


def _changed(change: Callable[[dict[str, Any]], None]) -> Callable[[Answer], Answer]:
    def changed(proper: Answer) -> Answer:
        body = json.loads(proper.body)
        if "items" not in body:
            return proper
        change(body)
        return proper._replace(body=json.dumps(body, ensure_ascii=False).encode())

    return changed


def _empty(total: int, items: list[Any] | None) -> Callable[[dict[str, Any]], None]:
    return lambda body: body.update(total=total, display=0, items=items)


def _scaled(scale: float) -> Callable[[dict[str, Any]], None]:
    """Change all coordinates to WGS84 degrees times `scale`."""

    def scaled(body: dict[str, Any]) -> None:
        for item in body["items"]:
            for name in ("mapx", "mapy"):
                value = int(item[name]) / 10**7 * scale
                item[name] = f"{value:.7f}" if scale == 1 else str(round(value))

    return scaled


def _katech(body: dict[str, Any]) -> None:
    for number, item in enumerate(body["items"]):
        item.update(mapx=str(313_277 + number), mapy=str(552_050 + number))


# Changes of the correct answer, by the name of the fault.
DISTORTIONS: dict[str, Callable[[Answer], Answer]] = {
    "control_characters": _in_title(b"\t\b\n"),
    "bad_byte": _in_title(b"\xed\xa0\x80"),
    "cut_character": _in_title(b"\xec\xa4"),
    "trailing_nul": lambda proper: altered(proper, "", b"\0"),
    "null_item": _changed(lambda body: body["items"].append(None)),
    "null_items": _changed(_empty(0, None)),
    "no_items": _changed(_empty(5, [])),
    "degrees": _changed(_scaled(1)),
    "microdegrees": _changed(_scaled(10**6)),
    "katech": _changed(_katech),
}
