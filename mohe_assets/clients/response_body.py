"""What the bodies of both APIs have in common: what they are, by their first byte, and what an
unreadable one means.
"""

import json
import math
import re
import reprlib
from codecs import BOM_UTF8
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum

from mohe_assets.clients.exchange import Response
from mohe_assets.domain.kst import KST
from mohe_assets.errors import ApiBlocked, ApiError, RateLimited, TransientApiError
from mohe_assets.text.cleaning import one_line

MAX_QUOTED = 120  # characters of a server's own text in our messages
SERVER_ERRORS = range(500, 600)
SUCCESSES = range(200, 300)
# An escape of NUL or of half a pair, which jsonb refuses. To look for it takes a tenth of the time
# to go through what was parsed.
_DOUBTFUL = re.compile(r"\\u(?:0000|[dD][89A-Fa-f])")


class BodyKind(StrEnum):
    """Named as they appear in an error's sentence."""

    JSON = "JSON of an unknown shape"
    XML = "XML"
    HTML = "an HTML page"
    TEXT = "plain text"
    BLANK = "a blank body"
    BROKEN = "a body that is cut short or garbled"


@dataclass(frozen=True, kw_only=True)
class Body:
    """A sniffed body; `value` is set for JSON only, always an object or a list, and PostgreSQL's
    jsonb can keep it.
    """

    kind: BodyKind
    text: str = ""
    value: object = None


def sniff(raw: bytes) -> Body:
    """Tell by the first byte, never by the Content-Type: one API sends JSON as text/html, the other
    as text/plain.
    """
    try:
        text = raw.removeprefix(BOM_UTF8).decode().strip()
    except UnicodeDecodeError:
        return Body(kind=BodyKind.BROKEN)
    if text[:1] in {"{", "["}:
        return _json(text)
    if text[:1] == "<":
        is_page = text[:9].lower() == "<!doctype" or text[:5].lower() == "<html"
        return Body(kind=BodyKind.HTML if is_page else BodyKind.XML, text=text)
    return Body(kind=BodyKind.TEXT if text else BodyKind.BLANK, text=text)


def _json(text: str) -> Body:
    try:
        value = _DECODER.decode(text)
        return Body(
            kind=BodyKind.JSON,
            text=text,
            value=storable(value) if _DOUBTFUL.search(text) else value,
        )
    except (ValueError, RecursionError):
        return Body(kind=BodyKind.BROKEN, text=text)


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


# One for all: `json.loads` would make one for each body that is read like this. jsonb has no number
# that is not finite.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None)


def storable(value: object) -> object:
    """Return the value without what jsonb refuses in texts: NUL characters and lone surrogates."""
    match value:
        case str():
            return value.replace("\0", "").encode("utf-8", "ignore").decode()
        case list():
            return [storable(item) for item in value]
        case dict():
            return {str(storable(key)): storable(item) for key, item in value.items()}
        case _:
            return value


def quoted(text: object) -> str:
    """A server's own words on one line, short enough for a message."""
    # A tree may be too deep for str(), and a text of megabytes is cut before it is looked through.
    words = str(text) if isinstance(text, str | int | float) else reprlib.repr(text)
    line = one_line(words[: 10 * MAX_QUOTED])
    return line if len(line) <= MAX_QUOTED else line[:MAX_QUOTED] + "…"


def unreadable(
    answer: Response, kind: BodyKind, *, api: str, variables: tuple[str, ...]
) -> ApiError:
    """The error for a body that says nothing; only the status is left to go by.

    A bare 403 is transient: it comes from a firewall or gateway in front of the API, and to call it
    a wrong key would stop the whole collection until a person came.
    """
    sentence = f"{api}: HTTP {answer.status} with {kind}"
    match answer.status:
        case 401:
            return ApiBlocked(
                f"{sentence}; look at {' and '.join(variables)}", api=api, variables=variables
            )
        case 429:
            return rate_limited(sentence, answer, api=api)
        case _:
            return TransientApiError(sentence, api=api, retry_after=answer.retry_after or 0.0)


def rate_limited(sentence: str, answer: Response, *, api: str) -> RateLimited:
    """At least a second: the limits are per second."""
    return RateLimited(sentence, api=api, retry_after=max(1.0, answer.retry_after or 0.0))


def quota_reset(now: datetime, *, late_by: timedelta) -> datetime:
    """When to probe again after a quota refusal: the next KST midnight.

    A reset may come up to `late_by` after midnight. A refusal in that time speaks of yesterday's
    quota, and waiting for the next midnight would lose a day: then it is ten minutes, or the end of
    that time.
    """
    today = datetime.combine(now.astimezone(KST).date(), time(), KST)
    if now < today + late_by:
        return min(now.astimezone(KST) + timedelta(minutes=10), today + late_by)
    return today + timedelta(days=1)
