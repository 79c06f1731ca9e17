"""Read answers of the region API: pages, and errors in any of its envelopes. Pure; no HTTP."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from mohe_assets.clients.api_errors import SUCCESSES
from mohe_assets.clients.exchange import Response
from mohe_assets.clients.gateway_errors import Outcome, gateway_error, gateway_errors, judge
from mohe_assets.clients.response_body import BodyKind, sniff

REGION_API = "region-api"
ERRORS = gateway_errors(
    api=REGION_API,
    title="행정안전부_행정표준코드_법정동코드",
    portal_number="15077871",
)

Row = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class RegionPage:
    """A page; `total_count` is the size of the whole list, 0 on a page past the end."""

    total_count: int
    rows: tuple[Row, ...]


def read_page(answer: Response, *, now: datetime) -> RegionPage:
    """Return the page of an answer, or raise the ApiError that it contains. `now` is aware."""
    body = sniff(answer.body)
    judged = judge(body)
    if judged is None and body.kind is BodyKind.JSON and answer.status in SUCCESSES:
        raise ERRORS.changed(f"{REGION_API}: HTTP {answer.status} with {body.kind}")
    if judged is None:
        raise ERRORS.unreadable(answer, body, now=now)
    if judged.outcome is Outcome.EMPTY:
        return RegionPage(total_count=0, rows=())
    if judged.outcome is not Outcome.SUCCESS:
        raise gateway_error(judged, answer, errors=ERRORS, now=now)
    if answer.status not in SUCCESSES:
        raise ERRORS.transient(f"{REGION_API}: HTTP {answer.status} with a page", answer)
    if not body.exact:
        raise ERRORS.unusable("a page with bytes that are not UTF-8", signature="bytes")
    document = _merged(body.value.get("StanReginCd") if isinstance(body.value, dict) else None)
    total, rows = str(_merged(document.get("head")).get("totalCount")).strip(), document.get("row")
    is_list = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not re.fullmatch(r"[0-9]{1,9}", total) or not is_list:
        raise ERRORS.changed(f"{REGION_API}: a page without totalCount or without a list of rows")
    return RegionPage(total_count=int(total), rows=tuple(cast("list[Row]", rows)))


def _merged(sections: object) -> Row:
    """Merge a list of objects, as the API's JSON has it, or an object, as its XML has it."""
    parts = sections if isinstance(sections, list) else [sections]
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
