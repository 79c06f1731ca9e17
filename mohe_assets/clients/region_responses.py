"""What an answer of the region API says: a page, or which error in which of its envelopes. Pure; no
HTTP.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from mohe_assets.clients.api_errors import SUCCESSES
from mohe_assets.clients.exchange import Response
from mohe_assets.clients.gateway_errors import Outcome, gateway_error, gateway_errors, judge
from mohe_assets.clients.response_body import Body, BodyKind, sniff
from mohe_assets.errors import ApiError

REGION_API = "region-api"
ERRORS = gateway_errors(
    api=REGION_API,
    title="행정안전부_행정표준코드_법정동코드",
    portal_number="15077871",
)

Row = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class RegionPage:
    """One page as it came; `total_count` is the size of the whole list. A page past the end has
    neither.
    """

    total_count: int
    rows: tuple[Row, ...]


def read_page(answer: Response, *, now: datetime) -> RegionPage:
    """Return the page, or raise the ApiError that the answer stands for. `now` is aware."""
    body = sniff(answer.body)
    judged = judge(body)
    if judged is None:
        raise _no_document(answer, body, now)
    if judged.outcome is Outcome.EMPTY:
        return RegionPage(total_count=0, rows=())
    if judged.outcome is not Outcome.SUCCESS:
        raise gateway_error(judged, answer, errors=ERRORS, now=now)
    return _page(answer, body)


def _no_document(answer: Response, body: Body, now: datetime) -> ApiError:
    if body.kind is BodyKind.JSON and answer.status in SUCCESSES:
        return ERRORS.changed(f"{REGION_API}: HTTP {answer.status} with {body.kind}")
    return ERRORS.unreadable(answer, body, now=now)


def _page(answer: Response, body: Body) -> RegionPage:
    if answer.status not in SUCCESSES:
        raise ERRORS.transient(f"{REGION_API}: HTTP {answer.status} with a page", answer)
    if not body.exact:
        raise ERRORS.unusable("a page with bytes that are not UTF-8", signature="bytes")
    document = _merged(body.value.get("StanReginCd") if isinstance(body.value, dict) else None)
    total, rows = _number(_merged(document.get("head")).get("totalCount")), document.get("row")
    if (
        total is None
        or not isinstance(rows, list)
        or not all(isinstance(row, dict) for row in rows)
    ):
        raise ERRORS.changed(f"{REGION_API}: a page without totalCount or without a list of rows")
    return RegionPage(total_count=total, rows=tuple(rows))


def _merged(sections: object) -> Row:
    """JSON spreads an object's keys over a list of objects, XML does not; either way one mapping."""
    parts = sections if isinstance(sections, list) else [sections]
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _number(value: object) -> int | None:
    text = str(value).strip()
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None
